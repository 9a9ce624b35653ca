// Neurons that see all steps at once, on the CPU.
#pragma once

#include "../problem.h"

namespace snn {

// Neurons that a thread works on. A count reads each current once, in runs that are long enough for the memory; a
// mixture reads the currents of all steps once for every step, from the cache.
constexpr int kCountTile = 4096, kMixTile = 256;

void parallel_cpu(const ParallelProblem& problem, int threads);

}  // namespace snn
