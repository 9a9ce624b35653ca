// The kernels of neurons behind a product of two decoded matrices that are compiled per instruction set.
//
// A sum runs over the inner dimension in order, by fused multiply-adds (the only ones here: a target is not part of the
// recurrence), so all instruction sets give the same targets.
#pragma once

#include "../core/macros.h"
#include "../problem.h"

namespace snn {

constexpr int kMatrixLanes = 16;  // what columns and lines are filled up to

// A matrix of decoded inputs in the order in which its currents lie in memory: `lines` of `length` neighbours.
struct DecodedMatrix {
    int64_t lines, length;
    float* x;
    int64_t x_stride;  // from line to line, as below
    const float* offset;
    int64_t offset_stride;  // 0 where all lines have the same, as below
    const float* amplitude;
    int64_t amplitude_stride;
};

// What a decoded matrix receives at a step: currents, or bit `bit` of a train's bytes.
struct MatrixCurrents {
    DType dtype;
    bool train;
    const void* data;
    int64_t stride;
    int64_t ahead;  // to what is read next, which is fetched meanwhile
    int bit;
};

// The neurons of a product [rows][columns], whose columns are filled up to whole lanes.
struct ProductTile {
    int64_t rows, inner, columns;
    const float* a;  // (row, k) at row * a_row + k * a_inner
    int64_t a_row, a_inner;
    const float* panels;  // of b: see PackPanels
    int64_t panel_inner;  // inner filled up
    float* v;
    const float* scale;
    int64_t scale_stride;  // 0 where all rows have the same
    uint8_t* fired;
};

// x <- x - eta (2 current - offset)
using DecodeMatrix = void (*)(const DecodedMatrix& matrix, const MatrixCurrents& currents, float eta);

// Puts the columns of b side by side that are multiplied together: panels[p][k][column of the panel], the last panel
// narrower. `columns` and `inner` are filled up to whole lanes. b's lines are its rows, or its columns.
using PackPanels = void (*)(const DecodedMatrix& b, bool lines_are_columns, int64_t inner, int64_t columns,
                            float* panels);

// One step of the neurons that chase a @ b: bit `bit` of `fired`, which is 0, becomes the spike.
using ChaseProduct = void (*)(const ProductTile& tile, float eta, int bit);

struct MatmulKernels {
    DecodeMatrix decode;
    PackPanels pack;
    ChaseProduct chase;
};

namespace SNN_ISA {
extern const MatmulKernels matmul_kernels;
}

}  // namespace snn
