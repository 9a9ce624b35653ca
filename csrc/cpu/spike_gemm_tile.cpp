// See spike_gemm_tile.h. Compiled once per instruction set (SNN_ISA names it); the sums are exact, so all agree.
#include "spike_gemm_tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../core/fixed_point.h"
#include "../core/neuron.h"

namespace snn::SNN_ISA {
namespace {

// The Method of Four Russians: of a block of inputs, table q has inputs q, q + 4, q + 8, q + 12 and q + 16, and the
// index bytes of the four tables share a 32-bit lane.
constexpr int kTables = 4, kInputsPerTable = 5, kBlockInputs = kTables * kInputsPerTable;
constexpr int kBlockIndex = 8 * kLanes;  // [step][lane]

}  // namespace
}  // namespace snn::SNN_ISA

#if defined(__AVX512F__)
#include "spike_gemm_avx512.h"
#else
#include "spike_gemm_narrow.h"
#endif

namespace snn::SNN_ISA {
namespace {

static_assert(kMostAtOnce % kOutputsAtOnce == 0);

// The larger of the sums of the positive and of the negative numbers: no sum of some of them is beyond it.
double bound_on_sums(const float* values, int64_t count) {
    constexpr int kSums = 16;  // side by side, for the vectoriser
    double size[kSums] = {}, balance[kSums] = {};
    const auto add = [&](double value, int lane) SNN_INLINE_LAMBDA {
        size[lane] += std::fabs(value);
        balance[lane] += value;
    };
    int64_t i = 0;
    for (; i + kSums <= count; i += kSums)
        for (int lane = 0; lane < kSums; ++lane) add(values[i + lane], lane);
    for (int lane = 0; i < count; ++i, ++lane) add(values[i], lane);
    for (int lane = 1; lane < kSums; ++lane) size[0] += size[lane], balance[0] += balance[lane];
    return (size[0] + std::fabs(balance[0])) / 2;
}

// The nearest integer, as the vectoriser takes it: a double this large has no bits below 1, and its last 32 bits are
// the integer.
SNN_FN int32_t rounded(float value) {
    const double shifted = static_cast<double>(value) + 6755399441055744.;  // 1.5 * 2^52
    int64_t bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    return static_cast<int32_t>(bits);
}

float to_fixed_point(const float* weight, const float* amplitude, int64_t inputs, float* values, int32_t* fixed) {
    for (int64_t k = 0; k < inputs; ++k) values[k] = amplitude ? weight[k] * amplitude[k] : weight[k];
    const float power = fixed_point_power(bound_on_sums(values, inputs), inputs);
    if (std::isnan(power)) {
        std::fill_n(fixed, inputs, 0);
        return power;
    }
    // A product with a power of two is exact, so there is one rounding.
    for (int64_t k = 0; k < inputs; ++k) fixed[k] = rounded(values[k] * power);
    return 1 / power;
}

void interleave(const uint8_t* bytes, int inputs, uint32_t* words) {
    for (int k = 0; k < inputs; k += 4, bytes += 4 * kLanes, words += kLanes)
        for (int lane = 0; lane < kLanes; ++lane)
            words[lane] = uint32_t{bytes[lane]} | uint32_t{bytes[kLanes + lane]} << 8 |
                          uint32_t{bytes[2 * kLanes + lane]} << 16 | uint32_t{bytes[3 * kLanes + lane]} << 24;
}

// Exchanges the high bits of each byte of `a` with the low bits of `b`; the mask has the low ones.
SNN_FN void swap_bits(uint32_t& a, uint32_t& b, int shift, uint32_t mask) {
    const uint32_t different = (a >> shift ^ b) & mask;
    b ^= different;
    a ^= different << shift;
}

// index[step][lane]: byte q has the spike of input 4 j + q in bit j, and so looks up table q. Every byte of the eight
// words is a row of an 8 x 8 bit matrix: three rounds of block swaps turn it over.
void transpose_bits(const uint32_t* words, uint32_t* index) {
    for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t row[8];
        for (int j = 0; j < 8; ++j) row[j] = j < kInputsPerTable ? words[j * kLanes + lane] : 0;
        for (int j = 0; j < 4; ++j) swap_bits(row[j], row[j + 4], 4, 0x0f0f0f0fu);
        for (int j : {0, 1, 4, 5}) swap_bits(row[j], row[j + 2], 2, 0x33333333u);
        for (int j : {0, 2, 4, 6}) swap_bits(row[j], row[j + 1], 1, 0x55555555u);
        for (int step = 0; step < 8; ++step) index[step * kLanes + lane] = row[step];
    }
}

template <int Outputs, int Steps>
void accumulate_steps(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias,
                      const float* row, int64_t blocks, float* current, int64_t step_stride) {
    for (int step = 0; step < 8; step += Steps)
        accumulate_outputs<Outputs, Steps>(index + step * kLanes, tables, unit, bias, row, blocks,
                                           current + step * step_stride, step_stride);
}

void accumulate(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias, const float* row,
                int64_t blocks, int outputs, float* current, int64_t step_stride) {
    const int64_t table = blocks * kTables * kTableEntries;
    int n = 0;
    for (; n + kOutputsAtOnce <= outputs; n += kOutputsAtOnce)
        accumulate_steps<kOutputsAtOnce, kStepsAtOnce>(index, tables + n * table, unit + n, bias + n, row, blocks,
                                                       current + n * kLanes, step_stride);
    for (; n < outputs; ++n)
        accumulate_steps<1, kStepsAtOnce>(index, tables + n * table, unit + n, bias + n, row, blocks,
                                          current + n * kLanes, step_stride);
}

void add_spikes(const uint8_t* __restrict bytes, const float* __restrict amplitude, float* __restrict current,
                int64_t step_stride) {
    for (int step = 0; step < 8; ++step, current += step_stride)
        for (int lane = 0; lane < kLanes; ++lane) current[lane] += weighed(bytes[lane], step, amplitude[lane]);
}

void add_currents(const float* __restrict from, int64_t count, float* __restrict to) {
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

}  // namespace

const SpikeGemmKernels spike_gemm_kernels = {
    {kBlockInputs, kBlockIndex, kTables * kTableEntries, 1, 512 * 1024, transpose_bits, build_tables, accumulate},
    to_fixed_point,
    interleave,
    add_spikes,
    add_currents,
    transpose,
    transpose_streaming,
    copy_lines_streaming,
    accumulate_events};

}  // namespace snn::SNN_ISA
