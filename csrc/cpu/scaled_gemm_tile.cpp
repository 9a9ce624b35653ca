// See scaled_gemm_tile.h. Compiled once per instruction set (SNN_ISA names it); additions come in the same order in
// all.
#include "scaled_gemm_tile.h"

#include <cstring>

namespace snn::SNN_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kAtOnce = 16;  // floats of a register; columns whose sums fill them
#elif defined(__AVX2__)
constexpr int kWidth = 8, kAtOnce = 4;
#else
constexpr int kWidth = 4, kAtOnce = 2;
#endif
constexpr int kVectors = kScaledOutputs / kWidth;
constexpr int kWord = kAtOnce < 8 ? kAtOnce : 8;  // patterns that are read together

using Vector = float __attribute__((vector_size(kWidth * sizeof(float))));

SNN_FN Vector load(const void* from) { return *static_cast<const Vector*>(from); }

// Each input doubles the patterns: those without it, and the same with it.
void build(const float* weight, const float* amplitude, int64_t quads, float* tables) {
    for (int64_t quad = 0; quad < quads; ++quad, weight += kQuad * kScaledOutputs, amplitude += kQuad)
        for (int part = 0; part < kVectors; ++part) {
            Vector entry[kPatterns];
            entry[0] = Vector{};
#pragma GCC unroll 4
            for (int input = 0; input < kQuad; ++input) {
                const Vector product = amplitude[input] * load(weight + input * kScaledOutputs + part * kWidth);
                entry[1 << input] = product;
#pragma GCC unroll 8
                for (int pattern = 1; pattern < 1 << input; ++pattern)
                    entry[(1 << input) + pattern] = entry[pattern] + product;
            }
            float* const table = tables + quad * kTableFloats + part * kWidth;
#pragma GCC unroll 16
            for (int pattern = 0; pattern < kPatterns; ++pattern)
                std::memcpy(table + pattern * kScaledOutputs, &entry[pattern], sizeof(Vector));
        }
}

// Columns from `column` on of a block whose sums lie at `half`.
void add_columns(const QuadRun* runs, int count, const float* tables, int64_t offset, const float* start, float* sums,
                 const int64_t* half, int64_t step, int column) {
    const auto place = [&](int i) SNN_INLINE_LAMBDA {
        return sums + half[(column + i) / kStepsPerByte] + (column + i) % kStepsPerByte * step;
    };
    Vector sum[kAtOnce][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kAtOnce; ++i) std::memcpy(sum[i], start ? start : place(i), sizeof(sum[i]));
    const char* table = reinterpret_cast<const char*>(tables);
    for (int run = 0; run < count; ++run) {
        const uint8_t* patterns = runs[run].patterns + offset;
        for (int64_t quad = 0; quad < runs[run].quads; ++quad, patterns += kColumns, table += kTableFloats * 4)
#pragma GCC unroll 2
            for (int first = 0; first < kAtOnce; first += kWord) {
                uint64_t word = 0;
                std::memcpy(&word, patterns + first, kWord);
#pragma GCC unroll 8
                for (int i = 0; i < kWord; ++i, word >>= 8)
#pragma GCC unroll 4
                    for (int part = 0; part < kVectors; ++part)
                        sum[first + i][part] += load(table + (word & 0xff) * kPatternUnit + part * sizeof(Vector));
            }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kAtOnce; ++i) std::memcpy(place(i), sum[i], sizeof(sum[i]));
}

void add(const QuadRun* runs, int count, const float* tables, int64_t blocks, int64_t stride, const float* start,
         const SumPlaces& places, float* sums) {
    for (int64_t block = 0; block < blocks; ++block)
        for (int column = 0; column < kColumns; column += kAtOnce)
            add_columns(runs, count, tables, block * stride + column, start, sums, places.half + 2 * block, places.step,
                        column);
}

}  // namespace

const ScaledGemmKernels scaled_gemm_kernels = {build, add};

}  // namespace snn::SNN_ISA
