// The kernels of the spike product that are compiled per instruction set.
//
// Method of Four Russians with tables in registers: four inputs have sixteen possible partial sums for an output, which
// is one 512-bit register of floats, and a permute looks up sixteen rows at once. So an output costs one permute and
// one addition for 4 inputs x 16 rows, where a matrix product costs four fused multiply-adds.
#pragma once

#include <cstdint>

#include "isa.h"

namespace snn {

constexpr int kLanes = 16;         // rows side by side in a register
constexpr int kInputsPerByte = 8;  // inputs whose spikes at one step share an index byte
constexpr int kTableFloats = 32;   // the two tables of eight inputs for one output
constexpr int kOutputsAtOnce = 3;  // outputs whose accumulators for eight steps fit in the registers

// Partial sums in the order ((w0 s0 + w1 s1) + (w2 s2 + w3 s3)) for every pattern of four spikes, twice per eight
// inputs: tables[n][k8][32]. Weights past `inputs` count as 0.
using BuildTables = void (*)(const float* weight, int64_t inputs, int outputs, float* tables);

// Index bytes of eight inputs for sixteen rows: spikes[k][lane] are time-packed bytes, index[step][lane] has input k in
// bit k.
using Transpose = void (*)(const uint64_t* inputs_of_lane, uint8_t* index);

// current[s][n][lane] for s < 8, n < outputs: index is [k8][8][16], tables [n][k8][32], bias per output.
using Accumulate = void (*)(const uint8_t* index, const float* tables, const float* bias, int64_t groups, int outputs,
                            float* current, int64_t step_stride);

// Event-driven: current[s][n] for s < 8 and `outputs` outputs of one row, adding the weights of the inputs that fire.
// Input k's time-packed byte is at row[input_offset[k]], its weights at weight_by_input + k * weight_stride.
using AccumulateEvents = void (*)(const uint8_t* row, const int64_t* input_offset, int64_t inputs,
                                  const float* weight_by_input, int64_t weight_stride, const float* bias, int outputs,
                                  float* current);

struct SpikeGemmKernels {
    BuildTables build_tables;
    Transpose transpose;
    Accumulate accumulate;
    AccumulateEvents accumulate_events;
};

namespace portable {
extern const SpikeGemmKernels spike_gemm_kernels;
}
#if defined(SNN_X86_KERNELS)
namespace avx2 {
extern const SpikeGemmKernels spike_gemm_kernels;
}
namespace avx512 {
extern const SpikeGemmKernels spike_gemm_kernels;
}
#endif

inline const SpikeGemmKernels& spike_gemm_kernels_here() {
#if defined(SNN_X86_KERNELS)
    switch (isa_here()) {
        case Isa::avx512: return avx512::spike_gemm_kernels;
        case Isa::avx2: return avx2::spike_gemm_kernels;
        default: break;
    }
#endif
    return portable::spike_gemm_kernels;
}

}  // namespace snn
