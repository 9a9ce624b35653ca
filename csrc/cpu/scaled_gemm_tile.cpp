// See scaled_gemm_tile.h. Compiled once per instruction set (SNN_ISA names it); the sums are exact, so all agree.
#include "scaled_gemm_tile.h"

#if defined(__AVX2__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // gcc 12's own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#include <array>
#include <cmath>
#include <cstring>

namespace snn::SNN_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kAtOnce = 16;  // numbers of a register; columns whose sums fill them
#elif defined(__AVX2__)
constexpr int kWidth = 8, kAtOnce = 4;
#else
constexpr int kWidth = 4, kAtOnce = 2;
#endif
constexpr int kVectors = kScaledOutputs / kWidth;
constexpr int kWord = kAtOnce < 8 ? kAtOnce : 8;  // patterns that are read together

constexpr int kQuad = 4;               // inputs of a table
constexpr int kPatterns = 1 << kQuad;  // entries of a table
constexpr int kTableNumbers = kPatterns * kScaledOutputs;
constexpr int kTables = 32;  // that are in use at once: 32 KB
// Patterns are stored times this, the bytes of an entry over 8: a scale of x86 addresses.
constexpr int kPatternUnit = 8;

using Floats = float __attribute__((vector_size(kWidth * sizeof(float))));
using Numbers = int32_t __attribute__((vector_size(kWidth * sizeof(int32_t))));

template <class Vector>
SNN_FN Vector load(const void* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof(vector));
    return vector;
}

SNN_FN Numbers nearest(Floats values) {
#if defined(__AVX512F__)
    return reinterpret_cast<Numbers>(_mm512_cvtps_epi32(values));
#elif defined(__AVX2__)
    return reinterpret_cast<Numbers>(_mm256_cvtps_epi32(values));
#else
    Numbers numbers;
    for (int i = 0; i < kWidth; ++i) numbers[i] = static_cast<int32_t>(std::lrintf(values[i]));
    return numbers;
#endif
}

// Byte s of spread[byte] is bit s of `byte`, times kPatternUnit.
constexpr std::array<uint64_t, 256> spread_bits() {
    std::array<uint64_t, 256> spread{};
    for (int byte = 0; byte < 256; ++byte)
        for (int s = 0; s < 8; ++s)
            if (byte >> s & 1) spread[byte] |= uint64_t{kPatternUnit} << 8 * s;
    return spread;
}
constexpr std::array<uint64_t, 256> kSpread = spread_bits();

// patterns[quad][column]
void arrange(const uint8_t* bytes, int64_t quads, int half, uint8_t* patterns) {
    for (int64_t quad = 0; quad < quads; ++quad, bytes += kQuad, patterns += kColumns) {
        const uint64_t eight =
            kSpread[bytes[0]] | kSpread[bytes[1]] << 1 | kSpread[bytes[2]] << 2 | kSpread[bytes[3]] << 3;
        std::memcpy(patterns + half * kStepsPerByte, &eight, sizeof(eight));
    }
}

// tables[quad][pattern][output]. Each input doubles the patterns: those without it, and the same with it.
void build(const float* weight, const float* amplitude, const float* power, int64_t quads, int32_t* tables) {
    for (int64_t quad = 0; quad < quads; ++quad, weight += kQuad * kScaledOutputs, amplitude += kQuad)
        for (int part = 0; part < kVectors; ++part) {
            const Floats scale = load<Floats>(power + part * kWidth);
            Numbers entry[kPatterns];
            entry[0] = Numbers{};
#pragma GCC unroll 4
            for (int input = 0; input < kQuad; ++input) {
                const Floats product = amplitude[input] * load<Floats>(weight + input * kScaledOutputs + part * kWidth);
                entry[1 << input] = nearest(product * scale);
#pragma GCC unroll 8
                for (int pattern = 1; pattern < 1 << input; ++pattern)
                    entry[(1 << input) + pattern] = entry[pattern] + entry[1 << input];
            }
            int32_t* const table = tables + quad * kTableNumbers + part * kWidth;
#pragma GCC unroll 16
            for (int pattern = 0; pattern < kPatterns; ++pattern)
                std::memcpy(table + pattern * kScaledOutputs, &entry[pattern], sizeof(Numbers));
        }
}

// Columns from `column` on of a block, for one block of outputs.
void add_columns(const ScaledChunk& chunk, int64_t block, int column, float* sums) {
    const auto place = [&](int i) SNN_INLINE_LAMBDA {
        return sums + chunk.places.half[2 * block + (column + i) / kStepsPerByte] +
               (column + i) % kStepsPerByte * chunk.places.step;
    };
    Numbers sum[kAtOnce][kVectors] = {};
    if (!chunk.first)
#pragma GCC unroll 16
        for (int i = 0; i < kAtOnce; ++i) std::memcpy(sum[i], place(i), sizeof(sum[i]));
    const char* table = reinterpret_cast<const char*>(chunk.tables);
    for (int run = 0; run < chunk.count; ++run) {
        const uint8_t* patterns = chunk.runs[run].patterns + block * chunk.pattern_stride + column;
        for (int64_t quad = 0; quad < chunk.runs[run].blocks; ++quad, patterns += kColumns, table += kTableNumbers * 4)
#pragma GCC unroll 2
            for (int first = 0; first < kAtOnce; first += kWord) {
                uint64_t word = 0;
                std::memcpy(&word, patterns + first, kWord);
#pragma GCC unroll 8
                for (int i = 0; i < kWord; ++i, word >>= 8)
#pragma GCC unroll 4
                    for (int part = 0; part < kVectors; ++part)
                        sum[first + i][part] +=
                            load<Numbers>(table + (word & 0xff) * kPatternUnit + part * sizeof(Numbers));
            }
    }
    if (chunk.unit)
#pragma GCC unroll 16
        for (int i = 0; i < kAtOnce; ++i)
#pragma GCC unroll 4
            for (int part = 0; part < kVectors; ++part) {
                const Floats unit = load<Floats>(chunk.unit + part * kWidth);
                const Floats current =
                    load<Floats>(chunk.bias + part * kWidth) + unit * __builtin_convertvector(sum[i][part], Floats);
                std::memcpy(&sum[i][part], &current, sizeof(current));
            }
#pragma GCC unroll 16
    for (int i = 0; i < kAtOnce; ++i) std::memcpy(place(i), sum[i], sizeof(sum[i]));
}

void add(const ScaledChunk& chunk, float* sums) {
    for (int64_t block = 0; block < chunk.column_blocks; ++block)
        for (int column = 0; column < kColumns; column += kAtOnce) add_columns(chunk, block, column, sums);
}

}  // namespace

const ScaledGemmKernels scaled_gemm_kernels = {kQuad, kColumns, kTableNumbers, kTables, 1, arrange, build, add};

}  // namespace snn::SNN_ISA
