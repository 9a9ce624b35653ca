// The kernels of the spike product that are compiled per instruction set.
//
// Weights become 32-bit fixed-point numbers with a power of two for each output, chosen so that no sum of them
// overflows. Their sums are exact, so every order of addition, every method and every instruction set gives the same
// currents: the weights are rounded once, and the sum is when it becomes a float.
//
// The dense method has two forms. Every instruction set has that of Four Russians with tables in registers: five inputs
// have 32 possible partial sums for an output, which is two 512-bit registers, and a permute of the two looks up
// sixteen rows at once. So an output costs one permute and one integer addition for 5 inputs x 16 rows, where a matrix
// product costs five fused multiply-adds. AMX multiplies bytes: see spike_gemm_amx.cpp.
#pragma once

#include <cstdint>

#include "../core/macros.h"

namespace snn {

constexpr int kLanes = 16;  // rows side by side in a register
constexpr int kMostBlockInputs = 64;
constexpr int kMostAtOnce = 4;     // outputs that are looked up side by side
constexpr int kMostOutputs = 64;   // of a tile of currents
constexpr int kEventOutputs = 64;  // outputs that the event method carries in registers

// fixed[k] = round(weight[k] * amplitude[k] / unit) for the returned unit, a power of two; NaN where a weight is not
// finite, and then every current of the output is NaN. `amplitude` may be null.
using ToFixedPoint = float (*)(const float* weight, const float* amplitude, int64_t inputs, float* scratch,
                               int32_t* fixed);

// word[j][lane] = the time-packed bytes of inputs 4 j .. 4 j + 3, from bytes[input][lane].
using Interleave = void (*)(const uint8_t* bytes, int inputs, uint32_t* words);

// The index of a block of inputs, sixteen rows and eight steps from word[block_inputs / 4][lane].
using BuildIndex = void (*)(const uint32_t* words, uint32_t* index);

// The tables of output n from fixed[blocks][block_inputs], among those of other outputs, on 64-byte boundaries.
using BuildTables = void (*)(const int32_t* fixed, int64_t blocks, int64_t n, int32_t* tables);

// current[s][n][lane] = bias[n] + unit[n] * row[lane] * sum for s < 8, n < outputs, at most kMostOutputs. Up to 3 bytes
// past the index are read.
using Accumulate = void (*)(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias,
                            const float* row, int64_t blocks, int outputs, float* current, int64_t step_stride);

// current[s][lane] += amplitude[lane] * spike for the time-packed spikes of sixteen lanes, s < 8.
using AddSpikes = void (*)(const uint8_t* bytes, const float* amplitude, float* current, int64_t step_stride);

// to[i] += from[i] for i < count.
using AddCurrents = void (*)(const float* from, int64_t count, float* to);

// to[column][row] = from[row * from_stride + column] for 16 x 16 numbers.
using Transpose = void (*)(const float* from, int64_t from_stride, float* const* to);

// to[i * to_stride + lane] = from[i * from_stride + lane] for i < count, lane < 16.
using CopyLines = void (*)(const float* from, int64_t from_stride, int64_t count, float* to, int64_t to_stride);

// current[n] = bias[n] + unit[n] * row * (sum over the `count` inputs in `events` of weight[input][n]), weight[input]
// being 64 numbers.
using AccumulateEvents = void (*)(const uint32_t* events, int64_t count, const int32_t* weight, const float* unit,
                                  const float* bias, float row, float* current);

// The one for so many of the 64 outputs, or some more.
using AccumulateEventsOf = AccumulateEvents (*)(int64_t outputs);

// A form of the dense method: what the inputs and weights of a block of inputs become, and their product.
struct DenseKernels {
    int block_inputs;     // a multiple of 4
    int block_index;      // 32-bit words
    int block_table;      // 32-bit words for an output
    int outputs_at_once;  // tables are made for multiples of so many
    int64_t cache_bytes;  // of the L2 cache for tables
    BuildIndex build_index;
    BuildTables build_tables;
    Accumulate accumulate;

    int64_t blocks(int64_t inputs) const { return (inputs + block_inputs - 1) / block_inputs; }
};

struct SpikeGemmKernels {
    DenseKernels dense;
    ToFixedPoint to_fixed_point;
    Interleave interleave;
    AddSpikes add_spikes;
    AddCurrents add_currents;
    Transpose transpose, transpose_streaming;  // streaming: past the caches, to 64-byte boundaries
    CopyLines copy_lines_streaming;
    AccumulateEventsOf accumulate_events;
};

namespace SNN_ISA {
extern const SpikeGemmKernels spike_gemm_kernels;
}
namespace amx {
extern const DenseKernels dense_kernels, byte_kernels;  // byte_kernels: of whole weights
}

}  // namespace snn
