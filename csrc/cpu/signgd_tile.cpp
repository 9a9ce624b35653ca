// The inner loops of the signGD neuron, compiled once per instruction set (SNN_ISA names it). They are written for one
// neuron and left to the vectoriser, so that the arithmetic stands only in csrc/core.
#include "signgd_tile.h"

#include <utility>

#include "../core/half.h"
#include "../core/signgd.h"

namespace snn::SNN_ISA {
namespace {

// Calls body(0), ..., body(Steps - 1) with compile-time constants: a loop here would keep the vectoriser from seeing
// the loop over neurons as the innermost one.
template <int... Step, class Body>
SNN_FN void unrolled(std::integer_sequence<int, Step...>, Body body) {
    (body(std::integral_constant<int, Step>{}), ...);
}

// Steps steps of neurons [begin, end) in registers, vectorised over neurons; the first step is bit `bit` of the byte.
template <class H, int Steps>
void advance(const Tile& tile, const TileCurrents& currents, const float* eta_table, int bit, uint8_t* bytes, int begin,
             int end) {
    constexpr bool binary = H::arity == 2;
    const float *__restrict scale = tile.scale, *__restrict a = tile.parameter[0], *__restrict b = tile.parameter[1];
    const float *__restrict x_offset = tile.offset[0], *__restrict y_offset = tile.offset[1];
    float *__restrict x_tile = tile.x[0], *__restrict y_tile = tile.x[1], *__restrict v_tile = tile.v;
    const float *__restrict x_current[Steps], *__restrict y_current[Steps];
    float eta[Steps];
    for (int s = 0; s < Steps; ++s) {
        x_current[s] = currents.step[0][s];
        y_current[s] = currents.step[1][s];
        eta[s] = eta_table[s];
    }
#pragma GCC ivdep
    for (int i = begin; i < end; ++i) {
        float x = x_tile[i], y = binary ? y_tile[i] : 0.f, v = v_tile[i];
        uint32_t byte = 0;
        unrolled(std::make_integer_sequence<int, Steps>{}, [&](auto s) SNN_INLINE_LAMBDA {
            x = decoded_input(x, x_current[s][i], x_offset[i], eta[s]);
            if (binary) y = decoded_input(y, y_current[s][i], y_offset[i], eta[s]);
            const bool spike = fires(v, H::at(x, y, a[i], b[i]));
            v = next_estimate(v, eta[s], scale[i], spike);
            byte |= spike ? 1u << s : 0u;
        });
        x_tile[i] = x;
        if (binary) y_tile[i] = y;
        v_tile[i] = v;
        bytes[i] = Steps == kStepsPerByte ? byte : bytes[i] | byte << bit;
    }
}

// Neurons between two rounds of prefetches: few enough that the requests never queue up.
constexpr int kRun = 128;
constexpr int kFloatsPerLine = 16;

template <class H>
void signgd(const Tile& tile, const TileCurrents& currents, const TileCurrents& next, const float* eta, int steps,
            uint8_t* bytes) {
    if (steps != kStepsPerByte) {
        for (int i = 0; i < tile.count; ++i) bytes[i] = 0;
        for (int s = 0; s < steps; ++s) {
            TileCurrents one{};
            for (int k = 0; k < H::arity; ++k) one.step[k][0] = currents.step[k][s];
            advance<H, 1>(tile, one, eta + s, s, bytes, 0, tile.count);
        }
        return;
    }
    for (int begin = 0; begin < tile.count; begin += kRun) {
        const int end = begin + kRun < tile.count ? begin + kRun : tile.count;
        for (int k = 0; k < H::arity; ++k)
            for (int s = 0; s < kStepsPerByte; ++s)
                if (next.step[k][s])
                    for (int i = begin; i < end; i += kFloatsPerLine) __builtin_prefetch(next.step[k][s] + i, 0, 2);
        advance<H, kStepsPerByte>(tile, currents, eta, 0, bytes, begin, end);
    }
}

template <float (*widen)(uint16_t)>
void widen_all(const uint16_t* from, float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = widen(from[i]);
}

float widen_float16(uint16_t bits) { return float16_to_float(bits); }
float widen_bfloat16(uint16_t bits) { return bfloat16_to_float(bits); }

#define SNN_KERNEL(name, expression) signgd<activation::name##_fn>,
const TileKernel by_activation[] = {SNN_ACTIVATIONS(SNN_KERNEL)};
#undef SNN_KERNEL

}  // namespace

extern const TileKernels tile_kernels;
const TileKernels tile_kernels = {by_activation, widen_all<widen_float16>, widen_all<widen_bfloat16>};

}  // namespace snn::SNN_ISA
