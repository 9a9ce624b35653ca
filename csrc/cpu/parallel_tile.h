// The inner loops of the neurons that see all steps at once, compiled once per instruction set.
#pragma once

#include <cstdint>

#include "../core/macros.h"

namespace snn::SNN_ISA {

void count_tile(const float* const* current, int64_t timesteps, const float* threshold, const float* shift, int count,
                uint8_t* bytes, int64_t stride);
void mix_tile(const float* const* current, int64_t timesteps, const float* weight, const float* threshold, int count,
              uint8_t* bytes, int64_t stride);

}  // namespace snn::SNN_ISA
