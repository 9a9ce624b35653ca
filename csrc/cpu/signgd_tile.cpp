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

constexpr int kRun = 256;  // neurons whose spikes are collected as words before they are narrowed to bytes

// `Steps` steps of at most kRun neurons in registers, vectorised over neurons. Bit s of spikes[i] is neuron i's spike
// at step s; whole words, because a byte a lane would make the vectoriser work on four times as many neurons as fit in
// registers.
template <class H, int Steps>
void advance(const Tile& tile, const TileCurrents& currents, const float* eta_table, int begin, int count,
             uint32_t* __restrict spikes) {
    constexpr bool binary = H::arity == 2;
    const float* __restrict scale = tile.scale + begin;
    const float* __restrict a = tile.parameter[0] + begin;
    const float* __restrict b = tile.parameter[1] + begin;
    const float* __restrict x_offset = tile.offset[0] + begin;
    const float* __restrict y_offset = binary ? tile.offset[1] + begin : nullptr;
    float* __restrict x_tile = tile.x[0] + begin;
    float* __restrict y_tile = binary ? tile.x[1] + begin : nullptr;
    float* __restrict v_tile = tile.v + begin;
    const float* __restrict x_current[Steps];
    const float* __restrict y_current[Steps];
    float eta[Steps];
    for (int s = 0; s < Steps; ++s) {
        x_current[s] = currents.step[0][s] + begin;
        y_current[s] = binary ? currents.step[1][s] + begin : nullptr;
        eta[s] = eta_table[s];
    }
#pragma GCC ivdep
    for (int i = 0; i < count; ++i) {
        float x = x_tile[i], y = binary ? y_tile[i] : 0.f, v = v_tile[i];
        uint32_t fired = 0;
        unrolled(std::make_integer_sequence<int, Steps>{}, [&](auto s) SNN_INLINE_LAMBDA {
            x = decoded_input(x, x_current[s][i], x_offset[i], eta[s]);
            if (binary) y = decoded_input(y, y_current[s][i], y_offset[i], eta[s]);
            const bool spike = fires(v, H::at(x, y, a[i], b[i]));
            v = next_estimate(v, eta[s], scale[i], spike);
            fired |= spike ? 1u << s : 0u;
        });
        x_tile[i] = x;
        if (binary) y_tile[i] = y;
        v_tile[i] = v;
        spikes[i] = fired;
    }
}

template <class H>
void signgd(const Tile& tile, const TileCurrents& currents, const float* eta, int steps, uint8_t* bytes) {
    uint32_t spikes[kRun];
    for (int begin = 0; begin < tile.count; begin += kRun) {
        const int count = begin + kRun < tile.count ? kRun : tile.count - begin;
        if (steps == kStepsPerByte) {
            advance<H, kStepsPerByte>(tile, currents, eta, begin, count, spikes);
            for (int i = 0; i < count; ++i) bytes[begin + i] = static_cast<uint8_t>(spikes[i]);
            continue;
        }
        for (int i = 0; i < count; ++i) bytes[begin + i] = 0;
        for (int s = 0; s < steps; ++s) {
            TileCurrents one{};
            for (int k = 0; k < H::arity; ++k) one.step[k][0] = currents.step[k][s];
            advance<H, 1>(tile, one, eta + s, begin, count, spikes);
            for (int i = 0; i < count; ++i) bytes[begin + i] |= static_cast<uint8_t>(spikes[i] << s);
        }
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
