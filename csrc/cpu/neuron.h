// The signGD neuron on the CPU.
#pragma once

#include "../problem.h"

namespace snn {

void neuron_cpu(const NeuronProblem& problem, int threads);

}  // namespace snn
