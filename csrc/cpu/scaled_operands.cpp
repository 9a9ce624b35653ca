#include "scaled_operands.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/fixed_point.h"
#include "neuron_tile.h"

namespace snn {
namespace {

#if defined(SNN_AMX_KERNELS)
constexpr int kFewestTileChannels = 32;  // fewer leave more than half of the tiles empty
#endif

const ScaledGemmKernels& kernels_for(const ScaledGemmProblem& p) {
#if defined(SNN_AMX_KERNELS)
    if (isa_here() == Isa::amx && p.channels >= kFewestTileChannels) return amx::scaled_gemm_kernels;
#endif
    (void)p;
    return *tile_kernels_here().scaled_gemm;
}

// The length of a vector.
class Length {
  public:
    void add(float value) { square_ += static_cast<double>(value) * value; }
    operator float() const { return static_cast<float>(std::sqrt(square_)); }

  private:
    double square_ = 0;
};

}  // namespace

ScaledOperands::ScaledOperands(const ScaledGemmProblem& problem, int threads)
    : p(problem),
      kernels(kernels_for(problem)),
      groups(blocks_of(p.timesteps, kStepsPerByte)),
      input_blocks(blocks_of(p.channels, kernels.block_inputs)),
      column_blocks(blocks_of(p.samples * groups * kStepsPerByte, kColumns)),
      output_blocks(blocks_of(p.outputs, kScaledOutputs)),
      patterns_(p.positions * column_blocks * pattern_stride()),
      weight_(output_blocks * p.taps * channels() * kScaledOutputs),
      weight_length_(output_blocks * p.taps * kScaledOutputs),
      amplitude_(p.positions * channels()),
      amplitude_length_(p.positions) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<uint8_t> bytes(channels());
#pragma omp for schedule(static) nowait
        for (int64_t position = 0; position < p.positions; ++position) fill_position(position, bytes.data());
#pragma omp for schedule(static)
        for (int64_t block = 0; block < output_blocks; ++block) fill_weights(block);
    }
}

void ScaledOperands::find_powers(int64_t row, int64_t output_block, float* power) const {
    // No sum of weight times amplitude is beyond the product of their lengths (Cauchy and Schwarz).
    float bound[kScaledOutputs] = {};
    const float* length = weight_length_.data() + output_block * p.taps * kScaledOutputs;
    for (int64_t tap = 0; tap < p.taps; ++tap, length += kScaledOutputs) {
        const int64_t position = p.row_position[row * p.taps + tap];
        if (position < 0) continue;
        const float of_amplitudes = amplitude_length_.data()[position];
        for (int n = 0; n < kScaledOutputs; ++n) bound[n] += length[n] * of_amplitudes;
    }
    // A thousandth covers the rounding of the bound.
    for (int n = 0; n < kScaledOutputs; ++n)
        power[n] = SNN_ISA::fixed_point_power(1.001 * bound[n], p.taps * p.channels);
}

// `bytes` is room for those of the channels.
void ScaledOperands::fill_position(int64_t position, uint8_t* bytes) {
    float* const amplitude = amplitude_.data() + position * channels();
    std::copy_n(p.amplitude + position * p.channels, p.channels, amplitude);
    std::fill(amplitude + p.channels, amplitude + channels(), 0.f);
    Length length;
    for (int64_t c = 0; c < p.channels; ++c) length.add(amplitude[c]);
    amplitude_length_.data()[position] = length;
    uint8_t* const to = patterns_.data() + position * column_blocks * pattern_stride();
    for (int64_t half = 0; half < 2 * column_blocks; ++half) {  // eight steps of a sample
        const int64_t sample = half / std::max<int64_t>(groups, 1), group = half - sample * groups;
        const uint8_t* from = p.bytes + group * p.group_stride + sample * p.sample_stride + p.position_offset[position];
        for (int64_t c = 0; c < p.channels; ++c) bytes[c] = sample < p.samples ? from[c * p.channel_stride] : 0;
        kernels.arrange(bytes, input_blocks, static_cast<int>(half % 2), to + half / 2 * pattern_stride());
    }
}

void ScaledOperands::fill_weights(int64_t output_block) {
    float* to = weight_.data() + output_block * p.taps * channels() * kScaledOutputs;
    float* lengths = weight_length_.data() + output_block * p.taps * kScaledOutputs;
    for (int64_t tap = 0; tap < p.taps; ++tap, lengths += kScaledOutputs) {
        Length length[kScaledOutputs];
        for (int64_t c = 0; c < channels(); ++c)
            for (int64_t i = 0; i < kScaledOutputs; ++i) {
                const int64_t n = output_block * kScaledOutputs + i;
                *to = c < p.channels && n < p.outputs ? p.weight[(n * p.channels + c) * p.taps + tap] : 0.f;
                length[i].add(*to++);
            }
        std::copy_n(length, kScaledOutputs, lengths);
    }
}

}  // namespace snn
