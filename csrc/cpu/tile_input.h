// What a tile's neurons receive at a step, in float32.
#pragma once

#include <vector>

#include "neuron_tile.h"
#include "operand.h"

namespace snn {

// Dense currents are read where they lie, or widened; a train's spikes become their amplitudes.
class TileInput {
  public:
    // For tiles of at most `tile` neurons, of which `steps` steps are in use at once.
    TileInput(const Input& input, const TileKernels& kernels, int64_t tile, int64_t steps)
        : input_(input), kernels_(kernels), tile_(tile) {
        if (input.train) amplitude_.resize(tile);
        if (input.train || input.dtype != DType::float32) made_.resize(tile * steps);
    }

    void move_to(int64_t begin, int count) {
        begin_ = begin, count_ = count;
        if (input_.train) gather(input_.amplitude, begin, count, amplitude_.data());
    }

    // The currents of step t, in the `place`th of the steps in use.
    const float* at(int64_t t, int64_t place) {
        if (input_.train) {
            const uint8_t* bytes = input_.train + t / kStepsPerByte * input_.stride + begin_;
            float* out = made_.data() + place * tile_;
            kernels_.weigh_spikes(bytes, static_cast<int>(t % kStepsPerByte), amplitude_.data(), count_, out);
            return out;
        }
        const int64_t index = t * input_.stride + begin_;
        if (input_.dtype == DType::float32) return static_cast<const float*>(input_.current) + index;
        float* out = made_.data() + place * tile_;
        const auto widen = input_.dtype == DType::float16 ? kernels_.from_float16 : kernels_.from_bfloat16;
        widen(static_cast<const uint16_t*>(input_.current) + index, out, count_);
        return out;
    }

  private:
    const Input& input_;
    const TileKernels& kernels_;
    const int64_t tile_;
    int64_t begin_ = 0;
    int count_ = 0;
    std::vector<float> amplitude_, made_;
};

}  // namespace snn
