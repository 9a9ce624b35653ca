// Neurons whose target is a function of their vector, on the CPU.
#pragma once

#include "../problem.h"

namespace snn {

void vector_cpu(const VectorProblem& problem, int threads);

}  // namespace snn
