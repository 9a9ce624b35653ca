// What Python hands over, numbers and addresses in tuples; the problems made of it; how a module gets an op.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/models.h"
#include "cuda/spike_gemm.h"
#include "problem.h"

namespace snn {

using Address = uintptr_t;
using OperandArgument = std::tuple<Address, int64_t, int64_t>;  // data, inner, period
// dtype of the currents or uint8 for a train, data, stride, amplitude
using SourceArgument = std::tuple<std::string, Address, int64_t, OperandArgument>;
using InputArgument = std::tuple<SourceArgument, OperandArgument, OperandArgument, Address, Address>;  // NeuronInput
using MomentumArgument = std::tuple<float, bool, Address>;  // momentum, nesterov, m

struct ModelEntry {
    std::string name;
    int inputs;
    bool decodes, momentum;
};

template <class... Model>
std::vector<ModelEntry> entries(SNN_ISA::ModelList<Model...>) {
    return {{Model::name(), Model::inputs, Model::decodes, Model::momentum}...};
}

inline const std::vector<ModelEntry> kModels = entries(SNN_ISA::Models{});

inline auto model_named(const std::string& name) {
    const auto found = std::find_if(kModels.begin(), kModels.end(), [&](const auto& row) { return row.name == name; });
    if (found == kModels.end()) throw std::invalid_argument("model: _C knows no " + name);
    return found;
}

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

inline Operand operand(const OperandArgument& argument) {
    return {pointer<const float>(std::get<0>(argument)), std::get<1>(argument), std::get<2>(argument)};
}

inline DType dtype_of(const std::string& name) {
    if (name == "float32") return DType::float32;
    if (name == "float16") return DType::float16;
    if (name == "bfloat16") return DType::bfloat16;
    throw std::invalid_argument("dtype: expected float32, float16 or bfloat16, got " + name);
}

inline bool names_train(const std::string& dtype) { return dtype == "uint8"; }

inline Input input_of(const SourceArgument& argument) {
    const auto& [dtype, data, stride, amplitude] = argument;
    if (names_train(dtype)) return {DType::float32, nullptr, pointer<const uint8_t>(data), stride, operand(amplitude)};
    return {dtype_of(dtype), pointer<const void>(data), nullptr, stride, operand(amplitude)};
}

inline NeuronProblem neuron_problem(const std::string& model, int64_t timesteps, int64_t neurons, Address eta,
                                    const std::vector<InputArgument>& inputs, const OperandArgument& scale,
                                    const std::vector<OperandArgument>& parameters, const OperandArgument& v,
                                    Address v_out, Address bytes, const MomentumArgument& momentum) {
    NeuronProblem problem{};
    const auto found = model_named(model);
    problem.model = static_cast<int>(found - kModels.begin());
    problem.arity = static_cast<int>(inputs.size());
    if (problem.arity != found->inputs || parameters.size() != kParameters)
        throw std::invalid_argument("inputs: wrong number for " + model);
    problem.timesteps = timesteps;
    problem.neurons = neurons;
    problem.eta = pointer<const float>(eta);
    for (int k = 0; k < problem.arity; ++k) {
        const auto& [received, offset, x, x_out, m] = inputs[k];
        if ((x_out != 0) != found->decodes || (m != 0) != found->momentum)
            throw std::invalid_argument("inputs: wrong state for " + model);
        problem.input[k] = {input_of(received), operand(offset), operand(x), pointer<float>(x_out), pointer<float>(m)};
    }
    problem.scale = operand(scale);
    for (int k = 0; k < kParameters; ++k) problem.parameter[k] = operand(parameters[k]);
    problem.v = operand(v);
    problem.v_out = pointer<float>(v_out);
    problem.bytes = pointer<uint8_t>(bytes);
    problem.momentum = std::get<0>(momentum);
    problem.nesterov = std::get<1>(momentum);
    problem.m = pointer<float>(std::get<2>(momentum));
    return problem;
}

// Neurons that see all steps at once. Without weights they count, with `threshold` and `shift`; with weights they mix,
// with a threshold a step.
inline ParallelProblem parallel_problem(const std::string& dtype, int64_t timesteps, int64_t neurons,
                                        const std::pair<Address, int64_t>& current, const OperandArgument& threshold,
                                        const OperandArgument& shift,
                                        const std::pair<Address, Address>& weight_and_threshold, Address bytes) {
    ParallelProblem problem{};
    problem.input = {dtype_of(dtype), pointer<const void>(current.first), nullptr, current.second, {}};
    problem.timesteps = timesteps;
    problem.neurons = neurons;
    problem.threshold = operand(threshold);
    problem.shift = operand(shift);
    problem.weight = pointer<const float>(weight_and_threshold.first);
    problem.step_threshold = pointer<const float>(weight_and_threshold.second);
    problem.bytes = pointer<uint8_t>(bytes);
    return problem;
}

inline DecodeProblem decode_problem(int64_t timesteps, int64_t neurons, Address eta, const SourceArgument& input,
                                    const OperandArgument& offset, const OperandArgument& x, Address out) {
    return {timesteps,       neurons,    pointer<const float>(eta), input_of(input),
            operand(offset), operand(x), pointer<float>(out)};
}

// Neurons whose target is a function of their vector; `sizes` are the steps, the neurons and a vector's length,
// `operands` offset, scale, a, b, x and v.
inline VectorProblem vector_problem(const std::string& function, const std::tuple<int64_t, int64_t, int64_t>& sizes,
                                    Address eta, float eps, const SourceArgument& input,
                                    const std::vector<OperandArgument>& operands, Address x_out, Address v_out,
                                    Address bytes) {
    VectorProblem problem{};
    const auto found = std::find(std::begin(kVectorFunctions), std::end(kVectorFunctions), function);
    if (found == std::end(kVectorFunctions)) throw std::invalid_argument("function: _C knows no " + function);
    if (operands.size() != 6) throw std::invalid_argument("operands: expected 6");
    problem.function = static_cast<int>(found - std::begin(kVectorFunctions));
    std::tie(problem.timesteps, problem.neurons, problem.length) = sizes;
    problem.eta = pointer<const float>(eta);
    problem.eps = eps;
    problem.input = input_of(input);
    Operand* const fields[] = {&problem.offset, &problem.scale, &problem.a, &problem.b, &problem.x, &problem.v};
    for (size_t k = 0; k < operands.size(); ++k) *fields[k] = operand(operands[k]);
    problem.x_out = pointer<float>(x_out);
    problem.v_out = pointer<float>(v_out);
    problem.bytes = pointer<uint8_t>(bytes);
    return problem;
}

using FieldArgument = std::pair<Address, int64_t>;  // NeuronField

using WindowsArgument = std::array<int64_t, 11>;  // Windows
// timesteps, rows, outputs, parts, bytes, group_stride, windows, weight, multiplier, bias
using SpikeProductArgument =
    std::tuple<int64_t, int64_t, int64_t, int64_t, Address, int64_t, WindowsArgument, Address, Address, Address>;

inline SpikeProduct spike_product(const SpikeProductArgument& argument) {
    const auto& [timesteps, rows, outputs, parts, bytes, group_stride, w, weight, multiplier, bias] = argument;
    return {timesteps,
            rows,
            outputs,
            parts,
            pointer<const uint8_t>(bytes),
            group_stride,
            {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10]},
            pointer<const void>(weight),
            pointer<const float>(multiplier),
            pointer<const float>(bias)};
}

