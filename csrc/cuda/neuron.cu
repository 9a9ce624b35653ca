#include "neuron.h"

#include "neuron_kernel.cuh"

namespace snn {

void neuron_cuda(const NeuronProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    switch (problem.dtype) {
        case DType::float32: return cuda::neuron_by_model<float>(problem, cuda_stream);
        case DType::float16: return cuda::neuron_by_model<__half>(problem, cuda_stream);
        case DType::bfloat16: return cuda::neuron_by_model<__nv_bfloat16>(problem, cuda_stream);
    }
}

}  // namespace snn
