#include "spike_gemm.h"

#include <iterator>

#include "spike_event_kernel.cuh"
#include "spike_gemm_kernel.cuh"
#include "spike_weight_kernel.cuh"

namespace snn {
namespace cuda {
namespace {

int64_t tiles_of(const SpikeProduct& p) {
    return (p.rows + kBlockRows - 1) / kBlockRows * ((p.outputs + kOutputBlock - 1) / kOutputBlock);
}

int64_t groups_of(const SpikeCurrentProblem& p) { return (p.product.timesteps + kStepsPerByte - 1) / kStepsPerByte; }

// Whether the currents of neighbouring outputs can be written kRun at a time.
bool writes_runs(const SpikeCurrentProblem& p) {
    return p.product.outputs % kRun == 0 && aligned_to(p.current, 16) && p.step_stride % kRun == 0 &&
           p.row_stride % kRun == 0;
}

template <class Model>
void run(const SpikeNeuronProblem& p, cudaStream_t stream) {
    bool whole = p.product.outputs % kRun == 0 && aligned_to(p.x_out, 16) && aligned_to(p.v_out, 16) &&
                 aligned_to(p.bytes, kRun);
    for (const NeuronField& field : {p.offset, p.x, p.scale, p.parameter[0], p.parameter[1], p.v})
        whole = whole && aligned_to(field.data, 16) && field.row_stride % kRun == 0;
    const ResidualRows& residual = p.residual;
    whole = whole && aligned_to(residual.current, 16) && aligned_to(residual.amplitude, 16) &&
            aligned_to(residual.bytes, kRun) && residual.step_stride % kRun == 0 && residual.row_stride % kRun == 0;
    launch("spike_neuron", spike_neuron_kernel<Model>, tiles_of(p.product), stream, p, whole);
}

#define SNN_RUN(name, expression) run<SignGD<activation::name##_fn>>,
constexpr void (*run_by_model[])(const SpikeNeuronProblem&, cudaStream_t) = {SNN_UNARY_ACTIVATIONS(SNN_RUN)};
#undef SNN_RUN

}  // namespace
}  // namespace cuda

void spike_weight_cuda(const SpikeWeightProblem& problem, void* stream) {
    using namespace cuda;
    if (problem.taps * problem.tap_blocks * kInputBlock >= int64_t{1} << 31)
        throw std::invalid_argument("weight: expected fewer than 2^31 inputs an output");
    const int64_t outputs = (problem.outputs + kOutputBlock - 1) / kOutputBlock * kOutputBlock;
    const auto run = [&](auto kernel) {
        launch("spike_weight", kernel, outputs, static_cast<cudaStream_t>(stream), problem);
    };
    switch (problem.dtype) {
        case DType::float32: return run(spike_weight_kernel<float>);
        case DType::float16: return run(spike_weight_kernel<__half>);
        case DType::bfloat16: return run(spike_weight_kernel<__nv_bfloat16>);
    }
}

void spike_current_cuda(const SpikeCurrentProblem& problem, void* stream) {
    using namespace cuda;
    launch("spike_current", spike_current_kernel, tiles_of(problem.product) * groups_of(problem),
           static_cast<cudaStream_t>(stream), problem, writes_runs(problem));
}

void spike_event_cuda(const SpikeCurrentProblem& problem, void* stream) {
    using namespace cuda;
    const SpikeProduct& p = problem.product;
    const int64_t tiles = (p.rows + kEventRows - 1) / kEventRows * ((p.outputs + kEventOutputs - 1) / kEventOutputs);
    const bool whole =
        writes_runs(problem) && aligned_to(p.weight, 16) && aligned_to(p.multiplier, 16) && aligned_to(p.bias, 16);
    launch("spike_event", spike_event_kernel, tiles * groups_of(problem), static_cast<cudaStream_t>(stream), problem,
           whole);
}

void spike_neuron_cuda(const SpikeNeuronProblem& problem, void* stream) {
    // Activations of one input come first among the models.
    if (problem.model >= static_cast<int>(std::size(cuda::run_by_model)))
        throw std::invalid_argument("model: expected signGD of one input, without momentum");
    cuda::run_by_model[problem.model](problem, static_cast<cudaStream_t>(stream));
}

}  // namespace snn
