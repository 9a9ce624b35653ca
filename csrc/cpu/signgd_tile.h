// The interface between the loops that are compiled once and the tile kernels that are compiled per instruction set.
#pragma once

#include "../problem.h"
#include "isa.h"

namespace snn {

constexpr int kTile = 1024;  // neurons a thread carries through all steps: their state stays in the L1 cache

struct Tile {
    int count;
    float* x[kMaxInputs];
    float* v;
    const float* offset[kMaxInputs];
    const float* scale;
    const float* parameter[kParameters];
};

// Currents of up to eight steps of a tile.
struct TileCurrents {
    const float* step[kMaxInputs][kStepsPerByte];
};

// Advances a tile by `steps` <= 8 steps and writes a byte per neuron.
using TileKernel = void (*)(const Tile& tile, const TileCurrents& currents, const float* eta, int steps,
                            uint8_t* bytes);
using WidenKernel = void (*)(const uint16_t* from, float* to, int count);

struct TileKernels {
    const TileKernel* signgd;  // by activation
    WidenKernel from_float16;
    WidenKernel from_bfloat16;
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
        case Isa::avx512: return avx512::tile_kernels;
        case Isa::avx2: return avx2::tile_kernels;
        default: break;
    }
#endif
    return portable::tile_kernels;
}

}  // namespace snn
