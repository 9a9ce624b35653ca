// One time-step of the signGD neuron (Oh & Lee 2024). The order of the operations and their single roundings are the
// arithmetic contract: no fused multiply-add here, which the build files switch off.
#pragma once

#include "activations.h"
#include "neuron.h"

namespace snn::SNN_ISA {

// What a decoded input descends along: 2 current - offset.
SNN_FN float decoded_gradient(float current, float offset) { return current + current - offset; }

// Ties fire; a NaN target or estimate does not.
SNN_FN bool fires(float estimate, float target) { return estimate >= target; }

// x <- x - eta (2 current - offset); spike = v >= h(x); v <- v - eta scale (2 spike - 1).
template <class H>
struct SignGD {
    static constexpr int inputs = H::arity;
    static constexpr bool decodes = true, momentum = false;
    static std::string name() { return H::label(); }

    static SNN_FN bool step(Neuron& n, float current_x, float current_y, const Step& at) {
        n.x = n.x - at.eta * decoded_gradient(current_x, n.offset_x);
        if (inputs == 2) n.y = n.y - at.eta * decoded_gradient(current_y, n.offset_y);
        const bool spike = fires(n.v, H::at(n.x, n.y, n.a, n.b));
        const float size = at.eta * n.scale;
        n.v = spike ? n.v - size : n.v + size;
        return spike;
    }
};

// The target is given, step by step, in place of a current: spike = v >= target; v <- v - eta scale (2 spike - 1).
struct SignGDTarget {
    static constexpr int inputs = 1;
    static constexpr bool decodes = false, momentum = false;
    static std::string name() { return "signgd_target"; }

    static SNN_FN bool step(Neuron& n, float target, float /*current_y*/, const Step& at) {
        const bool spike = fires(n.v, target);
        const float size = at.eta * n.scale;
        n.v = spike ? n.v - size : n.v + size;
        return spike;
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
