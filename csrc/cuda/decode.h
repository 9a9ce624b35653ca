// Decoded inputs after each step, on a CUDA device.
#pragma once

#include <string>

#include "../problem.h"

namespace snn {

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error with CUDA's own message.
void decode_cuda(const DecodeProblem& problem, void* stream);

// Why this file's kernels, built like all others, cannot run on the current device; empty if they can.
std::string cuda_refusal();

}  // namespace snn
