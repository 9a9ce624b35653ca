// Decoded inputs after each step, on a CUDA device.
#pragma once

#include "../problem.h"

namespace snn {

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error with CUDA's own message.
void decode_cuda(const DecodeProblem& problem, void* stream);

}  // namespace snn
