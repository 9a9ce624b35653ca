// The inner loops of the spike product for AVX-512: see spike_gemm_tile.h.
#pragma once

#pragma GCC diagnostic ignored "-Wuninitialized"  // gcc 12's own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "spike_gemm_tile.h"

namespace snn::SNN_ISA {
namespace {

// A table is the sums of all 32 patterns. All steps at once read it once from the L2 cache.
constexpr int kTableEntries = 32, kOutputsAtOnce = 2, kStepsAtOnce = 8;

// Of an output: [blocks][4][kTableEntries].
void build_tables(const int32_t* fixed, int64_t blocks, int64_t n, int32_t* tables) {
    tables += n * blocks * kTables * kTableEntries;
    for (int64_t block = 0; block < blocks; ++block, fixed += kBlockInputs)
        for (int q = 0; q < kTables; ++q, tables += kTableEntries) {
            const auto where = [&](__mmask16 patterns, int j) {
                return _mm512_maskz_set1_epi32(patterns, fixed[kTables * j + q]);
            };
            const __m512i low = _mm512_add_epi32(_mm512_add_epi32(where(0xaaaa, 0), where(0xcccc, 1)),
                                                 _mm512_add_epi32(where(0xf0f0, 2), where(0xff00, 3)));
            _mm512_store_si512(tables, low);
            _mm512_store_si512(tables + 16, _mm512_add_epi32(low, _mm512_set1_epi32(fixed[kTables * 4 + q])));
        }
}

void store_currents(float* to, __m512i sum, __m512 factor, __m512 bias) {
    _mm512_storeu_ps(to, _mm512_add_ps(bias, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor)));
}

// sum += table[inputs]. From the intrinsics GCC makes the sums move from register to register, and some to memory.
SNN_FN void add_looked_up(__m512i& sum, __m512i low, __m512i high, __m512i inputs) {
    __m512i found;
    asm("vmovdqa64 %[inputs], %[found]\n\t"
        "vpermi2d %[high], %[low], %[found]\n\t"
        "vpaddd %[found], %[sum], %[sum]"
        : [sum] "+v"(sum), [found] "=&v"(found)
        : [low] "v"(low), [high] "v"(high), [inputs] "v"(inputs));
}

template <int Outputs, int Steps>
void accumulate_outputs(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias,
                        const float* row, int64_t blocks, float* current, int64_t step_stride) {
    __m512i sum[Steps][Outputs];
#pragma GCC unroll 8
    for (int step = 0; step < Steps; ++step)
#pragma GCC unroll 2
        for (int n = 0; n < Outputs; ++n) sum[step][n] = _mm512_setzero_si512();
    for (int64_t block = 0; block < blocks; ++block, index += kBlockIndex) {
        // The next tile's index comes from the L3 cache when there are many inputs.
        for (int step = 0; step < Steps; ++step)
            _mm_prefetch(reinterpret_cast<const char*>(index + blocks * kBlockIndex + step * kLanes), _MM_HINT_T1);
#pragma GCC unroll 4
        for (int q = 0; q < kTables; ++q) {
            // The permute looks at the lowest five bits of each lane: reading q bytes further on puts byte q there.
            const char* from = reinterpret_cast<const char*>(index) + q;
            __m512i inputs[Steps];
#pragma GCC unroll 8
            for (int step = 0; step < Steps; ++step) inputs[step] = _mm512_loadu_si512(from + step * sizeof(__m512i));
#pragma GCC unroll 2
            for (int n = 0; n < Outputs; ++n) {
                const int32_t* table = tables + ((n * blocks + block) * kTables + q) * kTableEntries;
                const __m512i low = _mm512_load_si512(table), high = _mm512_load_si512(table + 16);
#pragma GCC unroll 8
                for (int step = 0; step < Steps; ++step) add_looked_up(sum[step][n], low, high, inputs[step]);
            }
        }
    }
    __m512 factor[Outputs];
    for (int n = 0; n < Outputs; ++n) factor[n] = _mm512_mul_ps(_mm512_set1_ps(unit[n]), _mm512_loadu_ps(row));
#pragma GCC unroll 8
    for (int step = 0; step < Steps; ++step)
#pragma GCC unroll 2
        for (int n = 0; n < Outputs; ++n)
            store_currents(current + step * step_stride + n * kLanes, sum[step][n], factor[n], _mm512_set1_ps(bias[n]));
}

void stream(float* to, __m512i line) { _mm512_stream_si512(reinterpret_cast<__m512i*>(to), line); }

void copy_lines_streaming(const float* from, int64_t from_stride, int64_t count, float* to, int64_t to_stride) {
    for (int64_t i = 0; i < count; ++i) stream(to + i * to_stride, _mm512_loadu_si512(from + i * from_stride));
}

// Four rounds that exchange blocks of 8, 4, 2 and 1 rows and columns.
template <bool Streaming>
void transpose_to(const float* from, int64_t from_stride, float* const* to) {
    __m512i row[16], next[16];
    for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_si512(from + i * from_stride);
    for (int i = 0; i < 8; ++i) {
        next[2 * i] = _mm512_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
        next[2 * i + 1] = _mm512_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            row[i + 2 * j] = _mm512_unpacklo_epi64(next[i + j], next[i + j + 2]);
            row[i + 2 * j + 1] = _mm512_unpackhi_epi64(next[i + j], next[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; ++j) {
            next[i + j] = _mm512_shuffle_i32x4(row[i + j], row[i + j + 4], 0x88);
            next[i + j + 4] = _mm512_shuffle_i32x4(row[i + j], row[i + j + 4], 0xdd);
        }
    const auto store = [](float* line, __m512i values) {
        if (Streaming)
            stream(line, values);
        else
            _mm512_storeu_si512(line, values);
    };
    for (int j = 0; j < 8; ++j) {
        store(to[j], _mm512_shuffle_i32x4(next[j], next[j + 8], 0x88));
        store(to[j + 8], _mm512_shuffle_i32x4(next[j], next[j + 8], 0xdd));
    }
}

constexpr Transpose transpose = transpose_to<false>, transpose_streaming = transpose_to<true>;

template <int Registers>
void accumulate_events_of(const uint32_t* events, int64_t count, const int32_t* weight, const float* unit,
                          const float* bias, float row, float* current) {
    __m512i sum[Registers];
    for (int i = 0; i < Registers; ++i) sum[i] = _mm512_setzero_si512();
    for (int64_t event = 0; event < count; ++event) {
        const int32_t* from = weight + int64_t{events[event]} * kEventOutputs;
#pragma GCC unroll 4
        for (int i = 0; i < Registers; ++i) sum[i] = _mm512_add_epi32(sum[i], _mm512_load_si512(from + 16 * i));
    }
    for (int i = 0; i < Registers; ++i)
        store_currents(current + 16 * i, sum[i], _mm512_mul_ps(_mm512_loadu_ps(unit + 16 * i), _mm512_set1_ps(row)),
                       _mm512_loadu_ps(bias + 16 * i));
}

AccumulateEvents accumulate_events(int64_t outputs) {
    static_assert(kEventOutputs == 64);
    return outputs > 48   ? accumulate_events_of<4>
           : outputs > 32 ? accumulate_events_of<3>
           : outputs > 16 ? accumulate_events_of<2>
                          : accumulate_events_of<1>;
}

}  // namespace
}  // namespace snn::SNN_ISA
