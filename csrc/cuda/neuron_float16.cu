#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<__half>(const NeuronProblem&, cudaStream_t);
