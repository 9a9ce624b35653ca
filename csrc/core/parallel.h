// Neurons that read the currents of all steps before they fire: no state runs from step to step.
#pragma once

#include "macros.h"

namespace snn::SNN_ISA {

// The counting neuron of Hao et al. (2025): its first floor(level) steps are spikes.
SNN_FN float spike_level(float sum, float threshold, float shift, float timesteps) {
    return (sum + 0.5f * threshold + shift * timesteps) / threshold;
}

// `step` counts from 1.
SNN_FN bool fires_at(float level, float step) { return step <= level; }

// The parallel spiking neuron of Fang et al. (2023): one term of a step's weighted sum over all steps.
SNN_FN float mixed(float sum, float weight, float current) { return sum + weight * current; }

}  // namespace snn::SNN_ISA
