// The inner loops of the neurons whose target is a function of their vector, compiled once per instruction set.
#pragma once

#include "neuron_tile.h"

namespace snn::SNN_ISA {

extern const VectorKernel vector_kernels[];

}  // namespace snn::SNN_ISA
