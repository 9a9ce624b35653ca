#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<snn::cuda::Train>(const NeuronProblem&, cudaStream_t);
