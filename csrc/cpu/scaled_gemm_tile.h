// The kernels of products with an amplitude for each neuron that are compiled per instruction set.
//
// The method of Four Russians with tables in the L1 cache. Four inputs have 16 partial sums for an output, and a table
// has those of 16 outputs side by side, which all samples and steps share: where eight samples take 32 steps, 11
// additions and 4 products make what 256 columns then add once each in place of four times.
#pragma once

#include "../core/macros.h"
#include "../problem.h"

namespace snn {

constexpr int kQuad = 4;               // inputs of a table
constexpr int kPatterns = 1 << kQuad;  // entries of a table
constexpr int kScaledOutputs = 16;     // numbers of an entry
constexpr int kColumns = 16;           // samples and steps whose patterns lie side by side
constexpr int kTableFloats = kPatterns * kScaledOutputs;
constexpr int kPatternUnit =
    8;  // patterns are stored times this, the bytes of an entry over 8: a scale of x86 addresses

// tables[quad][pattern][output]: sums of amplitude[input] * weight[input][output] over the inputs in a pattern.
using BuildQuads = void (*)(const float* weight, const float* amplitude, int64_t quads, float* tables);

// Quads whose patterns lie one after the other: [quad][16 columns].
struct QuadRun {
    const uint8_t* patterns;
    int64_t quads;
};

// Where the sums of columns lie: those of eight steps of a sample from `half` on, `step` floats apart.
struct SumPlaces {
    const int64_t* half;  // [2 * blocks]
    int64_t step;
};

// sums[column][output] += tables[quad][pattern of the column] over the quads of all runs, which the tables follow one
// after the other, for `blocks` blocks of 16 columns, whose patterns lie `stride` bytes apart. With `start` the sums
// begin at these 16 numbers.
using AddQuads = void (*)(const QuadRun* runs, int count, const float* tables, int64_t blocks, int64_t stride,
                          const float* start, const SumPlaces& places, float* sums);

struct ScaledGemmKernels {
    BuildQuads build;
    AddQuads add;
};

namespace SNN_ISA {
extern const ScaledGemmKernels scaled_gemm_kernels;
}

}  // namespace snn
