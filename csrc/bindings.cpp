// The extension module snn_kernels._C: numbers and addresses in, exceptions out; it knows nothing of torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "core/models.h"
#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/neuron.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"
#include "cpu/spike_gemm.h"
#include "cpu/vector.h"
#if defined(SNN_CUDA)
#include "cuda/neuron.h"
#include "cuda/parallel.h"
#include "cuda/vector.h"
#endif

namespace py = pybind11;

namespace {

using Address = uintptr_t;
using OperandArgument = std::tuple<Address, int64_t, int64_t>;  // data, inner, period
using InputArgument = std::tuple<Address, int64_t, OperandArgument, OperandArgument, Address, Address>;  // NeuronInput
using MomentumArgument = std::tuple<float, bool, Address>;  // momentum, nesterov, m

struct ModelEntry {
    std::string name;
    int inputs;
    bool decodes, momentum;
};

template <class... Model>
std::vector<ModelEntry> entries(snn::SNN_ISA::ModelList<Model...>) {
    return {{Model::name(), Model::inputs, Model::decodes, Model::momentum}...};
}

const std::vector<ModelEntry> kModels = entries(snn::SNN_ISA::Models{});

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

snn::Operand operand(const OperandArgument& argument) {
    return {pointer<const float>(std::get<0>(argument)), std::get<1>(argument), std::get<2>(argument)};
}

snn::DType dtype_of(const std::string& name) {
    if (name == "float32") return snn::DType::float32;
    if (name == "float16") return snn::DType::float16;
    if (name == "bfloat16") return snn::DType::bfloat16;
    throw std::invalid_argument("dtype: expected float32, float16 or bfloat16, got " + name);
}

snn::NeuronProblem neuron_problem(const std::string& model, const std::string& dtype, int64_t timesteps,
                                  int64_t neurons, Address eta, const std::vector<InputArgument>& inputs,
                                  const OperandArgument& scale, const std::vector<OperandArgument>& parameters,
                                  const OperandArgument& v, Address v_out, Address bytes,
                                  const MomentumArgument& momentum) {
    snn::NeuronProblem problem{};
    const auto found = std::find_if(kModels.begin(), kModels.end(), [&](const auto& row) { return row.name == model; });
    if (found == kModels.end()) throw std::invalid_argument("model: _C knows no " + model);
    problem.model = static_cast<int>(found - kModels.begin());
    problem.arity = static_cast<int>(inputs.size());
    if (problem.arity != found->inputs || parameters.size() != snn::kParameters)
        throw std::invalid_argument("inputs: wrong number for " + model);
    problem.dtype = dtype_of(dtype);
    problem.timesteps = timesteps;
    problem.neurons = neurons;
    problem.eta = pointer<const float>(eta);
    for (int k = 0; k < problem.arity; ++k) {
        const auto& [current, step_stride, offset, x, x_out, m] = inputs[k];
        if ((x_out != 0) != found->decodes || (m != 0) != found->momentum)
            throw std::invalid_argument("inputs: wrong state for " + model);
        problem.input[k] = {pointer<const void>(current), step_stride,      operand(offset), operand(x),
                            pointer<float>(x_out),        pointer<float>(m)};
    }
    problem.scale = operand(scale);
    for (int k = 0; k < snn::kParameters; ++k) problem.parameter[k] = operand(parameters[k]);
    problem.v = operand(v);
    problem.v_out = pointer<float>(v_out);
    problem.bytes = pointer<uint8_t>(bytes);
    problem.momentum = std::get<0>(momentum);
    problem.nesterov = std::get<1>(momentum);
    problem.m = pointer<float>(std::get<2>(momentum));
    return problem;
}

// Runs the neuron on the CPU with `where` threads, or on the CUDA stream at address `where`. The problem is the tuple
// of neuron_problem's arguments.
template <class Arguments>
void neuron(const std::string& backend, const Arguments& arguments, Address where) {
    const snn::NeuronProblem problem = std::apply(neuron_problem, arguments);
    py::gil_scoped_release release;
    if (backend == "cpu") return snn::neuron_cpu(problem, static_cast<int>(where));
#if defined(SNN_CUDA)
    if (backend == "cuda") return snn::neuron_cuda(problem, pointer<void>(where));
#endif
    throw std::invalid_argument("backend: _C was built without " + backend);
}

using NeuronArguments =
    std::tuple<std::string, std::string, int64_t, int64_t, Address, std::vector<InputArgument>, OperandArgument,
               std::vector<OperandArgument>, OperandArgument, Address, Address, MomentumArgument>;

// Neurons that see all steps at once, on the CPU with `where` threads or on the CUDA stream at address `where`. Without
// weights they count, with `threshold` and `shift`; with weights they mix, with a threshold a step.
void parallel(const std::string& backend, const std::string& dtype, int64_t timesteps, int64_t neurons,
              const std::pair<Address, int64_t>& current, const OperandArgument& threshold,
              const OperandArgument& shift, const std::pair<Address, Address>& weight_and_threshold, Address bytes,
              Address where) {
    snn::ParallelProblem problem{};
    problem.dtype = dtype_of(dtype);
    problem.timesteps = timesteps;
    problem.neurons = neurons;
    problem.current = pointer<const void>(current.first);
    problem.step_stride = current.second;
    problem.threshold = operand(threshold);
    problem.shift = operand(shift);
    problem.weight = pointer<const float>(weight_and_threshold.first);
    problem.step_threshold = pointer<const float>(weight_and_threshold.second);
    problem.bytes = pointer<uint8_t>(bytes);
    py::gil_scoped_release release;
    if (backend == "cpu") return snn::parallel_cpu(problem, static_cast<int>(where));
#if defined(SNN_CUDA)
    if (backend == "cuda") return snn::parallel_cuda(problem, pointer<void>(where));
#endif
    throw std::invalid_argument("backend: _C was built without " + backend);
}

// Neurons whose target is a function of their vector; `sizes` are the steps, the neurons and a vector's length,
// `operands` offset, scale, a, b, x and v.
void vector(const std::string& backend, const std::string& function, const std::string& dtype,
            const std::tuple<int64_t, int64_t, int64_t>& sizes, Address eta, float eps,
            const std::pair<Address, int64_t>& current, const std::vector<OperandArgument>& operands, Address x_out,
            Address v_out, Address bytes, Address where) {
    snn::VectorProblem problem{};
    const auto found = std::find(std::begin(snn::kVectorFunctions), std::end(snn::kVectorFunctions), function);
    if (found == std::end(snn::kVectorFunctions)) throw std::invalid_argument("function: _C knows no " + function);
    if (operands.size() != 6) throw std::invalid_argument("operands: expected 6");
    problem.function = static_cast<int>(found - std::begin(snn::kVectorFunctions));
    problem.dtype = dtype_of(dtype);
    std::tie(problem.timesteps, problem.neurons, problem.length) = sizes;
    problem.eta = pointer<const float>(eta);
    problem.eps = eps;
    std::tie(problem.current, problem.step_stride) = std::pair{pointer<const void>(current.first), current.second};
    snn::Operand* const fields[] = {&problem.offset, &problem.scale, &problem.a, &problem.b, &problem.x, &problem.v};
    for (size_t k = 0; k < operands.size(); ++k) *fields[k] = operand(operands[k]);
    problem.x_out = pointer<float>(x_out);
    problem.v_out = pointer<float>(v_out);
    problem.bytes = pointer<uint8_t>(bytes);
    py::gil_scoped_release release;
    if (backend == "cpu") return snn::vector_cpu(problem, static_cast<int>(where));
#if defined(SNN_CUDA)
    if (backend == "cuda") return snn::vector_cuda(problem, pointer<void>(where));
#endif
    throw std::invalid_argument("backend: _C was built without " + backend);
}

// timesteps, rows, inputs, taps, outputs, bytes, group_stride, row_offset, input_offset, weight, amplitude, bias
using SpikeGemmArguments = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, Address, int64_t, Address, Address,
                                      Address, Address, Address>;
using CurrentArgument =
    std::tuple<Address, int64_t, Address, int64_t>;  // data, step stride, row offsets, output stride
using ResidualTrainArgument =
    std::tuple<Address, int64_t, Address, int64_t, Address>;  // bytes, group stride, the rest as above, amplitude

snn::SpikeGemmProblem spike_gemm_problem(const SpikeGemmArguments& arguments, const CurrentArgument& current) {
    const auto& [timesteps, rows, inputs, taps, outputs, bytes, group_stride, row_offset, input_offset, weight,
                 amplitude, bias] = arguments;
    snn::SpikeGemmProblem problem{};
    problem.timesteps = timesteps;
    problem.rows = rows;
    problem.inputs = inputs;
    problem.taps = taps;
    problem.outputs = outputs;
    problem.bytes = pointer<const uint8_t>(bytes);
    problem.group_stride = group_stride;
    problem.row_offset = pointer<const int64_t>(row_offset);
    problem.input_offset = pointer<const int64_t>(input_offset);
    problem.weight = pointer<const float>(weight);
    problem.amplitude = pointer<const float>(amplitude);
    problem.bias = pointer<const float>(bias);
    problem.current = pointer<float>(std::get<0>(current));
    problem.step_stride = std::get<1>(current);
    problem.current_row = pointer<const int64_t>(std::get<2>(current));
    problem.output_stride = std::get<3>(current);
    return problem;
}

void spike_gemm_cpu(const std::string& method, const SpikeGemmArguments& arguments, const CurrentArgument& current,
                    const std::pair<int64_t, int64_t>& count_and_bytes_stride, int threads) {
    const snn::SpikeGemmProblem problem = spike_gemm_problem(arguments, current);
    if (method != "dense" && method != "event") throw std::invalid_argument("method: _C knows no " + method);
    const snn::SpikeGemm product = method == "dense" ? snn::spike_gemm_dense_cpu : snn::spike_gemm_event_cpu;
    py::gil_scoped_release release;
    snn::spike_gemm_groups_cpu(product, problem, {count_and_bytes_stride.first, count_and_bytes_stride.second},
                               threads);
}

void spike_gemm_signgd_cpu(const SpikeGemmArguments& arguments, const CurrentArgument& residual,
                           const ResidualTrainArgument& residual_train, const NeuronArguments& neuron, int threads) {
    const snn::SpikeGemmProblem gemm = spike_gemm_problem(arguments, residual);
    const auto& [bytes, group_stride, row_offset, output_stride, amplitude] = residual_train;
    const snn::SpikeResidual train{pointer<const uint8_t>(bytes), group_stride, pointer<const int64_t>(row_offset),
                                   output_stride, pointer<const float>(amplitude)};
    const snn::NeuronProblem problem = std::apply(neuron_problem, neuron);
    py::gil_scoped_release release;
    snn::spike_gemm_signgd_cpu(gemm, train, problem, threads);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    std::vector<std::string> models;
    for (const ModelEntry& model : kModels) models.push_back(model.name);
    module.attr("models") = models;
    module.attr("isa") = snn::name_of(snn::isa_here());
    module.attr("openmp") =
#if defined(_OPENMP)
        true;
#else
        false;
#endif
    module.attr("compiler") = SNN_COMPILER;
    module.attr("cuda_architectures") = SNN_CUDA_ARCHITECTURES;
    module.def("neuron", &neuron<NeuronArguments>);
    module.def("parallel", &parallel);
    module.def("vector", &vector);
    module.def("prefer_huge_pages",
               [](Address data, size_t bytes) { snn::prefer_huge_pages(pointer<void>(data), bytes); });
    module.def("spike_gemm_cpu", &spike_gemm_cpu);
    module.def("spike_gemm_signgd_cpu", &spike_gemm_signgd_cpu);
    module.def("pack_cpu", [](Address spikes, Address bytes, int64_t timesteps, int64_t neurons, int threads) {
        py::gil_scoped_release release;
        snn::pack_cpu(pointer<const uint8_t>(spikes), pointer<uint8_t>(bytes), timesteps, neurons, threads);
    });
    module.def("count_cpu", [](Address bytes, int64_t count) {
        py::gil_scoped_release release;
        return snn::count_cpu(pointer<const uint8_t>(bytes), count);
    });
    module.def("unpack_cpu", [](Address bytes, Address spikes, const std::string& dtype, int64_t timesteps,
                                int64_t neurons, int threads) {
        const snn::DType type = dtype_of(dtype);
        py::gil_scoped_release release;
        snn::unpack_cpu(pointer<const uint8_t>(bytes), pointer<void>(spikes), type, timesteps, neurons, threads);
    });
}
