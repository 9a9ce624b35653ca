// The extension module snn_kernels._C: numbers and addresses in, exceptions out; it knows nothing of torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/activations.h"
#include "cpu/isa.h"
#include "cpu/packing.h"
#include "cpu/signgd.h"
#include "cpu/spike_gemm.h"
#if defined(SNN_CUDA)
#include "cuda/signgd.h"
#endif

namespace py = pybind11;

namespace {

using Address = uintptr_t;
using OperandArgument = std::tuple<Address, int64_t, int64_t>;                                  // data, inner, period
using InputArgument = std::tuple<Address, int64_t, OperandArgument, OperandArgument, Address>;  // see SignGDInput

#define SNN_NAME(name, expression) #name,
const std::vector<std::string> kActivations = {SNN_ACTIVATIONS(SNN_NAME)};
#undef SNN_NAME
#define SNN_ARITY(name, expression) snn::SNN_ISA::activation::name##_fn::arity,
const int kArity[] = {SNN_ACTIVATIONS(SNN_ARITY)};
#undef SNN_ARITY

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

snn::SignGDProblem signgd_problem(const std::string& activation, const std::string& dtype, int64_t timesteps,
                                  int64_t neurons, Address eta, const std::vector<InputArgument>& inputs,
                                  const OperandArgument& scale, const std::vector<OperandArgument>& parameters,
                                  const OperandArgument& v, Address v_out, Address bytes) {
    snn::SignGDProblem problem{};
    const auto found = std::find(kActivations.begin(), kActivations.end(), activation);
    if (found == kActivations.end()) throw std::invalid_argument("activation: _C knows no " + activation);
    problem.activation = static_cast<int>(found - kActivations.begin());
    problem.arity = static_cast<int>(inputs.size());
    if (problem.arity != kArity[problem.activation] || parameters.size() != snn::kParameters)
        throw std::invalid_argument("inputs: wrong number for " + activation);
    problem.dtype = dtype_of(dtype);
    problem.timesteps = timesteps;
    problem.neurons = neurons;
    problem.eta = pointer<const float>(eta);
    for (int k = 0; k < problem.arity; ++k) {
        const auto& [current, step_stride, offset, x, x_out] = inputs[k];
        problem.input[k] = {pointer<const void>(current), step_stride, operand(offset), operand(x),
                            pointer<float>(x_out)};
    }
    problem.scale = operand(scale);
    for (int k = 0; k < snn::kParameters; ++k) problem.parameter[k] = operand(parameters[k]);
    problem.v = operand(v);
    problem.v_out = pointer<float>(v_out);
    problem.bytes = pointer<uint8_t>(bytes);
    return problem;
}

// Runs the neuron on the CPU with `where` threads, or on the CUDA stream at address `where`. The problem is the tuple
// of signgd_problem's arguments.
template <class Arguments>
void signgd(const std::string& backend, const Arguments& arguments, Address where) {
    const snn::SignGDProblem problem = std::apply(signgd_problem, arguments);
    py::gil_scoped_release release;
    if (backend == "cpu") return snn::signgd_cpu(problem, static_cast<int>(where));
#if defined(SNN_CUDA)
    if (backend == "cuda") return snn::signgd_cuda(problem, pointer<void>(where));
#endif
    throw std::invalid_argument("backend: _C was built without " + backend);
}

using SignGDArguments = std::tuple<std::string, std::string, int64_t, int64_t, Address, std::vector<InputArgument>,
                                   OperandArgument, std::vector<OperandArgument>, OperandArgument, Address, Address>;

// timesteps, rows, inputs, outputs, bytes, group_stride, row_offset, input_offset, weight, bias
using SpikeGemmArguments =
    std::tuple<int64_t, int64_t, int64_t, int64_t, Address, int64_t, Address, Address, Address, Address>;
using CurrentArgument =
    std::tuple<Address, int64_t, Address, int64_t>;  // data, step stride, row offsets, output stride

snn::SpikeGemmProblem spike_gemm_problem(const SpikeGemmArguments& arguments) {
    const auto& [timesteps, rows, inputs, outputs, bytes, group_stride, row_offset, input_offset, weight, bias] =
        arguments;
    snn::SpikeGemmProblem problem{};
    problem.timesteps = timesteps;
    problem.rows = rows;
    problem.inputs = inputs;
    problem.outputs = outputs;
    problem.bytes = pointer<const uint8_t>(bytes);
    problem.group_stride = group_stride;
    problem.row_offset = pointer<const int64_t>(row_offset);
    problem.input_offset = pointer<const int64_t>(input_offset);
    problem.weight = pointer<const float>(weight);
    problem.bias = pointer<const float>(bias);
    return problem;
}

// `weight_by_input` is null for the dense method.
void spike_gemm_cpu(const SpikeGemmArguments& arguments, const CurrentArgument& current, Address weight_by_input,
                    int threads) {
    snn::SpikeGemmProblem problem = spike_gemm_problem(arguments);
    problem.current = pointer<float>(std::get<0>(current));
    problem.step_stride = std::get<1>(current);
    problem.current_row = pointer<const int64_t>(std::get<2>(current));
    problem.output_stride = std::get<3>(current);
    py::gil_scoped_release release;
    if (weight_by_input) return snn::spike_gemm_event_cpu(problem, pointer<const float>(weight_by_input), threads);
    snn::spike_gemm_dense_cpu(problem, threads);
}

void spike_gemm_signgd_cpu(const SpikeGemmArguments& arguments, const SignGDArguments& neuron, int threads) {
    const snn::SpikeGemmProblem gemm = spike_gemm_problem(arguments);
    const snn::SignGDProblem problem = std::apply(signgd_problem, neuron);
    py::gil_scoped_release release;
    snn::spike_gemm_signgd_cpu(gemm, problem, threads);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.attr("activations") = kActivations;
    module.attr("isa") = snn::name_of(snn::isa_here());
    module.attr("openmp") =
#if defined(_OPENMP)
        true;
#else
        false;
#endif
    module.attr("compiler") = SNN_COMPILER;
    module.attr("cuda_architectures") = SNN_CUDA_ARCHITECTURES;
    module.def("signgd", &signgd<SignGDArguments>);
    module.def("spike_gemm_cpu", &spike_gemm_cpu);
    module.def("spike_gemm_signgd_cpu", &spike_gemm_signgd_cpu);
    module.def("pack_cpu", [](Address spikes, Address bytes, int64_t timesteps, int64_t neurons, int threads) {
        py::gil_scoped_release release;
        snn::pack_cpu(pointer<const uint8_t>(spikes), pointer<uint8_t>(bytes), timesteps, neurons, threads);
    });
    module.def("unpack_cpu", [](Address bytes, Address spikes, const std::string& dtype, int64_t timesteps,
                                int64_t neurons, int threads) {
        const snn::DType type = dtype_of(dtype);
        py::gil_scoped_release release;
        snn::unpack_cpu(pointer<const uint8_t>(bytes), pointer<void>(spikes), type, timesteps, neurons, threads);
    });
}
