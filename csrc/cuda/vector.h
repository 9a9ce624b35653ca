// Neurons whose target is a function of their vector, on a CUDA device.
#pragma once

#include "../problem.h"

namespace snn {

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error with CUDA's own message.
void vector_cuda(const VectorProblem& problem, void* stream);

}  // namespace snn
