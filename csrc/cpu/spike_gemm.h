// Products of packed spike trains with weights on the CPU: linear maps and convolutions, to currents or, fused with the
// neuron, to the next train.
#pragma once

#include <vector>

#include "../problem.h"

namespace snn {

// current[t, row, n] = bias[n] + row_amplitude[row] * sum_k weight[n, k] * amplitude[k] * spike[t, row, k], the weights
// in the fixed-point numbers of spike_gemm_tile.h; or, with weights of 8 bits, bias[n] + (weight_scale[n] *
// row_amplitude[row]) * sum_k weight[n, k] * spike[t, row, k].
// Row r's input k is the byte at bytes[row_offset[r] + input_offset[k]] of each byte group: strides of a linear map, or
// the taps of a convolution window in a zero-padded image. Inputs are numbered [channel][tap], and their offset is the
// channel's plus the tap's, 0 for the first; a linear map has one tap.
struct SpikeGemmProblem {
    int64_t timesteps, rows, inputs, taps, outputs;
    const uint8_t* bytes;
    int64_t group_stride;         // bytes between byte groups
    int64_t output_bytes;         // from the inputs of an output to the next one's; 0 where all have the same
    const int64_t* row_offset;    // [rows]
    const int64_t* input_offset;  // [inputs]
    const float* weight;          // [outputs, inputs], or null
    const int8_t* weight8;        // or these, and what they are worth
    const float* weight_scale;    // [outputs]
    const float* amplitude;       // [inputs], or [outputs, inputs] where every output has its own; or null
    const float* row_amplitude;   // [rows] or null
    const float* bias;            // [outputs] or null
    // Element (t, row, n) at t * step_stride + current_row[row] + n * output_stride: where currents are written or,
    // with the neuron fused, what is added to them (null for nothing).
    float* current;
    int64_t step_stride;
    const int64_t* current_row;  // [rows]
    int64_t output_stride;
    bool streams;  // currents are written past the caches
};

// Products that differ in where they lie alone: group g reads bytes `bytes_stride` further on than the one before it,
// and the next weights, amplitudes, biases and currents.
struct SpikeGemmGroups {
    int64_t count, bytes_stride;
};

using SpikeGemm = void (*)(const SpikeGemmProblem& problem, int threads);

void spike_gemm_dense_cpu(const SpikeGemmProblem& problem, int threads);

// Reads only the weights of inputs that fire.
void spike_gemm_event_cpu(const SpikeGemmProblem& problem, int threads);

// One of the above for every group; `problem` is the first.
void spike_gemm_groups_cpu(SpikeGemm product, const SpikeGemmProblem& problem, const SpikeGemmGroups& groups,
                           int threads);

// A train that is added to the currents in front of the neuron: amplitude[n] * spike[t, row, n], with the byte of
// (row, n) at bytes[row_offset[row] + n * output_stride] of each byte group.
struct SpikeResidual {
    const uint8_t* bytes;  // null for no train
    int64_t group_stride;
    const int64_t* row_offset;  // [rows]
    int64_t output_stride;
    const float* amplitude;  // [outputs] or null
};

// The dense products, whose currents are added up, the residual and the neuron. The products have the same rows and
// outputs; the first knows the residual. Neuron (n, row) is number n * rows + row of `neuron`, whose currents are not
// read: they exist only as a tile in the cache.
void spike_gemm_signgd_cpu(const std::vector<SpikeGemmProblem>& products, const SpikeResidual& residual,
                           const NeuronProblem& neuron, int threads);

}  // namespace snn
