// Products of packed spike trains with weights on a CUDA device: to currents or, fused with the neuron, to the next
// train.
#pragma once

#include "../problem.h"

namespace snn {

// Outputs and inputs of a block of weights; both are padded to whole blocks, inputs with weights of 0.
constexpr int kOutputBlock = 32, kInputBlock = 16;

// current[t, row, n] = bias[n] + multiplier[n] * sum_k weight[n, k] * spike[t, row, k], with the weight in one float16
// number or as the sum of two.
struct SpikeProduct {
    int64_t timesteps, rows, outputs;
    int64_t input_blocks;
    int64_t parts;  // float16 numbers a weight: 1 or 2
    // Input k of row r is the byte at start of r + start of its block + k % kInputBlock of a byte group; all three, and
    // the distance of groups, are multiples of 4.
    const uint8_t* bytes;
    int64_t group_stride;
    const int64_t* row_start;  // [rows], or null for multiples of row_stride
    int64_t row_stride;
    const int64_t* block_start;  // [input_blocks], or null for multiples of kInputBlock
    // float16 [output block, input block, part, pair of products, lane, 8]: what a lane gives to the tensor cores, see
    // spike_gemm_kernel.cuh.
    const void* weight;
    const float* multiplier;  // [outputs], padded to whole blocks
    const float* bias;        // the same
};

// Element (t, row, n) is written to current[t * step_stride + row * row_stride + n].
struct SpikeCurrentProblem {
    SpikeProduct product;
    float* current;
    int64_t step_stride, row_stride;
};

// The value of neuron (row, n) at data[row * row_stride + n]; with a stride of 0 all rows share one.
struct NeuronField {
    const float* data;
    int64_t row_stride;
};

// What is added to the currents of neuron (row, n), at `row * row_stride + n` of each step or byte group: currents, or
// a train whose spikes are worth `amplitude`. Null for nothing.
struct ResidualRows {
    const float* current;
    const uint8_t* bytes;
    int64_t step_stride;  // from step to step or from byte group to byte group
    int64_t row_stride;
    const float* amplitude;  // [outputs] of a train
};

// Neuron (row, n) is number row * outputs + n of x_out, v_out and each byte group of bytes.
struct SpikeNeuronProblem {
    SpikeProduct product;
    ResidualRows residual;
    int model;  // index into Models: signGD of one input, without momentum
    const float* eta;
    NeuronField offset, x, scale, parameter[kParameters], v;
    float* x_out;
    float* v_out;
    uint8_t* bytes;  // [ceil(T / 8), rows, outputs]
};

// Launch on `stream` (a cudaStream_t) of the current device; throw std::runtime_error with CUDA's own message.
void spike_current_cuda(const SpikeCurrentProblem& problem, void* stream);
void spike_neuron_cuda(const SpikeNeuronProblem& problem, void* stream);

}  // namespace snn
