#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<snn::cuda::Any, 1>(const NeuronProblem&, cudaStream_t);
