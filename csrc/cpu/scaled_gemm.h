// Products of packed spike trains with weights on the CPU, where each spike is worth an amplitude of its neuron's own:
// linear maps and convolutions, to currents or, fused with the neuron, to the next train.
#pragma once

#include <vector>

#include "../problem.h"

namespace snn {

// current[t, sample, row, n] = bias[n] + sum over taps and channels c of
//     weight[n, c, tap] * amplitude[position, c] * spike[t, sample, position, c],    position = row_position[row, tap]
// The products become fixed-point numbers whose sums are exact: the same bits on all instruction sets. Where one that
// can enter is not finite, all currents of its row and output are NaN. A linear map has one tap and as many positions
// as rows; of a convolution positions are those of its input, and windows reach beyond the image where it is -1.
struct ScaledGemmProblem {
    int64_t timesteps, samples, positions, channels, rows, taps, outputs;
    const uint8_t* bytes;  // (group, sample, position, c) at the sum of the four below
    int64_t group_stride, sample_stride;
    const int64_t* position_offset;  // [positions]
    int64_t channel_stride;
    const int64_t* row_position;  // [rows, taps]
    const float* weight;          // [outputs, channels, taps]
    const float* amplitude;       // [positions, channels]
    const float* bias;            // [outputs] or null
    // Element (t, sample, row, n) at t * step_stride + sample * current_sample + current_row[row] + n * output_stride:
    // where currents are written or, with the neuron fused, what is added to them (null for nothing).
    float* current;
    int64_t step_stride, current_sample;
    const int64_t* current_row;  // [rows]
    int64_t output_stride;
};

// A train that is added to the currents in front of the neuron: amplitude * spike, with the byte of (sample, row, n) at
// sample * sample_stride + row_offset[row] + n * output_stride of each byte group, and what it is worth at
// row * amplitude_row + n.
struct ScaledResidual {
    const uint8_t* bytes;  // null for no train
    int64_t group_stride, sample_stride;
    const int64_t* row_offset;  // [rows]
    int64_t output_stride;
    const float* amplitude;
    int64_t amplitude_row;
};

void scaled_gemm_cpu(const ScaledGemmProblem& problem, int threads);

// Neuron (sample, row, n) is number (sample * rows + row) * outputs + n of `neuron`, whose currents are not read. The
// currents of all products, of the same samples, rows and outputs, are added up; the first knows the residual.
void scaled_gemm_signgd_cpu(const std::vector<ScaledGemmProblem>& products, const ScaledResidual& residual,
                            const NeuronProblem& neuron, int threads);

}  // namespace snn
