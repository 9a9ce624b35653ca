#include "signgd.h"

#include "signgd_kernel.cuh"

namespace snn {

void signgd_cuda(const SignGDProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    switch (problem.dtype) {
        case DType::float32: return cuda::signgd_by_activation<float>(problem, cuda_stream);
        case DType::float16: return cuda::signgd_by_activation<__half>(problem, cuda_stream);
        case DType::bfloat16: return cuda::signgd_by_activation<__nv_bfloat16>(problem, cuda_stream);
    }
}

}  // namespace snn
