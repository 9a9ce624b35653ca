// One time-step of the signGD neuron (Oh & Lee 2024). The order of the operations and their single roundings are the
// arithmetic contract: no fused multiply-add here, which the build files switch off.
#pragma once

#include "activations.h"
#include "neuron.h"

namespace snn::SNN_ISA {

// What a decoded input descends along: 2 current - offset.
SNN_FN float decoded_gradient(float current, float offset) { return current + current - offset; }

// The decoded input after a current: x <- x - eta (2 current - offset).
SNN_FN float decoded(float x, float eta, float current, float offset) {
    return x - eta * decoded_gradient(current, offset);
}

// Ties fire; a NaN target or estimate does not.
SNN_FN bool fires(float estimate, float target) { return estimate >= target; }

// The spike of a neuron that chases its target, which moves its estimate: v <- v - eta scale (2 spike - 1).
SNN_FN bool chase(float& v, float target, float eta, float scale) {
    const bool spike = fires(v, target);
    const float size = eta * scale;
    v = spike ? v - size : v + size;
    return spike;
}

// The neuron that decodes what it receives and chases h of it.
template <class H>
struct SignGD {
    static constexpr int inputs = H::arity;
    static constexpr bool decodes = true, momentum = false;
    static std::string name() { return H::label(); }

    static SNN_FN bool step(Neuron& n, float current_x, float current_y, const Step& at) {
        n.x = decoded(n.x, at.eta, current_x, n.offset_x);
        if (inputs == 2) n.y = decoded(n.y, at.eta, current_y, n.offset_y);
        return chase(n.v, H::at(n.x, n.y, n.a, n.b), at.eta, n.scale);
    }
};

// The target is given, step by step, in place of a current.
struct SignGDTarget {
    static constexpr int inputs = 1;
    static constexpr bool decodes = false, momentum = false;
    static std::string name() { return "signgd_target"; }

    static SNN_FN bool step(Neuron& n, float target, float /*current_y*/, const Step& at) {
        return chase(n.v, target, at.eta, n.scale);
    }
};

// The neuron that decodes, with momentum. The filter is linear, so that the receiver's x stays the sender's v through
// the affine map between them: both filter their own gradient.
template <class H>
struct SignGDMomentum {
    static constexpr int inputs = H::arity;
    static constexpr bool decodes = true, momentum = true;
    static std::string name() { return std::string(H::label()) + " with momentum"; }

    static SNN_FN bool step(Neuron& n, float current_x, float current_y, const Step& at) {
        n.x = n.x - at.eta * filtered(n.m_x, decoded_gradient(current_x, n.offset_x), at);
        if (inputs == 2) n.y = n.y - at.eta * filtered(n.m_y, decoded_gradient(current_y, n.offset_y), at);
        const bool spike = fires(n.v, H::at(n.x, n.y, n.a, n.b));
        n.v = n.v - at.eta * n.scale * filtered(n.m_v, spike ? 1.f : -1.f, at);
        return spike;
    }
};

}  // namespace snn::SNN_ISA
