// What the step of every neuron model works on.
#pragma once

#include <string>

#include "macros.h"

namespace snn::SNN_ISA {

// A neuron in registers: its state and its operands.
struct Neuron {
    float x = 0.f, y = 0.f;                 // decoded inputs
    float v = 0.f;                          // its own estimate, or its membrane potential
    float m_x = 0.f, m_y = 0.f, m_v = 0.f;  // filtered gradients, with momentum
    float offset_x = 0.f, offset_y = 0.f;
    float scale = 0.f;
    float a = 0.f, b = 0.f;
};

// What all neurons share at a step.
struct Step {
    float eta;
    float momentum;
    float nesterov;  // 1 or 0: a number, because a choice by a bool keeps loops from being vectorised
};

// What bit `bit` of a packed train's byte delivers: a spike its amplitude, silence 0.
SNN_FN float weighed(uint32_t byte, int bit, float amplitude) { return byte >> bit & 1 ? amplitude : 0.f; }

// The direction of descent for a gradient g: m <- momentum m + g, then m itself (the heavy ball, Polyak 1964) or
// g + momentum m (Nesterov 1983, as Sutskever et al. 2013 write it).
SNN_FN float filtered(float& m, float g, const Step& at) {
    m = at.momentum * m + g;
    return at.nesterov > 0.f ? g + at.momentum * m : m;
}

}  // namespace snn::SNN_ISA
