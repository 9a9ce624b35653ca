// Packing over time on the CPU. Steps are dense runs of N neurons.
#pragma once

#include "../problem.h"

namespace snn {

// spikes: 0 or 1 in [T, N]; bytes: [ceil(T / 8), N].
void pack_cpu(const uint8_t* spikes, uint8_t* bytes, int64_t timesteps, int64_t neurons, int threads);

// bytes: [ceil(T / 8), N]; spikes: 0 and 1 of `dtype` in [T, N].
void unpack_cpu(const uint8_t* bytes, void* spikes, DType dtype, int64_t timesteps, int64_t neurons, int threads);

// The number of bits that are 1.
int64_t count_cpu(const uint8_t* bytes, int64_t count);

}  // namespace snn
