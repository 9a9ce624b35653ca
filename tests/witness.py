"""The value-domain oracle beside a converted network, spike by spike."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import torch

from oracle import ChaseMode, Unit, as_call, run_units

# How far from its target, in scales, an estimate may be where a neuron decides otherwise than its witness. The two take
# float32 sums in another order and have other code for exp and its like: some ulps each, of inputs that may be hundreds
# of times as large as what is made of them. In 6e7 decisions of 57 networks the farthest was 2e-6 on one processor and
# 2e-5 on another: a sum of 3 that divides, of exponentials whose neurons have a scale of 900.
CROSSING = 1e-4


class Witness(Unit):
    """A unit beside a population of the converted network.

    A neuron that meets its target to rounding may decide otherwise, and all that lies behind it then goes another way.
    There, and nowhere else, the unit takes the neuron's decision, so that the two differ by rounding at every step.
    """

    def __init__(self, scale, v0, spikes):
        super().__init__(scale, v0)
        self.spikes = iter(spikes)

    def fires(self, target, keep):
        fired = next(self.spikes).reshape(target.shape)
        flipped = super().fires(target, keep) != fired
        flipped = flipped if keep is None else flipped & (keep > 0)
        distance = ((self.v - target).abs() / self.scale)[flipped]
        assert (distance <= CROSSING).all(), f"other decisions, up to {distance.max():.1e} scales from the target"
        return fired


def spikes_and_outputs(snn, given, steps):
    """The spikes of every population, ``[T, *shape]`` each, and the outputs after each of ``steps``, from one run."""
    trains = []

    def recording(advance, train):
        def record(*args):
            emission, state = advance(*args)
            train.extend(emission.train.unpack(torch.float32))
            return emission, state

        return record

    with ExitStack() as patched:
        for _, population in snn.populations():
            trains.append([])
            patched.enter_context(patch.object(population, "advance", recording(population.advance, trains[-1])))
        args, kwargs = as_call(given)
        return trains, snn.outputs_at(*args, steps=steps, **kwargs)


def witnessed(model, given, snn, steps, normalisation):
    """The outputs of ``snn`` after each of ``steps``, and those that ``model`` itself has with witnesses for its
    nonlinearities."""
    trains, outputs = spikes_and_outputs(snn, given, steps)
    units = [Witness(p.scale, p.v0, spikes) for (_, p), spikes in zip(snn.populations(), trains)]
    mode = ChaseMode(units, snn.eta, normalisation=normalisation)
    return outputs, run_units(mode, model, given, snn, steps)
