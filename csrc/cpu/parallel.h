// Neurons that see all steps at once, on the CPU.
#pragma once

#include "../problem.h"

namespace snn {

constexpr int kParallelTile = 256;  // neurons whose currents of all steps a thread works on: 1 KB a step

void parallel_cpu(const ParallelProblem& problem, int threads);

}  // namespace snn
