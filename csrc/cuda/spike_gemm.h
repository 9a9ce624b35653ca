// Products of packed spike trains with weights on a CUDA device: to currents or, fused with the neuron, to the next
// train.
#pragma once

#include "../problem.h"

namespace snn {

// Outputs and inputs of a block of weights; both are padded to whole blocks, inputs with weights of 0.
constexpr int kOutputBlock = 32, kInputBlock = 16;

// Where the inputs of a row lie in a byte group. A row is an output position (y, x) of a sample; its inputs are the
// taps of a window, row by row, each a run of channels in whole blocks. Of a linear map a sample has one position and a
// window one tap. The channels of a position lie in sections, of a tap's inputs each: so many outputs see the first, as
// many the next. Distances are multiples of 4.
struct Windows {
    int64_t height, width;  // output positions of a sample
    int64_t sample_stride, y_stride, x_stride;
    int64_t kernel_width;
    int64_t tap_y_stride, tap_x_stride;
    int64_t taps, tap_blocks;  // blocks of inputs a tap
    int64_t section_outputs;   // of neighbours; whole blocks unless these are all
};

// current[t, row, n] = bias[n] + multiplier[n] * sum_k weight[n, k] * spike[t, row, k], with the weight in one float16
// number or as the sum of two.
struct SpikeProduct {
    int64_t timesteps, rows, outputs;
    int64_t parts;  // float16 numbers a weight: 1 or 2
    const uint8_t* bytes;
    int64_t group_stride;  // a multiple of 4
    Windows windows;
    // As spike_weight_cuda writes them.
    const void* weight;
    const float* multiplier;
    const float* bias;
};

// A layer's own weights, element (n, c, tap) at the sum of its strides, prepared for the tensor cores:
//
//   weight      float16 [output block, input block, part, pair of products, lane, 8], what a lane gives to the tensor
//               cores (see spike_gemm_kernel.cuh), zero in the blocks where there is neither output nor input
//   multiplier  [outputs] in whole blocks: a power of two that brings the largest weight of an output to [2^14, 2^15),
//               undone, times the amplitude where that is one for all channels
//   bias        [outputs] in whole blocks
struct SpikeWeightProblem {
    DType dtype;
    const void* from;
    int64_t output_stride, channel_stride, tap_stride;
    int64_t outputs, channels, taps, tap_blocks;  // fewer than 2^31 inputs an output, blocks filled
    int64_t parts;
    int lowest;                // exponent of a power of two
    const float* amplitude;    // of each channel, or null
    int64_t amplitude_stride;  // 0: one for all
    const float* bias_from;    // or null
    void* weight;
    float* multiplier;
    float* bias;
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
void spike_weight_cuda(const SpikeWeightProblem& problem, void* stream);
void spike_current_cuda(const SpikeCurrentProblem& problem, void* stream);
// Event-driven: of weights float32 [input, output], inputs of a tap in whole blocks, and of trains whose distances are
// multiples of 16.
void spike_event_cuda(const SpikeCurrentProblem& problem, void* stream);
void spike_neuron_cuda(const SpikeNeuronProblem& problem, void* stream);

}  // namespace snn
