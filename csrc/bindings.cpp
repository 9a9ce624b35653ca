// The extension module snn_kernels._C: numbers and addresses in, exceptions out; it knows nothing of torch.
#include "arguments.h"
#include "cpu/decode.h"
#include "cpu/isa.h"
#include "cpu/matmul.h"
#include "cpu/memory.h"
#include "cpu/neuron.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"
#include "cpu/scaled_gemm.h"
#include "cpu/spike_gemm.h"
#include "cpu/vector.h"
#if defined(SNN_CUDA)
#include "cuda/decode.h"
#include "cuda/device.h"
#include "cuda/neuron.h"
#include "cuda/parallel.h"
#include "cuda/vector.h"
#define SNN_IF_CUDA(function) function
#else
#define SNN_IF_CUDA(function) nullptr
#endif

namespace py = pybind11;

namespace {

using namespace snn;

using NeuronArguments = decltype(arguments_of(neuron_problem));

// timesteps, rows, inputs, taps, outputs, bytes, group_stride, row_offset, input_offset, weight (int8 if there is a
// scale), weight_scale, amplitude, row_amplitude, bias
using SpikeGemmArguments = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, Address, int64_t, Address, Address,
                                      Address, Address, Address, Address, Address>;
using CurrentArgument =
    std::tuple<Address, int64_t, Address, int64_t>;  // data, step stride, row offsets, output stride
using ResidualTrainArgument =
    std::tuple<Address, int64_t, Address, int64_t, Address>;  // bytes, group stride, the rest as above, amplitude

SpikeGemmProblem spike_gemm_problem(const SpikeGemmArguments& arguments, const CurrentArgument& current) {
    const auto& [timesteps, rows, inputs, taps, outputs, bytes, group_stride, row_offset, input_offset, weight,
                 weight_scale, amplitude, row_amplitude, bias] = arguments;
    SpikeGemmProblem problem{};
    problem.timesteps = timesteps;
    problem.rows = rows;
    problem.inputs = inputs;
    problem.taps = taps;
    problem.outputs = outputs;
    problem.bytes = pointer<const uint8_t>(bytes);
    problem.group_stride = group_stride;
    problem.row_offset = pointer<const int64_t>(row_offset);
    problem.input_offset = pointer<const int64_t>(input_offset);
    if (weight_scale)
        problem.weight8 = pointer<const int8_t>(weight);
    else
        problem.weight = pointer<const float>(weight);
    problem.weight_scale = pointer<const float>(weight_scale);
    problem.amplitude = pointer<const float>(amplitude);
    problem.row_amplitude = pointer<const float>(row_amplitude);
    problem.bias = pointer<const float>(bias);
    problem.current = pointer<float>(std::get<0>(current));
    problem.step_stride = std::get<1>(current);
    problem.current_row = pointer<const int64_t>(std::get<2>(current));
    problem.output_stride = std::get<3>(current);
    return problem;
}

void run_spike_gemm(const std::string& method, const SpikeGemmArguments& arguments, const CurrentArgument& current,
                    const std::pair<int64_t, int64_t>& count_and_bytes_stride, int threads) {
    const SpikeGemmProblem problem = spike_gemm_problem(arguments, current);
    if (method != "dense" && method != "event") throw std::invalid_argument("method: _C knows no " + method);
    const SpikeGemm product = method == "dense" ? spike_gemm_dense_cpu : spike_gemm_event_cpu;
    py::gil_scoped_release release;
    spike_gemm_groups_cpu(product, problem, {count_and_bytes_stride.first, count_and_bytes_stride.second}, threads);
}

void run_spike_gemm_signgd(const std::vector<SpikeGemmArguments>& products, const CurrentArgument& residual,
                           const ResidualTrainArgument& residual_train, const NeuronArguments& neuron, int threads) {
    std::vector<SpikeGemmProblem> gemms;
    for (const SpikeGemmArguments& product : products) gemms.push_back(spike_gemm_problem(product, residual));
    const auto& [bytes, group_stride, row_offset, output_stride, amplitude] = residual_train;
    const SpikeResidual train{pointer<const uint8_t>(bytes), group_stride, pointer<const int64_t>(row_offset),
                              output_stride, pointer<const float>(amplitude)};
    const NeuronProblem problem = std::apply(neuron_problem, neuron);
    py::gil_scoped_release release;
    spike_gemm_signgd_cpu(gemms, train, problem, threads);
}

// timesteps, samples, positions, channels, rows, taps, outputs
using ScaledGemmSizes = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;
// sizes; bytes, group stride, sample stride, position offsets, channel stride; row positions, weight, amplitude, bias
using ScaledGemmArguments = std::tuple<ScaledGemmSizes, std::tuple<Address, int64_t, int64_t, Address, int64_t>,
                                       std::tuple<Address, Address, Address, Address>>;
// data, step stride, sample stride, row offsets, output stride
using SampleCurrentArgument = std::tuple<Address, int64_t, int64_t, Address, int64_t>;

ScaledGemmProblem scaled_gemm_problem(const ScaledGemmArguments& arguments, const SampleCurrentArgument& current) {
    const auto& [sizes, train, operands] = arguments;
    const auto& [timesteps, samples, positions, channels, rows, taps, outputs] = sizes;
    const auto& [bytes, group_stride, sample_stride, position_offset, channel_stride] = train;
    const auto& [row_position, weight, amplitude, bias] = operands;
    const auto& [data, step_stride, current_sample, current_row, output_stride] = current;
    return {timesteps,
            samples,
            positions,
            channels,
            rows,
            taps,
            outputs,
            pointer<const uint8_t>(bytes),
            group_stride,
            sample_stride,
            pointer<const int64_t>(position_offset),
            channel_stride,
            pointer<const int64_t>(row_position),
            pointer<const float>(weight),
            pointer<const float>(amplitude),
            pointer<const float>(bias),
            pointer<float>(data),
            step_stride,
            current_sample,
            pointer<const int64_t>(current_row),
            output_stride};
}

void run_scaled_gemm(const ScaledGemmArguments& arguments, const SampleCurrentArgument& current, int threads) {
    const ScaledGemmProblem problem = scaled_gemm_problem(arguments, current);
    py::gil_scoped_release release;
    scaled_gemm_cpu(problem, threads);
}

// bytes, group stride, sample stride, row offsets, output stride; amplitude, its row stride
using SampleTrainArgument = std::tuple<Address, int64_t, int64_t, Address, int64_t, Address, int64_t>;

void run_scaled_gemm_signgd(const std::vector<ScaledGemmArguments>& products, const SampleCurrentArgument& residual,
                            const SampleTrainArgument& residual_train, const NeuronArguments& neuron, int threads) {
    std::vector<ScaledGemmProblem> gemms;
    for (const ScaledGemmArguments& product : products) gemms.push_back(scaled_gemm_problem(product, residual));
    const auto& [bytes, group_stride, sample_stride, row_offset, output_stride, amplitude, amplitude_row] =
        residual_train;
    const ScaledResidual train{
        pointer<const uint8_t>(bytes),   group_stride, sample_stride, pointer<const int64_t>(row_offset), output_stride,
        pointer<const float>(amplitude), amplitude_row};
    const NeuronProblem problem = std::apply(neuron_problem, neuron);
    py::gil_scoped_release release;
    scaled_gemm_signgd_cpu(gemms, train, problem, threads);
}

using MatrixArgument = std::pair<Address, std::vector<int64_t>>;  // MatrixView
// dtype or uint8 for a train, currents, step stride; amplitude, offset, x; x_out
using MatmulInputArgument =
    std::tuple<std::string, MatrixArgument, int64_t, MatrixArgument, MatrixArgument, MatrixArgument, Address>;

MatrixView matrix_view(const MatrixArgument& argument) {
    return {pointer<const void>(argument.first), argument.second};
}

MatmulInput matmul_input(const MatmulInputArgument& argument) {
    const auto& [dtype, current, step_stride, amplitude, offset, x, x_out] = argument;
    const bool train = names_train(dtype);
    return {train ? DType::float32 : dtype_of(dtype),
            train,
            matrix_view(current),
            step_stride,
            matrix_view(amplitude),
            matrix_view(offset),
            matrix_view(x),
            pointer<float>(x_out)};
}

// `sizes` are those of the batch, the rows of a, its columns and the columns of b.
MatmulProblem matmul_problem(int64_t timesteps, const std::vector<int64_t>& sizes, Address eta,
                             const MatmulInputArgument& a, const MatmulInputArgument& b, const MatrixArgument& scale,
                             const MatrixArgument& v, Address v_out, Address bytes) {
    if (sizes.size() < 3) throw std::invalid_argument("sizes: expected at least 3");
    const auto batch_end = sizes.end() - 3;
    return {timesteps,
            {sizes.begin(), batch_end},
            batch_end[0],
            batch_end[1],
            batch_end[2],
            pointer<const float>(eta),
            matmul_input(a),
            matmul_input(b),
            matrix_view(scale),
            matrix_view(v),
            pointer<float>(v_out),
            pointer<uint8_t>(bytes)};
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    std::vector<std::string> models;
    for (const ModelEntry& model : kModels) models.push_back(model.name);
    module.attr("models") = models;
    module.attr("isa") = name_of(isa_here());
    module.attr("openmp") =
#if defined(_OPENMP)
        true;
#else
        false;
#endif
    module.attr("compiler") = SNN_COMPILER;
    module.attr("cuda_architectures") = SNN_CUDA_ARCHITECTURES;
    define(module, "neuron", neuron_problem, neuron_cpu, SNN_IF_CUDA(neuron_cuda));
    define(module, "decode", decode_problem, decode_cpu, SNN_IF_CUDA(decode_cuda));
    define(module, "parallel", parallel_problem, parallel_cpu, SNN_IF_CUDA(parallel_cuda));
    define(module, "matmul", matmul_problem, matmul_cpu, nullptr);
    define(module, "vector", vector_problem, vector_cpu, SNN_IF_CUDA(vector_cuda));
    define(module, "spike_weight", spike_weight_problem, nullptr, SNN_IF_CUDA(spike_weight_cuda));
    define(module, "spike_current", spike_current_problem, nullptr, SNN_IF_CUDA(spike_current_cuda));
    define(module, "spike_event", spike_current_problem, nullptr, SNN_IF_CUDA(spike_event_cuda));
    define(module, "spike_neuron", spike_neuron_problem, nullptr, SNN_IF_CUDA(spike_neuron_cuda));
#if defined(SNN_CUDA)
    module.def("cuda_refusal", cuda_refusal);
#endif
    module.def("prefer_huge_pages", [](Address data, size_t bytes) { prefer_huge_pages(pointer<void>(data), bytes); });
    module.def("spike_gemm_cpu", &run_spike_gemm);
    module.def("spike_gemm_signgd_cpu", &run_spike_gemm_signgd);
    module.def("scaled_gemm_cpu", &run_scaled_gemm);
    module.def("scaled_gemm_signgd_cpu", &run_scaled_gemm_signgd);
    module.def("pack_cpu",
               [](Address spikes, int64_t element, Address bytes, int64_t timesteps, int64_t neurons, int threads) {
                   py::gil_scoped_release release;
                   pack_cpu(pointer<const void>(spikes), element, pointer<uint8_t>(bytes), timesteps, neurons, threads);
               });
    module.def("count_cpu", [](Address bytes, int64_t count) {
        py::gil_scoped_release release;
        return count_cpu(pointer<const uint8_t>(bytes), count);
    });
    module.def("unpack_cpu", [](Address bytes, Address spikes, const std::string& dtype, int64_t timesteps,
                                int64_t neurons, int threads) {
        const DType type = dtype_of(dtype);
        py::gil_scoped_release release;
        unpack_cpu(pointer<const uint8_t>(bytes), pointer<void>(spikes), type, timesteps, neurons, threads);
    });
}
