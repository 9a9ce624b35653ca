// Every neuron model the loops over time run, in the order of their index.
#pragma once

#include "integrate_and_fire.h"
#include "signgd.h"
#include "subgradient.h"

namespace snn::SNN_ISA {

template <class... Model>
struct ModelList {};

#define SNN_SIGNGD(name, expression) SignGD<activation::name##_fn>,
#define SNN_SIGNGD_MOMENTUM(name, expression) SignGDMomentum<activation::name##_fn>,
using Models = ModelList<SNN_ACTIVATIONS(SNN_SIGNGD) SNN_ACTIVATIONS(SNN_SIGNGD_MOMENTUM) SignGDTarget,
                         Subgradient<false>, Subgradient<true>, IntegrateAndFire<false, false>,
                         IntegrateAndFire<false, true>, IntegrateAndFire<true, false>, IntegrateAndFire<true, true>>;
#undef SNN_SIGNGD
#undef SNN_SIGNGD_MOMENTUM

}  // namespace snn::SNN_ISA
