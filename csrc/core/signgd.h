// One time-step of the signGD neuron (Oh & Lee 2024). The order of the operations and their single roundings are the
// arithmetic contract: no fused multiply-add here, which the build files switch off.
#pragma once

#include "activations.h"

namespace snn::SNN_ISA {

// x <- x - eta (2 current - offset): the decoded input.
SNN_FN float decoded_input(float x, float current, float offset, float eta) {
    return x - eta * (current + current - offset);
}

// Ties fire; a NaN target or estimate does not.
SNN_FN bool fires(float estimate, float target) { return estimate >= target; }

// v <- v - eta scale (2 spike - 1): the neuron's own output estimate.
SNN_FN float next_estimate(float v, float eta, float scale, bool spike) {
    const float step = eta * scale;
    return spike ? v - step : v + step;
}

}  // namespace snn::SNN_ISA
