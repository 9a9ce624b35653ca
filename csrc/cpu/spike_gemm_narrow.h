// The inner loops of the spike product for AVX2, and in plain C++: see spike_gemm_tile.h.
#pragma once

#if defined(__AVX2__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers
#include <immintrin.h>
#endif

#include "spike_gemm_tile.h"

namespace snn::SNN_ISA {
namespace {

// A table is the sums of the eight patterns of the first three inputs, then those of the last two, twice over: one
// 256-bit register each.
constexpr int kTableEntries = 16, kOutputsAtOnce = 4, kStepsAtOnce = 2;

// Of an output: [blocks][4][kTableEntries].
void build_tables(const int32_t* fixed, int64_t blocks, int64_t n, int32_t* tables) {
    tables += n * blocks * kTables * kTableEntries;
    for (int64_t block = 0; block < blocks; ++block, fixed += kBlockInputs)
        for (int q = 0; q < kTables; ++q, tables += kTableEntries)
            for (int pattern = 0; pattern < 8; ++pattern) {
                const auto where = [&](int bit, int j) { return pattern & bit ? fixed[kTables * j + q] : 0; };
                tables[pattern] = where(1, 0) + where(2, 1) + where(4, 2);
                tables[8 + pattern] = where(1, 3) + where(2, 4);
            }
}

void transpose(const float* from, int64_t from_stride, float* const* to) {
    for (int column = 0; column < 16; ++column)
        for (int row = 0; row < 16; ++row) to[column][row] = from[row * from_stride + column];
}

// Into the caches like all others.
constexpr Transpose transpose_streaming = transpose;

void copy_lines_streaming(const float* from, int64_t from_stride, int64_t count, float* to, int64_t to_stride) {
    for (int64_t i = 0; i < count; ++i) std::copy_n(from + i * from_stride, kLanes, to + i * to_stride);
}

#if defined(__AVX2__)

void store_currents(float* to, __m256i sum, __m256 factor, __m256 bias) {
    _mm256_storeu_ps(to, _mm256_add_ps(bias, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor)));
}

template <int Outputs, int Steps>
void accumulate_outputs(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias,
                        const float* row, int64_t blocks, float* current, int64_t step_stride) {
    for (int half = 0; half < kLanes; half += 8) {
        __m256i sum[Steps][Outputs];
        for (int step = 0; step < Steps; ++step)
            for (int n = 0; n < Outputs; ++n) sum[step][n] = _mm256_setzero_si256();
        for (int64_t block = 0; block < blocks; ++block)
#pragma GCC unroll 4
            for (int q = 0; q < kTables; ++q) {
                const char* from = reinterpret_cast<const char*>(index + block * kBlockIndex + half) + q;
                __m256i first[Steps], last[Steps];
#pragma GCC unroll 8
                for (int step = 0; step < Steps; ++step) {
                    first[step] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + step * kLanes * 4));
                    last[step] = _mm256_srli_epi32(first[step], 3);
                }
#pragma GCC unroll 4
                for (int n = 0; n < Outputs; ++n) {
                    const auto* table =
                        reinterpret_cast<const __m256i*>(tables + ((n * blocks + block) * kTables + q) * kTableEntries);
                    const __m256i of_three = _mm256_load_si256(table);
                    const __m256 of_two = _mm256_castsi256_ps(_mm256_load_si256(table + 1));
#pragma GCC unroll 8
                    for (int step = 0; step < Steps; ++step) {
                        const __m256i three = _mm256_permutevar8x32_epi32(of_three, first[step]);
                        const __m256i two = _mm256_castps_si256(_mm256_permutevar_ps(of_two, last[step]));
                        sum[step][n] = _mm256_add_epi32(sum[step][n], _mm256_add_epi32(three, two));
                        asm("" : "+x"(sum[step][n]));  // stays in its register: GCC would move and spill it
                    }
                }
            }
        __m256 factor[Outputs];
        for (int n = 0; n < Outputs; ++n)
            factor[n] = _mm256_mul_ps(_mm256_set1_ps(unit[n]), _mm256_loadu_ps(row + half));
        for (int step = 0; step < Steps; ++step)
            for (int n = 0; n < Outputs; ++n)
                store_currents(current + step * step_stride + n * kLanes + half, sum[step][n], factor[n],
                               _mm256_set1_ps(bias[n]));
    }
}

template <int Registers>
void accumulate_events_of(const uint32_t* events, int64_t count, const int32_t* weight, const float* unit,
                          const float* bias, float row, float* current) {
    __m256i sum[Registers];
    for (int i = 0; i < Registers; ++i) sum[i] = _mm256_setzero_si256();
    for (int64_t event = 0; event < count; ++event) {
        const auto* from = reinterpret_cast<const __m256i*>(weight + int64_t{events[event]} * kEventOutputs);
#pragma GCC unroll 8
        for (int i = 0; i < Registers; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_load_si256(from + i));
    }
    for (int i = 0; i < Registers; ++i)
        store_currents(current + 8 * i, sum[i], _mm256_mul_ps(_mm256_loadu_ps(unit + 8 * i), _mm256_set1_ps(row)),
                       _mm256_loadu_ps(bias + 8 * i));
}

AccumulateEvents accumulate_events(int64_t outputs) {
    static_assert(kEventOutputs == 64);
    return outputs > 32 ? accumulate_events_of<8> : outputs > 16 ? accumulate_events_of<4> : accumulate_events_of<2>;
}

#else

template <int Outputs, int Steps>
void accumulate_outputs(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias,
                        const float* row, int64_t blocks, float* current, int64_t step_stride) {
    for (int n = 0; n < Outputs; ++n)
        for (int step = 0; step < Steps; ++step) {
            int32_t sum[kLanes] = {};
            const int32_t* table = tables + n * blocks * kTables * kTableEntries;
            const uint32_t* inputs = index + step * kLanes;
            for (int64_t block = 0; block < blocks; ++block, inputs += kBlockIndex)
                for (int q = 0; q < kTables; ++q, table += kTableEntries)
                    for (int lane = 0; lane < kLanes; ++lane) {
                        const uint32_t pattern = inputs[lane] >> (8 * q);
                        sum[lane] += table[pattern & 7] + table[8 + (pattern >> 3 & 3)];
                    }
            for (int lane = 0; lane < kLanes; ++lane)
                current[step * step_stride + n * kLanes + lane] =
                    bias[n] + static_cast<float>(sum[lane]) * (unit[n] * row[lane]);
        }
}

void accumulate_all_events(const uint32_t* events, int64_t count, const int32_t* weight, const float* unit,
                           const float* bias, float row, float* current) {
    int32_t sum[kEventOutputs] = {};
    for (int64_t event = 0; event < count; ++event) {
        const int32_t* __restrict from = weight + int64_t{events[event]} * kEventOutputs;
        for (int n = 0; n < kEventOutputs; ++n) sum[n] += from[n];
    }
    for (int n = 0; n < kEventOutputs; ++n) current[n] = bias[n] + static_cast<float>(sum[n]) * (unit[n] * row);
}

AccumulateEvents accumulate_events(int64_t) { return accumulate_all_events; }

#endif

}  // namespace
}  // namespace snn::SNN_ISA
