// One time-step of the subgradient neuron (Oh & Lee 2024): it minimises relu(x - y) + y^2 / 2 over its output y, whose
// minimum is clip(x, 0, scale).
#pragma once

#include "neuron.h"

namespace snn::SNN_ISA {

// x <- x - eta ((x - b) - (current - b)); spike = x > v; v <- v - eta (v - scale spike). The offset is b.
template <bool Momentum>
struct Subgradient {
    static constexpr int inputs = 1;
    static constexpr bool decodes = true, momentum = Momentum;
    static std::string name() { return Momentum ? "subgradient with momentum" : "subgradient"; }

    static SNN_FN bool step(Neuron& n, float current, float /*current_y*/, const Step& at) {
        const float g_x = (n.x - n.offset_x) - (current - n.offset_x);
        n.x = n.x - at.eta * (Momentum ? filtered(n.m_x, g_x, at) : g_x);
        const bool spike = n.x > n.v;
        const float g_v = n.v - (spike ? n.scale : 0.f);
        n.v = n.v - at.eta * (Momentum ? filtered(n.m_v, g_v, at) : g_v);
        return spike;
    }
};

}  // namespace snn::SNN_ISA
