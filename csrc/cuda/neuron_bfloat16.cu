#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<__nv_bfloat16>(const NeuronProblem&, cudaStream_t);
