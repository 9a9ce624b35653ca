// Packing over time on the CPU. Steps are dense runs of N neurons.
#pragma once

#include "../problem.h"

namespace snn {

// spikes: [T, N] of elements of 1 (bool), 2 or 4 bytes (floats), of which those other than 0 are spikes;
// bytes: [ceil(T / 8), N].
void pack_cpu(const void* spikes, int64_t element, uint8_t* bytes, int64_t timesteps, int64_t neurons, int threads);

// bytes: [ceil(T / 8), N]; spikes: 0 and 1 of `dtype` in [T, N].
void unpack_cpu(const uint8_t* bytes, void* spikes, DType dtype, int64_t timesteps, int64_t neurons, int threads);

// The number of bits that are 1.
int64_t count_cpu(const uint8_t* bytes, int64_t count);

}  // namespace snn
