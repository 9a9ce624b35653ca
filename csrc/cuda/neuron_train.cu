#include "neuron_kernel.cuh"

template void snn::cuda::neuron_by_model<snn::cuda::Train, snn::cuda::kRun>(const NeuronProblem&, cudaStream_t);
