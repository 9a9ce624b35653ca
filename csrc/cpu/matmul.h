// Neurons that chase the product of two decoded matrices, on the CPU.
#pragma once

#include <vector>

#include "../problem.h"

namespace snn {

// Where the elements of a batch of matrices lie: strides of the dimensions of the batch, of rows and of columns.
struct MatrixView {
    const void* data;
    std::vector<int64_t> stride;
};

struct MatmulInput {
    DType dtype;
    bool train;
    MatrixView current;   // at the first step; its rows or its columns are neighbours in memory
    int64_t step_stride;  // from step to step, or from byte group to byte group
    MatrixView amplitude, offset, x;
    float* x_out;  // [batch, rows, columns]
};

struct MatmulProblem {
    int64_t timesteps;
    std::vector<int64_t> batch;
    int64_t rows, inner, columns;
    const float* eta;
    MatmulInput a, b;
    MatrixView scale, v;
    float* v_out;    // [batch, rows, columns]
    uint8_t* bytes;  // [ceil(T / 8), batch, rows, columns]
};

void matmul_cpu(const MatmulProblem& problem, int threads);

}  // namespace snn
