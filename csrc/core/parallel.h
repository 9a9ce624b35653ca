// Neurons that read the currents of all steps before they fire: no state runs from step to step.
#pragma once

#include "macros.h"

namespace snn::SNN_ISA {

// The counting neuron of Hao et al. (2025): its first floor(level) steps are spikes.
SNN_FN float spike_level(float sum, float threshold, float shift, float timesteps) {
    return (sum + 0.5f * threshold + shift * timesteps) / threshold;
}

// floor(level) within the steps there are; 0 for NaN.
SNN_FN int32_t spike_count(float level, float timesteps) {
    const float within = level < timesteps ? level : timesteps;
    return static_cast<int32_t>(level > 0.f ? within : 0.f);
}

// The byte of the steps from `step` on, counted from 0, of a train whose first `count` steps are spikes.
SNN_FN uint32_t leading_spikes(int32_t count, int32_t step) {
    const int32_t left = count - step;
    return (1u << (left < 0 ? 0 : left > 8 ? 8 : left)) - 1u;
}

// The parallel spiking neuron of Fang et al. (2023): one term of a step's weighted sum over all steps.
SNN_FN float mixed(float sum, float weight, float current) { return sum + weight * current; }

}  // namespace snn::SNN_ISA
