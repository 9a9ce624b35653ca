// Weights prepared for the tensor cores.
#pragma once

#include "../core/math.h"
#include "reduce.cuh"
#include "spike_gemm.cuh"

namespace snn::cuda {

// The exponent that brings a number of at least 0 to [2^14, 2^15), as far as powers of two go.
__device__ __forceinline__ int exponent_for(float largest, int lowest) {
    const int exponent = 141 - static_cast<int>(to_bits(largest) >> 23);
    return exponent < lowest ? lowest : exponent > 126 ? 126 : exponent;
}

constexpr float kLargestFloat = 3.402823466e38f;

// A block prepares the weights of an output.
template <class Weight>
__global__ void __launch_bounds__(kThreads) spike_weight_kernel(const SpikeWeightProblem p) {
    const int64_t n = blockIdx.x;
    const auto taps = static_cast<uint32_t>(p.taps), tap_blocks = static_cast<uint32_t>(p.tap_blocks);
    const bool by_channel = p.amplitude && p.amplitude_stride;
    const auto value_of = [&](uint32_t c, uint32_t tap) {
        if (n >= p.outputs || c >= p.channels) return 0.f;
        const Weight* from = static_cast<const Weight*>(p.from) + n * p.output_stride;
        const float value = to_float(from[c * p.channel_stride + tap * p.tap_stride]);
        return by_channel ? value * p.amplitude[c * p.amplitude_stride] : value;
    };
    float own = 0.f;
    for (uint32_t i = threadIdx.x; i < p.channels * taps; i += kThreads) {
        const float size = fabsf(value_of(i / taps, i % taps));
        if (size > own && size <= kLargestFloat) own = size;
    }
    const int exponent = exponent_for(over_block(own, Max{}), p.lowest);
    const float factor = power_of_two(exponent);
    if (threadIdx.x == 0) {
        const float back = power_of_two(-exponent);
        p.multiplier[n] = p.amplitude && !by_channel ? back * *p.amplitude : back;
        p.bias[n] = p.bias_from && n < p.outputs ? p.bias_from[n] : 0.f;
    }
    // Four neighbouring inputs of an output are half of what a lane gives to a pair of products: see Lane.
    const auto in_block = static_cast<uint32_t>(n % kOutputBlock);
    const uint32_t pair = in_block / 4 % 2, product = in_block / 2 % 2, row = in_block / 8 * 2 + in_block % 2;
    __half* const to = static_cast<__half*>(p.weight) +
                       n / kOutputBlock * p.taps * p.tap_blocks * p.parts * (kTiles / 2 * kWarp * 8) + product * 4;
    for (uint32_t quad = threadIdx.x; quad < taps * tap_blocks * 4; quad += kThreads) {
        const uint32_t block = quad / 4, j = quad % 4, tap = block / tap_blocks;
        const uint32_t first = block % tap_blocks * kInputBlock + j * 4;
        for (uint32_t k = 0; k < 4; ++k) {
            float rest = value_of(first + k, tap) * factor;
            for (uint32_t part = 0; part < p.parts; ++part) {
                const __half rounded = __float2half_rn(rest);
                const int64_t fragment = (block * p.parts + part) * (kTiles / 2) + pair;
                to[(fragment * kWarp + row * 4 + j) * 8 + k] = rounded;
                const float given = __half2float(rounded);
                rest = fabsf(given) <= kLargestFloat ? rest - given : 0.f;
            }
        }
    }
}

}  // namespace snn::cuda