// `strides` are those of outputs, channels and taps, `sizes` their numbers and the blocks of a tap.
inline SpikeWeightProblem spike_weight_problem(const std::string& dtype, Address from,
                                               const std::array<int64_t, 3>& strides,
                                               const std::array<int64_t, 4>& sizes,
                                               const std::pair<int64_t, int>& parts_and_lowest,
                                               const std::pair<Address, int64_t>& amplitude, Address bias_from,
                                               Address weight, Address multiplier, Address bias) {
    return {dtype_of(dtype),
            pointer<const void>(from),
            strides[0],
            strides[1],
            strides[2],
            sizes[0],
            sizes[1],
            sizes[2],
            sizes[3],
            parts_and_lowest.first,
            parts_and_lowest.second,
            pointer<const float>(amplitude.first),
            amplitude.second,
            pointer<const float>(bias_from),
            pointer<void>(weight),
            pointer<float>(multiplier),
            pointer<float>(bias)};
}

inline SpikeCurrentProblem spike_current_problem(const SpikeProductArgument& product, Address current,
                                                 int64_t step_stride, int64_t row_stride) {
    return {spike_product(product), pointer<float>(current), step_stride, row_stride};
}

using ResidualRowsArgument = std::tuple<Address, Address, int64_t, int64_t, Address>;  // ResidualRows

// `fields` are offset, x, scale, the parameters and v.
inline SpikeNeuronProblem spike_neuron_problem(const SpikeProductArgument& product,
                                               const ResidualRowsArgument& residual, const std::string& model,
                                               Address eta, const std::vector<FieldArgument>& fields, Address x_out,
                                               Address v_out, Address bytes) {
    if (fields.size() != 4 + kParameters) throw std::invalid_argument("fields: wrong number");
    const auto& [current, train, step_stride, row_stride, amplitude] = residual;
    const auto field = [&](size_t k) { return NeuronField{pointer<const float>(fields[k].first), fields[k].second}; };
    return {spike_product(product),
            {pointer<const float>(current), pointer<const uint8_t>(train), step_stride, row_stride,
             pointer<const float>(amplitude)},
            static_cast<int>(model_named(model) - kModels.begin()),
            pointer<const float>(eta),
            field(0),
            field(1),
            field(2),
            {field(3), field(4)},
            field(5),
            pointer<float>(x_out),
            pointer<float>(v_out),
            pointer<uint8_t>(bytes)};
}

// The tuple of the arguments of a function that makes a problem.
template <class Problem, class... Argument>
std::tuple<std::decay_t<Argument>...> arguments_of(Problem (*)(Argument...)) {
    return {};
}

template <class Problem, class Where>
using Kernel = std::common_type_t<void (*)(const Problem&, Where)>;  // which takes no part in deduction

// module.name(backend, arguments, where) runs an op on the CPU with `where` threads or on the CUDA stream at address
// `where`; `arguments` is the tuple that `problem_of` takes. A backend that was not built is null.
template <class Problem, class... Argument>
void define(pybind11::module_& module, const char* name, Problem (*problem_of)(Argument...), Kernel<Problem, int> cpu,
            Kernel<Problem, void*> cuda) {
    using Arguments = decltype(arguments_of(problem_of));
    module.def(name, [=](const std::string& backend, const Arguments& arguments, Address where) {
        const Problem problem = std::apply(problem_of, arguments);
        pybind11::gil_scoped_release release;
        if (backend == "cpu" && cpu) return cpu(problem, static_cast<int>(where));
        if (backend == "cuda" && cuda) return cuda(problem, pointer<void>(where));
        throw std::invalid_argument("backend: _C was built without " + backend);
    });
}

}  // namespace snn
