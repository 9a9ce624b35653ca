#include "neuron.h"

#include "neuron_kernel.cuh"

namespace snn {

void neuron_cuda(const NeuronProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    const Input& received = problem.input[0].received;
    if (!cuda::in_runs(problem)) return cuda::neuron_by_model<cuda::Any, 1>(problem, cuda_stream);
    if (received.train) return cuda::neuron_by_model<cuda::Train, cuda::kRun>(problem, cuda_stream);
    switch (received.dtype) {
        case DType::float32: return cuda::neuron_by_model<float, cuda::kRun>(problem, cuda_stream);
        case DType::float16: return cuda::neuron_by_model<__half, cuda::kRun>(problem, cuda_stream);
        case DType::bfloat16: return cuda::neuron_by_model<__nv_bfloat16, cuda::kRun>(problem, cuda_stream);
    }
}

}  // namespace snn
