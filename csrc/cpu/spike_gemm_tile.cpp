// See spike_gemm_tile.h. Compiled once per instruction set (SNN_ISA names it); every path adds in the same order.
#include "spike_gemm_tile.h"

#include "../core/macros.h"
#if defined(__AVX512F__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers
#include <immintrin.h>
#endif

namespace snn::SNN_ISA {
namespace {

void build_tables(const float* weight, int64_t inputs, int outputs, float* tables) {
    const int64_t groups = (inputs + kInputsPerByte - 1) / kInputsPerByte;
    for (int n = 0; n < outputs; ++n) {
        for (int64_t quad = 0; quad < 2 * groups; ++quad) {
            float w[4];
            for (int j = 0; j < 4; ++j) w[j] = 4 * quad + j < inputs ? weight[n * inputs + 4 * quad + j] : 0.f;
            float* table = tables + (n * 2 * groups + quad) * 16;
            for (int pattern = 0; pattern < 16; ++pattern) {
                const float low = (pattern & 1 ? w[0] : 0.f) + (pattern & 2 ? w[1] : 0.f);
                const float high = (pattern & 4 ? w[2] : 0.f) + (pattern & 8 ? w[3] : 0.f);
                table[pattern] = low + high;
            }
        }
    }
}

// Swaps bits of an 8 x 8 bit matrix across its diagonal in three rounds of block swaps.
SNN_FN uint64_t transpose_bits(uint64_t x) {
    uint64_t t = (x ^ x >> 7) & 0x00aa00aa00aa00aaull;
    x ^= t ^ t << 7;
    t = (x ^ x >> 14) & 0x0000cccc0000ccccull;
    x ^= t ^ t << 14;
    t = (x ^ x >> 28) & 0x00000000f0f0f0f0ull;
    return x ^ t ^ t << 28;
}

void transpose(const uint64_t* inputs_of_lane, uint8_t* index) {
    uint64_t turned[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) turned[lane] = transpose_bits(inputs_of_lane[lane]);
    for (int step = 0; step < 8; ++step)
        for (int lane = 0; lane < kLanes; ++lane) index[step * kLanes + lane] = turned[lane] >> (8 * step) & 0xff;
}

#if defined(__AVX512F__)

template <int Outputs>
void accumulate_outputs(const uint8_t* index, const float* tables, const float* bias, int64_t groups, float* current,
                        int64_t step_stride) {
    __m512 sum[8][Outputs];
    for (int step = 0; step < 8; ++step)
        for (int n = 0; n < Outputs; ++n) sum[step][n] = _mm512_set1_ps(bias[n]);
    for (int64_t group = 0; group < groups; ++group, index += 8 * kLanes) {
        __m512 low[Outputs], high[Outputs];
        for (int n = 0; n < Outputs; ++n) {
            const float* table = tables + (n * groups + group) * kTableFloats;
            low[n] = _mm512_loadu_ps(table);
            high[n] = _mm512_loadu_ps(table + 16);
        }
#pragma GCC unroll 8
        for (int step = 0; step < 8; ++step) {
            // The permute looks at the lowest four bits of each lane.
            const __m512i inputs =
                _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(index + step * kLanes)));
            const __m512i upper = _mm512_srli_epi32(inputs, 4);
            for (int n = 0; n < Outputs; ++n) {
                sum[step][n] = _mm512_add_ps(sum[step][n], _mm512_permutexvar_ps(inputs, low[n]));
                sum[step][n] = _mm512_add_ps(sum[step][n], _mm512_permutexvar_ps(upper, high[n]));
            }
        }
    }
    for (int step = 0; step < 8; ++step)
        for (int n = 0; n < Outputs; ++n) _mm512_storeu_ps(current + step * step_stride + n * kLanes, sum[step][n]);
}

#else

template <int Outputs>
void accumulate_outputs(const uint8_t* index, const float* tables, const float* bias, int64_t groups, float* current,
                        int64_t step_stride) {
    for (int n = 0; n < Outputs; ++n)
        for (int step = 0; step < 8; ++step) {
            float sum[kLanes];
            for (int lane = 0; lane < kLanes; ++lane) sum[lane] = bias[n];
            const float* table = tables + n * groups * kTableFloats;
            const uint8_t* inputs = index + step * kLanes;
            for (int64_t group = 0; group < groups; ++group, table += kTableFloats, inputs += 8 * kLanes)
                for (int lane = 0; lane < kLanes; ++lane) {
                    sum[lane] += table[inputs[lane] & 15];
                    sum[lane] += table[16 + (inputs[lane] >> 4)];
                }
            for (int lane = 0; lane < kLanes; ++lane) current[step * step_stride + n * kLanes + lane] = sum[lane];
        }
}

#endif

void accumulate(const uint8_t* index, const float* tables, const float* bias, int64_t groups, int outputs,
                float* current, int64_t step_stride) {
    int n = 0;
    for (; n + kOutputsAtOnce <= outputs; n += kOutputsAtOnce)
        accumulate_outputs<kOutputsAtOnce>(index, tables + n * groups * kTableFloats, bias + n, groups,
                                           current + n * kLanes, step_stride);
    for (; n < outputs; ++n)
        accumulate_outputs<1>(index, tables + n * groups * kTableFloats, bias + n, groups, current + n * kLanes,
                              step_stride);
}

void accumulate_events(const uint8_t* row, const int64_t* input_offset, int64_t inputs, const float* weight_by_input,
                       int64_t weight_stride, const float* bias, int outputs, float* current) {
    for (int step = 0; step < 8; ++step)
        for (int n = 0; n < outputs; ++n) current[step * outputs + n] = bias ? bias[n] : 0.f;
    for (int64_t k = 0; k < inputs; ++k) {
        uint32_t byte = row[input_offset[k]];
        const float* __restrict weight = weight_by_input + k * weight_stride;
        for (float* __restrict sum = current; byte; byte >>= 1, sum += outputs) {
            if (!(byte & 1)) continue;
            for (int n = 0; n < outputs; ++n) sum[n] += weight[n];
        }
    }
}

}  // namespace

extern const SpikeGemmKernels spike_gemm_kernels;
const SpikeGemmKernels spike_gemm_kernels = {build_tables, transpose, accumulate, accumulate_events};

}  // namespace snn::SNN_ISA
