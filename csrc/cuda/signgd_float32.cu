#include "signgd_kernel.cuh"

template void snn::cuda::signgd_by_activation<float>(const SignGDProblem&, cudaStream_t);
