#include "signgd_kernel.cuh"

template void snn::cuda::signgd_by_activation<__nv_bfloat16>(const SignGDProblem&, cudaStream_t);
