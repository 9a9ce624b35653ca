#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<__nv_bfloat16, snn::cuda::kRun>(const NeuronProblem&, cudaStream_t);
