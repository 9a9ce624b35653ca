// The kernels of products with an amplitude for each neuron that are compiled per instruction set.
//
// Weights times amplitudes become 32-bit fixed-point numbers with a power of two for each row and output, chosen so
// that no sum of them overflows: the sums are exact, and all instruction sets give the same currents. The numbers of a
// row serve all its columns, the steps of all samples, and either form of the kernels is made for that.
//
// Every instruction set has the method of Four Russians with tables in the L1 cache. Four inputs have 16 partial sums
// for an output, and a table has those of 16 outputs side by side: where eight samples take 32 steps, 11 additions and
// 4 products make what 256 columns then add once each in place of four times. AMX multiplies bytes: see
// scaled_gemm_amx.cpp.
#pragma once

#include <cstdint>

#include "../core/macros.h"
#include "../problem.h"

namespace snn {

constexpr int kScaledOutputs = 16;  // numbers of a vector of sums
constexpr int kColumns = 16;        // whose patterns lie side by side: two times eight steps of a sample

// The patterns of eight steps of a sample, half 0 or 1 of a block of columns, from the bytes of its inputs.
using ArrangePatterns = void (*)(const uint8_t* bytes, int64_t blocks, int half, uint8_t* patterns);

// The tables of round(weight[input][output] * amplitude[input] * power[output]) for some blocks of inputs.
using BuildScaledTables = void (*)(const float* weight, const float* amplitude, const float* power, int64_t blocks,
                                   int32_t* tables);

// Blocks of inputs whose patterns lie one after the other.
struct InputRun {
    const uint8_t* patterns;
    int64_t blocks;
};

// Where the sums of columns lie: those of eight steps of a sample from `half` on, `step` numbers apart.
struct SumPlaces {
    const int64_t* half;  // [2 * column blocks]
    int64_t step;
};

// What the columns of a row add at once: the products of some blocks of inputs.
struct ScaledChunk {
    const InputRun* runs;
    int count;
    int64_t column_blocks, pattern_stride;  // bytes from a block of columns to the next
    const int32_t* tables;                  // [output block][block of inputs, those of all runs]
    int64_t table_stride;                   // numbers from an output block to the next
    int64_t output_blocks;
    bool first;         // the sums begin at 0; else they are integers
    const float* unit;  // of the last chunk, [output blocks][16]: the sums become bias + unit * sum; else null
    const float* bias;
    SumPlaces places;
    int64_t sum_stride;  // from the sums of an output block to the next
};
using AddScaledChunk = void (*)(const ScaledChunk& chunk, float* sums);

struct ScaledGemmKernels {
    int block_inputs;     // of a table
    int pattern_bytes;    // of a block of inputs and of columns
    int table_numbers;    // of a block of inputs and 16 outputs
    int blocks_at_once;   // of inputs: as many as leave tables or patterns in the L1 cache
    int outputs_at_once;  // blocks of outputs that share what is made of the patterns
    ArrangePatterns arrange;
    BuildScaledTables build;
    AddScaledChunk add;
};

namespace SNN_ISA {
extern const ScaledGemmKernels scaled_gemm_kernels;
}
namespace amx {
extern const ScaledGemmKernels scaled_gemm_kernels;
}

}  // namespace snn
