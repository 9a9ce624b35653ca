#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<float>(const NeuronProblem&, cudaStream_t);
