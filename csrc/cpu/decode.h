// Decoded inputs after each step, on the CPU.
#pragma once

#include "../problem.h"

namespace snn {

void decode_cpu(const DecodeProblem& problem, int threads);

}  // namespace snn
