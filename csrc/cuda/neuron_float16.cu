#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<__half, snn::cuda::kRun>(const NeuronProblem&, cudaStream_t);
