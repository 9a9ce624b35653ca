// One time-step of the integrate-and-fire neurons. The membrane potential is v, the threshold is scale.
#pragma once

#include "neuron.h"

namespace snn::SNN_ISA {

// Without a leak v <- v + current, with one v <- v + a (current - (v - b)), a = 1 / tau and b the resting potential.
// A spike at v >= threshold, and then the soft reset v <- v - threshold or the hard one v <- offset.
template <bool Leaky, bool Hard>
struct IntegrateAndFire {
    static constexpr int inputs = 1;
    static constexpr bool decodes = false, momentum = false;
    static std::string name() {
        return std::string(Leaky ? "leaky_" : "") + "integrate_and_fire" + (Hard ? " with hard reset" : "");
    }

    static SNN_FN bool step(Neuron& n, float current, float /*current_y*/, const Step&) {
        n.v = n.v + (Leaky ? n.a * (current - (n.v - n.b)) : current);
        const bool spike = n.v >= n.scale;
        const float reset = Hard ? n.offset_x : n.v - n.scale;
        n.v = spike ? reset : n.v;
        return spike;
    }
};

}  // namespace snn::SNN_ISA
