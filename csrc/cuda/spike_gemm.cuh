// What the kernels of spike products share: where they find the inputs of a row, and how outputs are read.
#pragma once

#include "load.cuh"
#include "spike_gemm.h"

namespace snn::cuda {

constexpr int kWarp = 32;
constexpr int kTiles = kOutputBlock / 8;  // products of a lane side by side, 8 outputs each

// The start of a row's first block in a byte group.
__device__ __forceinline__ int64_t start_of(const Windows& windows, int64_t row) {
    const int64_t line = row / windows.width, sample = line / windows.height;
    return sample * windows.sample_stride + (line - sample * windows.height) * windows.y_stride +
           (row - line * windows.width) * windows.x_stride;
}

// The start of the section that an output sees.
__device__ __forceinline__ int64_t section_of(const Windows& windows, int64_t output) {
    return output / windows.section_outputs * windows.tap_blocks * kInputBlock;
}

// Goes through the blocks of inputs in order.
class Blocks {
  public:
    int64_t start = 0;  // of the present one behind that of the row

    __device__ void advance(const Windows& windows) {
        start += kInputBlock;
        if (++block_ < windows.tap_blocks) return;
        block_ = 0;
        start += windows.tap_x_stride - windows.tap_blocks * kInputBlock;
        if (++tap_x_ < windows.kernel_width) return;
        tap_x_ = 0;
        start += windows.tap_y_stride - windows.kernel_width * windows.tap_x_stride;
    }

  private:
    int block_ = 0, tap_x_ = 0;
};

// The steps of a byte group that there are.
__device__ __forceinline__ int steps_of(int64_t timesteps, int64_t group) {
    const int64_t left = timesteps - group * kStepsPerByte;
    return left < kStepsPerByte ? static_cast<int>(left) : kStepsPerByte;
}

// A run of outputs is moved together where that is possible for all of a product's, otherwise one by one, those that
// exist.
__device__ __forceinline__ void load_run(const float* from, int count, bool whole, float (&to)[kRun]) {
    if (whole) {
        const float4 raw = *reinterpret_cast<const float4*>(from);
        to[0] = raw.x, to[1] = raw.y, to[2] = raw.z, to[3] = raw.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) to[i] = i < count ? from[i] : 0.f;
}

__device__ __forceinline__ void load_bytes(const uint8_t* from, int count, bool whole, uint32_t (&to)[kRun]) {
    const uint32_t raw = whole ? *reinterpret_cast<const uint32_t*>(from) : 0;
#pragma unroll
    for (int i = 0; i < kRun; ++i) to[i] = whole ? raw >> 8 * i & 255 : i < count ? from[i] : 0u;
}

template <class To, class From>
__device__ __forceinline__ void store_run(To* to, const From (&from)[kRun], int count, bool whole) {
    if (whole) return store(to, from);
#pragma unroll
    for (int i = 0; i < kRun; ++i)
        if (i < count) to[i] = static_cast<To>(from[i]);
}

}  // namespace snn::cuda
