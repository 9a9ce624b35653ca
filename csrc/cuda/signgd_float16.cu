#include "signgd_kernel.cuh"

template void snn::cuda::signgd_by_activation<__half>(const SignGDProblem&, cudaStream_t);
