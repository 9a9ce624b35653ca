// See matmul_tile.h. Compiled once per instruction set (SNN_ISA names it).
#include "matmul_tile.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <utility>

#include "../core/half.h"
#include "../core/signgd.h"
#include "spike_gemm_tile.h"

namespace snn::SNN_ISA {

namespace {

// A tile of the product is kRows x (kVectors vectors): its sums, a row of b and a number of a fill the registers.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kVectors = 4, kRows = 6;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kVectors = 2, kRows = 5;
#else
constexpr int kWidth = 4, kVectors = 4, kRows = 2;
#endif
constexpr int kPanel = kWidth * kVectors;
static_assert(kMatrixLanes % kWidth == 0 && kPanel % kMatrixLanes == 0);

using Vector = float __attribute__((vector_size(kWidth * sizeof(float))));

SNN_FN Vector load(const float* from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

// a b + c, rounded once.
SNN_FN Vector multiply_add(float a, Vector b, Vector c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(_mm512_set1_ps(a), b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c);
#else
    for (int i = 0; i < kWidth; ++i) c[i] = SNN_ISA::multiply_add(a, b[i], c[i]);
    return c;
#endif
}

// target[r][c] = sum over k of a[r][k] * panel[k][c]
template <int Rows, int Vectors>
void multiply(const float* a, int64_t a_row, int64_t a_inner, const float* panel, int64_t inner, float* target) {
    Vector sum[Rows][Vectors] = {};
    for (int64_t k = 0; k < inner; ++k, a += a_inner, panel += Vectors * kWidth) {
        Vector b[Vectors];
#pragma GCC unroll 4
        for (int c = 0; c < Vectors; ++c) b[c] = load(panel + c * kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
            for (int c = 0; c < Vectors; ++c) sum[r][c] = multiply_add(a[r * a_row], b[c], sum[r][c]);
    }
    std::memcpy(target, sum, sizeof(sum));
}

using Multiply = void (*)(const float* a, int64_t a_row, int64_t a_inner, const float* panel, int64_t inner,
                          float* target);

template <int... Tile>
constexpr Multiply multiply_of(int tile, std::integer_sequence<int, Tile...>) {
    constexpr Multiply kernels[] = {multiply<Tile / kVectors + 1, Tile % kVectors + 1>...};
    return kernels[tile];
}

Multiply multiply_of(int rows, int vectors) {
    return multiply_of((rows - 1) * kVectors + vectors - 1, std::make_integer_sequence<int, kRows * kVectors>{});
}

void chase_targets(const float* __restrict target, const float* __restrict scale, float eta, int bit, int count,
                   float* __restrict v, uint8_t* __restrict fired) {
    for (int i = 0; i < count; ++i) fired[i] |= static_cast<uint8_t>(chase(v[i], target[i], eta, scale[i]) << bit);
}

void chase_product(const ProductTile& tile, float eta, int bit) {
    float target[kRows * kPanel];
    for (int64_t column = 0; column < tile.columns; column += kPanel) {
        const int width = static_cast<int>(std::min<int64_t>(kPanel, tile.columns - column));
        const float* panel = tile.panels + column * tile.panel_inner;
        for (int64_t first = 0; first < tile.rows; first += kRows) {
            const int rows = static_cast<int>(std::min<int64_t>(kRows, tile.rows - first));
            multiply_of(rows, width / kWidth)(tile.a + first * tile.a_row, tile.a_row, tile.a_inner, panel, tile.inner,
                                              target);
            for (int r = 0; r < rows; ++r) {
                const int64_t row = first + r, neuron = row * tile.columns + column;
                chase_targets(target + r * width, tile.scale + row * tile.scale_stride + column, eta, bit, width,
                              tile.v + neuron, tile.fired + neuron);
            }
        }
    }
}

// current(from, i) is what neighbour i of a line receives, in float32.
template <class Element, class Current>
SNN_FN void decode_lines(const DecodedMatrix& matrix, const MatrixCurrents& currents, float eta, Current current) {
    for (int64_t line = 0; line < matrix.lines; ++line) {
        const Element* __restrict from = static_cast<const Element*>(currents.data) + line * currents.stride;
        const float* __restrict offset = matrix.offset + line * matrix.offset_stride;
        const float* __restrict amplitude = matrix.amplitude + line * matrix.amplitude_stride;
        float* __restrict x = matrix.x + line * matrix.x_stride;
        for (int64_t i = 0; currents.ahead && i < matrix.length; i += 64 / sizeof(Element))
            __builtin_prefetch(from + currents.ahead + i, 0, 2);  // into L2: L1 is full of the matrices
        for (int64_t i = 0; i < matrix.length; ++i)
            x[i] = decoded(x[i], eta, current(from[i], amplitude[i]), offset[i]);
    }
}

void decode_matrix(const DecodedMatrix& matrix, const MatrixCurrents& currents, float eta) {
    const int bit = currents.bit;
    if (currents.train)
        return decode_lines<uint8_t>(matrix, currents, eta, [=](uint8_t byte, float amplitude) SNN_INLINE_LAMBDA {
            return weighed(byte, bit, amplitude);
        });
    switch (currents.dtype) {
        case DType::float32:
            return decode_lines<float>(matrix, currents, eta,
                                       [](float current, float) SNN_INLINE_LAMBDA { return current; });
        case DType::float16:
            return decode_lines<uint16_t>(matrix, currents, eta, [](uint16_t current, float) SNN_INLINE_LAMBDA {
                return float16_to_float(current);
            });
        case DType::bfloat16:
            return decode_lines<uint16_t>(matrix, currents, eta, [](uint16_t current, float) SNN_INLINE_LAMBDA {
                return bfloat16_to_float(current);
            });
    }
}

void pack_panels(const DecodedMatrix& b, bool lines_are_columns, int64_t inner, int64_t columns, float* panels) {
    for (int64_t column = 0; column < columns; column += kPanel) {
        const int64_t width = std::min<int64_t>(kPanel, columns - column);
        float* panel = panels + column * inner;
        if (!lines_are_columns) {
            for (int64_t k = 0; k < b.lines; ++k)
                std::memcpy(panel + k * width, b.x + k * b.x_stride + column, width * sizeof(float));
            continue;
        }
        for (int64_t c = 0; c < width; c += kMatrixLanes)
            for (int64_t k = 0; k < inner; k += kMatrixLanes) {
                float* to[kMatrixLanes];
                for (int i = 0; i < kMatrixLanes; ++i) to[i] = panel + (k + i) * width + c;
                spike_gemm_kernels.transpose(b.x + (column + c) * b.x_stride + k, b.x_stride, to);
            }
    }
}

}  // namespace

const MatmulKernels matmul_kernels = {decode_matrix, pack_panels, chase_product};

}  // namespace snn::SNN_ISA
