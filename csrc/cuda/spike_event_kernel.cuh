// The event-driven product.
#pragma once

#include "spike_gemm.cuh"

namespace snn::cuda {

constexpr int kEventRows = kThreads / kWarp, kEventOutputs = kWarp * kRun;

// Event-driven. A warp has a row and 128 outputs for the eight steps of a byte group: 32 sums a lane. Its lanes read
// the same bytes, so none leaves the others: sixteen silent inputs are passed over together, and the weights of an
// input that fires are read once for all its steps.
__global__ void __launch_bounds__(kThreads) spike_event_kernel(const SpikeCurrentProblem out, const bool whole) {
    const SpikeProduct& p = out.product;
    const int64_t groups = (p.timesteps + kStepsPerByte - 1) / kStepsPerByte;
    const int64_t group = blockIdx.x % groups, tile = blockIdx.x / groups;
    const int64_t column_blocks = (p.outputs + kEventOutputs - 1) / kEventOutputs;
    const int64_t row = tile / column_blocks * kEventRows + threadIdx.x / kWarp;
    const int64_t output = tile % column_blocks * kEventOutputs + threadIdx.x % kWarp * kRun;
    const int64_t left = p.outputs - output;
    const int count = left < kRun ? static_cast<int>(left) : kRun;
    if (row >= p.rows || count <= 0) return;

    float sum[kStepsPerByte][kRun] = {};
    const uint8_t* const from =
        p.bytes + group * p.group_stride + section_of(p.windows, output) + start_of(p.windows, row);
    const float* weight = static_cast<const float*>(p.weight) + output;
    Blocks blocks;
    for (int64_t i = p.windows.taps * p.windows.tap_blocks; i > 0; --i) {
        const uint4 sixteen = __ldg(reinterpret_cast<const uint4*>(from + blocks.start));
        const uint32_t words[] = {sixteen.x, sixteen.y, sixteen.z, sixteen.w};
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            for (uint32_t word = words[w]; word;) {
                const int k = (__ffs(static_cast<int>(word)) - 1) / 8;
                const uint32_t byte = word >> 8 * k & 255;
                word &= ~(255u << 8 * k);
                float added[kRun];
                load_run(weight + (4 * w + k) * p.outputs, count, whole, added);
#pragma unroll
                for (int s = 0; s < kStepsPerByte; ++s) {
                    if (!(byte >> s & 1)) continue;
#pragma unroll
                    for (int o = 0; o < kRun; ++o) sum[s][o] += added[o];
                }
            }
        }
        blocks.advance(p.windows);
        weight += kInputBlock * p.outputs;
    }
    float multiplier[kRun], bias[kRun];
    load_run(p.multiplier + output, count, whole, multiplier);
    load_run(p.bias + output, count, whole, bias);
    float* to = out.current + group * kStepsPerByte * out.step_stride + row * out.row_stride + output;
    const int steps = steps_of(p.timesteps, group);
#pragma unroll
    for (int s = 0; s < kStepsPerByte; ++s) {
        if (s >= steps) break;
        float current[kRun];
#pragma unroll
        for (int o = 0; o < kRun; ++o) current[o] = sum[s][o] * multiplier[o] + bias[o];
        store_run(to + s * out.step_stride, current, count, whole);
    }
}

}  // namespace snn::cuda
