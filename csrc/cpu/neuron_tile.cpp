// The inner loops of the neurons, compiled once per instruction set (SNN_ISA names it). They are written for one
// neuron and left to the vectoriser, so that the arithmetic stands only in csrc/core.
#include "neuron_tile.h"

#include "../core/half.h"
#include "../core/models.h"
#include "matmul_tile.h"
#include "parallel_tile.h"
#include "scaled_gemm_tile.h"
#include "spike_gemm_tile.h"
#include "unrolled.h"
#include "vector_tile.h"

namespace snn::SNN_ISA {
namespace {

// Neurons are taken in runs, whose spikes are collected as words before they are narrowed to bytes. Where currents come
// from memory a run is 512 bytes of each step (of two inputs 256 of each), and those three runs further on are fetched
// meanwhile: the processor's own prefetching does not keep up with eight steps read in turn, and longer runs fetch more
// at once than it waits for. They go to the L2 cache (locality 2): L1 holds the state, and steps that lie a power of
// two apart share its sets.
constexpr int kRun = 256;  // at most
constexpr int kRunBytes = 512, kAheadBytes = 3 * kRunBytes, kLineBytes = 64;

float widen_float16(uint16_t bits) { return float16_to_float(bits); }
float widen_bfloat16(uint16_t bits) { return bfloat16_to_float(bits); }

template <float (*widen)(uint16_t)>
void widen_all(const uint16_t* from, float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = widen(from[i]);
}

// Up to eight steps of a run.
struct RunCurrents {
    const float* step[kMaxInputs][kStepsPerByte];
};

// The steps of a run in float32, widened where they are narrower.
template <int Inputs>
RunCurrents run_of(const TileCurrents& currents, int steps, int begin, int count, int size,
                   float (&widened)[Inputs][kStepsPerByte][kRun]) {
    const auto widen = currents.dtype == DType::float16 ? widen_all<widen_float16> : widen_all<widen_bfloat16>;
    RunCurrents run{};
    for (int k = 0; k < Inputs; ++k)
        for (int s = 0; s < steps; ++s) {
            const char* from = static_cast<const char*>(currents.step[k][s]) + begin * size;
            for (int i = 0; currents.far && i < count * size; i += kLineBytes)
                __builtin_prefetch(from + kAheadBytes + i, 0, 2);
            if (currents.dtype == DType::float32) {
                run.step[k][s] = reinterpret_cast<const float*>(from);
            } else {
                widen(reinterpret_cast<const uint16_t*>(from), widened[k][s], count);
                run.step[k][s] = widened[k][s];
            }
        }
    return run;
}

// `Steps` steps of at most kRun neurons in registers, vectorised over neurons. Bit s of spikes[i] is neuron i's spike
// at step s; whole words, because a byte a lane would make the vectoriser work on four times as many neurons as fit in
// registers.
template <class Model, int Steps>
void advance(const Tile& tile, const RunCurrents& currents, const float* eta_table, int begin, int count,
             uint32_t* __restrict spikes) {
    constexpr bool binary = Model::inputs == 2;
    const float* __restrict scale = tile.scale + begin;
    const float* __restrict a = tile.parameter[0] + begin;
    const float* __restrict b = tile.parameter[1] + begin;
    const float* __restrict x_offset = tile.offset[0] + begin;
    const float* __restrict y_offset = binary ? tile.offset[1] + begin : nullptr;
    float* __restrict x_tile = Model::decodes ? tile.x[0] + begin : nullptr;
    float* __restrict y_tile = binary ? tile.x[1] + begin : nullptr;
    float* __restrict v_tile = tile.v + begin;
    float* __restrict m_x_tile = Model::momentum ? tile.m_x[0] + begin : nullptr;
    float* __restrict m_y_tile = Model::momentum && binary ? tile.m_x[1] + begin : nullptr;
    float* __restrict m_v_tile = Model::momentum ? tile.m_v + begin : nullptr;
    const float* __restrict x_current[Steps];
    const float* __restrict y_current[Steps];
    Step at[Steps];
    for (int s = 0; s < Steps; ++s) {
        x_current[s] = currents.step[0][s];
        y_current[s] = binary ? currents.step[1][s] : nullptr;
        at[s] = {eta_table[s], tile.momentum, tile.nesterov ? 1.f : 0.f};
    }
#pragma GCC ivdep
    for (int i = 0; i < count; ++i) {
        Neuron n;
        n.v = v_tile[i], n.scale = scale[i], n.a = a[i], n.b = b[i], n.offset_x = x_offset[i];
        if (Model::decodes) n.x = x_tile[i];
        if (binary) n.y = y_tile[i], n.offset_y = y_offset[i];
        if (Model::momentum) n.m_x = m_x_tile[i], n.m_v = m_v_tile[i];
        if (Model::momentum && binary) n.m_y = m_y_tile[i];
        uint32_t fired = 0;
        unrolled<Steps>([&](auto s) SNN_INLINE_LAMBDA {
            const bool spike = Model::step(n, x_current[s][i], binary ? y_current[s][i] : 0.f, at[s]);
            fired |= static_cast<uint32_t>(spike) << s;
        });
        v_tile[i] = n.v;
        if (Model::decodes) x_tile[i] = n.x;
        if (binary) y_tile[i] = n.y;
        if (Model::momentum) m_x_tile[i] = n.m_x, m_v_tile[i] = n.m_v;
        if (Model::momentum && binary) m_y_tile[i] = n.m_y;
        spikes[i] = fired;
    }
}

template <class Model>
void neuron(const Tile& tile, const TileCurrents& currents, const float* eta, int steps, uint8_t* bytes) {
    uint32_t spikes[kRun];
    float widened[Model::inputs][kStepsPerByte][kRun];
    const int size = currents.dtype == DType::float32 ? sizeof(float) : sizeof(uint16_t);
    const int length = currents.far ? kRunBytes / size / Model::inputs : kRun;
    for (int begin = 0; begin < tile.count; begin += length) {
        const int count = begin + length < tile.count ? length : tile.count - begin;
        const RunCurrents now = run_of(currents, steps, begin, count, size, widened);
        if (steps == kStepsPerByte) {
            advance<Model, kStepsPerByte>(tile, now, eta, begin, count, spikes);
            for (int i = 0; i < count; ++i) bytes[begin + i] = static_cast<uint8_t>(spikes[i]);
            continue;
        }
        for (int i = 0; i < count; ++i) bytes[begin + i] = 0;
        for (int s = 0; s < steps; ++s) {
            RunCurrents one{};
            for (int k = 0; k < Model::inputs; ++k) one.step[k][0] = now.step[k][s];
            advance<Model, 1>(tile, one, eta + s, begin, count, spikes);
            for (int i = 0; i < count; ++i) bytes[begin + i] |= static_cast<uint8_t>(spikes[i] << s);
        }
    }
}

void decode(const float* __restrict x, const float* __restrict current, const float* __restrict offset, float eta,
            int count, float* __restrict out) {
    for (int i = 0; i < count; ++i) out[i] = decoded(x[i], eta, current[i], offset[i]);
}

void weigh_spikes(const uint8_t* __restrict bytes, int bit, const float* __restrict amplitude, int count,
                  float* __restrict out) {
    for (int i = 0; i < count; ++i) out[i] = weighed(bytes[i], bit, amplitude[i]);
}

template <class... Model>
const TileKernel* by_model(ModelList<Model...>) {
    static const TileKernel kernels[] = {neuron<Model>...};
    return kernels;
}

}  // namespace

extern const TileKernels tile_kernels;
const TileKernels tile_kernels = {by_model(Models{}),
                                  widen_all<widen_float16>,
                                  widen_all<widen_bfloat16>,
                                  count_tile,
                                  mix_tile,
                                  vector_kernels,
                                  decode,
                                  weigh_spikes,
                                  &spike_gemm_kernels,
                                  &matmul_kernels,
                                  &scaled_gemm_kernels};

}  // namespace snn::SNN_ISA
