// The signGD neuron on the CPU.
#pragma once

#include "../problem.h"

namespace snn {

void signgd_cpu(const SignGDProblem& problem, int threads);

}  // namespace snn
