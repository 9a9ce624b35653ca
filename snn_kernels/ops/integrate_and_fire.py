"""Integrate-and-fire neurons, with and without a leak, over many time-steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import choose
from ..checks import Field, checked_currents, checked_field
from ..spike_train import SpikeTrain
from .neuron import run_neuron
from .neuron.reference import Momentum, Operands, State
from .neuron.state import NeuronState, checked_state

__all__ = ["integrate_and_fire", "leaky_integrate_and_fire"]


def integrate_and_fire(
    current: Tensor,
    *,
    threshold: Field = 1.0,
    reset: str | Field = "soft",
    v0: Field = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Integrate-and-fire neurons. For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        v <- v + current[t]
        s[t] = 1 if v >= threshold else 0
        v <- v - threshold if s[t]          reset="soft"
        v <- 0 if s[t]                      reset="hard";  a number or tensor: to that value

    With the soft reset ``threshold`` times the firing rate approaches ``clip(mean current, 0, threshold)``. Oh & Lee
    (ICML 2024) read it as the subgradient method with ``eta[t] = 1 / (t + 1)``: let ``x`` and ``y`` be the running
    means of the currents and of ``threshold * s``. With ``v0 = threshold`` and currents that arrive a step after they
    were sent (``current[0] = 0``), a spike stands for ``x >= y`` of the steps before, and ``y <- y - eta[t] * (y -
    threshold * s[t])`` descends along a subgradient of ``relu(x - y) + y**2 / 2`` (for a threshold of 1).

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        threshold: what a spike takes, and is worth downstream; broadcasts to ``shape``.
        reset: ``"soft"``, ``"hard"`` or the value to reset to.
        v0: the membrane potential before the first step.
        state: continues an earlier call in place of ``v0``.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed, and the state after the last step, whose ``v`` is the membrane potential (float32).

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    return _run("integrate_and_fire", current, threshold, reset, 0.0, (), v0, state, backend)


def leaky_integrate_and_fire(
    current: Tensor,
    tau: float,
    *,
    threshold: Field = 1.0,
    reset: str | Field = "soft",
    rest: Field = 0.0,
    v0: Field | None = None,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """Leaky integrate-and-fire neurons. For ``t = 0 .. T-1``, elementwise, every operation rounded once::

        v <- v + leak * (current[t] - (v - rest))        leak = 1 / tau, rounded to float32
        s[t] = 1 if v >= threshold else 0
        v <- v - threshold if s[t]                       reset="soft"
        v <- rest if s[t]                                reset="hard";  a number or tensor: to that value

    With the soft reset, ``rest = threshold`` and ``v0 = threshold`` it is the subgradient neuron of constant step size
    ``1 / tau`` and ``scale = (tau - 1) * threshold``, whose ``x`` and ``v`` are exponential moving averages of the
    currents and of ``scale * s`` (Oh & Lee, ICML 2024): the membrane is ``threshold + x_t - v_(t-1)``.

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        tau: the membrane's time constant in time-steps, at least 1.
        threshold: what a spike takes; broadcasts to ``shape``, like ``rest`` and ``v0``.
        reset: ``"soft"``, ``"hard"`` or the value to reset to.
        rest: the potential that the membrane leaks to.
        v0: the membrane potential before the first step; ``rest`` where it is not given.
        state: continues an earlier call in place of ``v0``.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed, and the state after the last step, whose ``v`` is the membrane potential (float32).

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    if isinstance(tau, bool) or not isinstance(tau, (int, float)) or not tau >= 1:
        raise ValueError(f"tau: expected a number of at least 1, got {tau!r}")
    v0 = rest if v0 is None else v0
    return _run("leaky_integrate_and_fire", current, threshold, reset, rest, (1.0 / tau, rest), v0, state, backend)


def _run(model, current, threshold, reset, rest, parameters, v0, state, backend):
    checked_currents((current,), ("current",))
    checked_state(state)
    shape, device = current.shape[1:], current.device
    if isinstance(reset, str) and reset not in ("soft", "hard"):
        raise ValueError(f"reset: expected 'soft', 'hard' or a value to reset to, got {reset!r}")
    soft = isinstance(reset, str) and reset == "soft"
    value = rest if isinstance(reset, str) else reset
    operands = Operands(
        [checked_field("rest" if isinstance(reset, str) else "reset", value, shape, device)],
        checked_field("threshold", threshold, shape, device),
        [checked_field(name, value, shape, device) for name, value in zip(("tau", "rest"), parameters)],
    )
    v = checked_field("v0" if state is None else "state.v", v0 if state is None else state.v, shape, device)
    # The step sizes that other models read.
    eta = torch.zeros(len(current), dtype=torch.float32, device=device)
    name = model if soft else f"{model} with hard reset"
    bytes, after = run_neuron([current], eta, name, operands, State((), v), Momentum(), choose(backend, device))
    return SpikeTrain(bytes, len(current)), NeuronState(None, after.v)
