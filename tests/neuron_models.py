"""Calls of every neuron model beside plain signGD, for the tests of each backend."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from signgd_helpers import bits, seeded
from snn_kernels import (
    NeuronState,
    SpikeTrain,
    integrate_and_fire,
    leaky_integrate_and_fire,
    schedules,
    signgd,
    signgd_binary,
    signgd_target,
    subgradient,
)

Outcome = tuple[SpikeTrain, NeuronState]


def _eta(current: Tensor, eta: Tensor | None) -> Tensor:
    return schedules.Exponential(0.5, 0.95).table(len(current)).to(current.device) if eta is None else eta


def _signgd(activation: str, **options) -> Callable[..., Outcome]:
    return lambda current, eta=None, **more: signgd(current, _eta(current, eta), activation, **options, **more)


def _binary(function: str, **options) -> Callable[..., Outcome]:
    def call(current: Tensor, eta: Tensor | None = None, **more) -> Outcome:
        return signgd_binary(current, current.flip(0) - 0.25, _eta(current, eta), function, **options, **more)

    return call


def _subgradient(**options) -> Callable[..., Outcome]:
    return lambda current, eta=None, **more: subgradient(current, _eta(current, eta), bias=0.1, **options, **more)


def _stepless(call, *arguments, **options) -> Callable[..., Outcome]:
    """Integrate-and-fire models have no step sizes."""
    return lambda current, eta=None, **more: call(current, *arguments, **options, **more)


HEAVY_BALL = {"momentum": 0.7}
NESTEROV = {"momentum": 0.7, "nesterov": True}

# All of correctly rounded operations only, so that every backend gives the same bits.
CALLS: dict[str, Callable[..., Outcome]] = {
    "relu, heavy ball": _signgd("relu", **HEAVY_BALL, scale=0.5, v0=0.1),
    "relu, Nesterov": _signgd("relu", **NESTEROV, scale=0.5, v0=0.1),
    "maximum, heavy ball": _binary("maximum", **HEAVY_BALL),
    "divide, Nesterov": _binary("divide", **NESTEROV, bias=(0.0, 1.0)),
    "target": lambda current, eta=None, **more: signgd_target(
        current, _eta(current, eta), **{"scale": 0.5, "v0": 0.1, **more}
    ),
    "subgradient": _subgradient(scale=0.8),
    "subgradient, heavy ball": _subgradient(**HEAVY_BALL, v0=0.2),
    "subgradient, Nesterov": _subgradient(**NESTEROV),
    "IF": _stepless(integrate_and_fire, threshold=0.7, v0=0.35),
    "IF, hard reset": _stepless(integrate_and_fire, reset="hard"),
    "IF, reset to a value": _stepless(integrate_and_fire, reset=-0.25),
    "LIF": _stepless(leaky_integrate_and_fire, 2.0, threshold=0.4),
    "LIF, hard reset": _stepless(leaky_integrate_and_fire, 3.0, threshold=0.3, reset="hard", rest=0.05),
}


def currents(timesteps: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (0.6 * seeded(timesteps, *shape, seed=5) + 0.4).to(dtype)


def state_tensors(state: NeuronState) -> list[Tensor]:
    x = state.x if isinstance(state.x, tuple) else () if state.x is None else (state.x,)
    return [*x, state.v, *state.m]


def assert_same_outcome(a: Outcome, b: Outcome) -> None:
    assert torch.equal(a[0].bytes, b[0].bytes)
    pairs = list(zip(state_tensors(a[1]), state_tensors(b[1]), strict=True))
    assert all(torch.equal(bits(left), bits(right)) for left, right in pairs)
