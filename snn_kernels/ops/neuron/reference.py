"""The definition of every neuron model: one line of PyTorch for each line of its dynamics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...activations import ACTIVATIONS

__all__ = ["MODELS", "Momentum", "decoded_gradient", "neuron_loop", "signgd_step"]


class Momentum(NamedTuple):
    """How gradients are filtered: not at all where ``beta`` is 0."""

    beta: float = 0.0
    nesterov: bool = False

    def filtered(self, m: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """``m <- beta * m + g``, and what to descend along: ``m`` (heavy ball) or ``g + beta * m`` (Nesterov)."""
        if not m:
            return gradients, m
        m = tuple(self.beta * mi + g for mi, g in zip(m, gradients))
        return [g + self.beta * mi for mi, g in zip(m, gradients)] if self.nesterov else m, m


class State(NamedTuple):
    """Decoded inputs, estimate or membrane potential, and the filtered gradients of all of these, with momentum."""

    x: tuple[Tensor, ...]
    v: Tensor
    m: tuple[Tensor, ...] = ()


class Operands(NamedTuple):
    offsets: Sequence[Tensor]
    scale: Tensor
    parameters: Sequence[Tensor] = ()


def decoded_gradient(current: Tensor, offset: Tensor) -> Tensor:
    """What a decoded input descends along."""
    return 2 * current.float() - offset


def signgd_step(
    currents: Sequence[Tensor],
    eta: Tensor,
    function: Callable[..., Tensor],
    operands: Operands,
    state: State,
    momentum: Momentum = Momentum(),  # noqa: B008
) -> tuple[Tensor, State]:
    """One time-step of the signGD neuron (Oh & Lee 2024, section 4): the spike and the state after it.

    ``x <- x - eta * (2 * current - offset)``; ``spike = v >= h(x)``; ``v <- v - eta * scale * (2 * spike - 1)``.
    """
    gradients = [decoded_gradient(current, offset) for current, offset in zip(currents, operands.offsets)]
    steps, m_x = momentum.filtered(state.m[:-1], gradients)
    x = tuple(xi - eta * step for xi, step in zip(state.x, steps))
    spike = state.v >= function(*x)
    (step,), m_v = momentum.filtered(state.m[-1:], [2 * spike.float() - 1])
    return spike, State(x, state.v - eta * operands.scale * step, (*m_x, *m_v))


def signgd_target_step(targets, eta, operands, state, _) -> tuple[Tensor, State]:
    """One time-step of a signGD neuron that decodes nothing: its target is given in place of a current."""
    return signgd_step((), eta, lambda: targets[0].float(), operands, state)


def subgradient_step(currents, eta, operands, state, momentum) -> tuple[Tensor, State]:
    """One time-step of the subgradient neuron: it descends relu(x - y) + y^2 / 2 over its output (Oh & Lee 2024).

    ``x <- x - eta * ((x - b) - (current - b))``; ``spike = x > v``; ``v <- v - eta * (v - scale * spike)``.
    """
    (x,), (baseline,) = state.x, operands.offsets
    (step,), m_x = momentum.filtered(state.m[:-1], [(x - baseline) - (currents[0].float() - baseline)])
    x = x - eta * step
    spike = x > state.v
    (step,), m_v = momentum.filtered(state.m[-1:], [state.v - operands.scale * spike.float()])
    return spike, State((x,), state.v - eta * step, (*m_x, *m_v))


def fire_and_reset(v: Tensor, operands: Operands, hard: bool) -> tuple[Tensor, State]:
    """A spike at ``v >= threshold``; then ``v <- v - threshold``, or the given value if ``hard``."""
    spike = v >= operands.scale
    return spike, State((), torch.where(spike, operands.offsets[0] if hard else v - operands.scale, v))


def integrate_and_fire_step(currents, operands, state, hard) -> tuple[Tensor, State]:
    """``v <- v + current``, then :func:`fire_and_reset`."""
    return fire_and_reset(state.v + currents[0].float(), operands, hard)


def leaky_integrate_and_fire_step(currents, operands, state, hard) -> tuple[Tensor, State]:
    """``v <- v + leak * (current - (v - rest))``, then :func:`fire_and_reset`."""
    leak, rest = operands.parameters
    return fire_and_reset(state.v + leak * (currents[0].float() - (state.v - rest)), operands, hard)


Stepper = Callable[[Sequence[Tensor], Tensor, Operands, State, Momentum], tuple[Tensor, State]]


class Model(NamedTuple):
    """A neuron model: its step, how many currents it takes and whether it decodes them."""

    step: Stepper
    inputs: int = 1
    decodes: bool = True


def _signgd_model(row) -> Model:
    def step(currents, eta, operands, state, momentum):
        def target(*x: Tensor) -> Tensor:
            return row.function(*x, *operands.parameters)

        return signgd_step(currents, eta, target, operands, state, momentum)

    return Model(step, row.arity)


def _membrane(step, hard: bool) -> Model:
    return Model(lambda currents, _, operands, state, __: step(currents, operands, state, hard), decodes=False)


MODELS: dict[str, Model] = {
    **{name: _signgd_model(row) for name, row in ACTIVATIONS.items()},
    "signgd_target": Model(signgd_target_step, decodes=False),
    "subgradient": Model(subgradient_step),
    "integrate_and_fire": _membrane(integrate_and_fire_step, hard=False),
    "integrate_and_fire with hard reset": _membrane(integrate_and_fire_step, hard=True),
    "leaky_integrate_and_fire": _membrane(leaky_integrate_and_fire_step, hard=False),
    "leaky_integrate_and_fire with hard reset": _membrane(leaky_integrate_and_fire_step, hard=True),
}


def neuron_loop(
    currents: Sequence[Tensor], eta: Tensor, model: str, operands: Operands, state: State, momentum: Momentum
) -> tuple[Tensor, State]:
    """All time-steps: spikes as bool ``[T, *shape]`` and the state after the last one."""
    shape = currents[0].shape[1:]
    step = MODELS[model].step
    state = State(*(_expanded(part, shape) for part in state))
    spikes = torch.empty(currents[0].shape, dtype=torch.bool, device=state.v.device)
    for t in range(currents[0].shape[0]):
        spikes[t], state = step([current[t] for current in currents], eta[t], operands, state, momentum)
    return spikes, state


def _expanded(part: Tensor | tuple[Tensor, ...], shape: Sequence[int]):
    return part.expand(shape) if isinstance(part, Tensor) else tuple(tensor.expand(shape) for tensor in part)
