#include "neuron.h"

#include "neuron_kernel.cuh"

namespace snn {

void neuron_cuda(const NeuronProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    const Input& received = problem.input[0].received;
    if (received.train) return cuda::neuron_by_model<cuda::Train>(problem, cuda_stream);
    switch (received.dtype) {
        case DType::float32: return cuda::neuron_by_model<float>(problem, cuda_stream);
        case DType::float16: return cuda::neuron_by_model<__half>(problem, cuda_stream);
        case DType::bfloat16: return cuda::neuron_by_model<__nv_bfloat16>(problem, cuda_stream);
    }
}

}  // namespace snn
