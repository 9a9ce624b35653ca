// What all threads of a product with an amplitude for each neuron read: patterns of spikes, weights and amplitudes in
// the order in which its kernels take them, and how large their products can be.
#pragma once

#include "memory.h"
#include "scaled_gemm.h"
#include "scaled_gemm_tile.h"

namespace snn {

inline int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Columns are numbered [sample][byte group][8 steps].
class ScaledOperands {
  public:
    ScaledOperands(const ScaledGemmProblem& problem, int threads);

    // Of a position from a block of columns and one of inputs on; blocks of columns lie pattern_stride() apart.
    const uint8_t* patterns(int64_t position, int64_t column_block, int64_t input_block) const {
        return patterns_.data() + (position * column_blocks + column_block) * pattern_stride() +
               input_block * kernels.pattern_bytes;
    }
    int64_t pattern_stride() const { return input_blocks * kernels.pattern_bytes; }

    // [input][16 outputs]
    const float* weight(int64_t output_block, int64_t tap, int64_t input_block) const {
        return weight_.data() +
               ((output_block * p.taps + tap) * channels() + input_block * kernels.block_inputs) * kScaledOutputs;
    }

    const float* amplitude(int64_t position, int64_t input_block) const {
        return amplitude_.data() + position * channels() + input_block * kernels.block_inputs;
    }

    // The powers of two by which the products of a row and 16 outputs are multiplied to become fixed-point numbers, NaN
    // where one that can enter is not finite.
    void find_powers(int64_t row, int64_t output_block, float* power) const;

    const ScaledGemmProblem& p;
    const ScaledGemmKernels& kernels;
    const int64_t groups, input_blocks, column_blocks, output_blocks;

  private:
    int64_t channels() const { return input_blocks * kernels.block_inputs; }
    void fill_position(int64_t position, uint8_t* bytes);
    void fill_weights(int64_t output_block);

    Aligned<uint8_t> patterns_;
    Aligned<float> weight_, weight_length_, amplitude_, amplitude_length_;
};

}  // namespace snn
