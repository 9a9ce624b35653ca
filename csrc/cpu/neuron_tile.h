// The interface between the loops that are compiled once and the tile kernels that are compiled per instruction set.
#pragma once

#include "../problem.h"
#include "isa.h"

namespace snn {

constexpr int kTile = 2048;  // neurons a thread carries through all steps: their state stays in the L1 cache

struct Tile {
    int count;
    float* x[kMaxInputs];  // null in models that decode nothing
    float* v;
    float* m_x[kMaxInputs];  // null without momentum, like m_v
    float* m_v;
    const float* offset[kMaxInputs];
    const float* scale;
    const float* parameter[kParameters];
    float momentum;
    bool nesterov;
};

// Currents of up to eight steps of a tile.
struct TileCurrents {
    const void* step[kMaxInputs][kStepsPerByte];
    DType dtype;
    bool far;  // come from memory: worth fetching ahead
};

// Advances a tile by `steps` <= 8 steps and writes a byte per neuron.
using TileKernel = void (*)(const Tile& tile, const TileCurrents& currents, const float* eta, int steps,
                            uint8_t* bytes);
// A vector of neurons and its operands.
struct VectorTile {
    int64_t length;
    float* x;
    float* v;
    float* rows;      // scratch of 8 vectors
    uint32_t* fired;  // scratch
    const float* offset;
    const float* scale;
    const float* a;
    const float* b;
    float eps;
};

// Advances a vector by `steps` <= 8 steps and writes a byte per neuron.
using VectorKernel = void (*)(const VectorTile& tile, const float* const* current, const float* eta, int steps,
                              uint8_t* bytes);

// out <- x - eta (2 current - offset)
using DecodeKernel = void (*)(const float* x, const float* current, const float* offset, float eta, int count,
                              float* out);

// All steps of `count` neurons that see them at once; byte groups lie `stride` bytes apart.
using CountKernel = void (*)(const float* const* current, int64_t timesteps, const float* threshold, const float* shift,
                             int count, uint8_t* bytes, int64_t stride);
using MixKernel = void (*)(const float* const* current, int64_t timesteps, const float* weight, const float* threshold,
                           int count, uint8_t* bytes, int64_t stride);
// amplitude where bit `bit` of the byte is set, else 0
using WeighKernel = void (*)(const uint8_t* bytes, int bit, const float* amplitude, int count, float* out);
using WidenKernel = void (*)(const uint16_t* from, float* to, int count);

struct SpikeGemmKernels;   // spike_gemm_tile.h
struct MatmulKernels;      // matmul_tile.h
struct ScaledGemmKernels;  // scaled_gemm_tile.h

struct TileKernels {
    const TileKernel* neuron;  // by model
    WidenKernel from_float16;
    WidenKernel from_bfloat16;
    CountKernel count;
    MixKernel mix;
    const VectorKernel* vector;  // by function
    DecodeKernel decode;
    WeighKernel weigh_spikes;
    const SpikeGemmKernels* spike_gemm;
    const MatmulKernels* matmul;
    const ScaledGemmKernels* scaled_gemm;
};

namespace portable {
extern const TileKernels tile_kernels;
}
#if defined(SNN_X86_KERNELS)
namespace avx2 {
extern const TileKernels tile_kernels;
}
namespace avx512 {
extern const TileKernels tile_kernels;
}
#endif

inline const TileKernels& tile_kernels_here() {
#if defined(SNN_X86_KERNELS)
    switch (isa_here()) {
        case Isa::amx:  // for products alone
        case Isa::avx512: return avx512::tile_kernels;
        case Isa::avx2: return avx2::tile_kernels;
        default: break;
    }
#endif
    return portable::tile_kernels;
}

}  // namespace snn
