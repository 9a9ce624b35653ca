"""One time-step of each neuron model in Triton: the counterparts of csrc/core/."""

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_activations import TRITON_ACTIVATIONS

__all__ = ["STEPS", "chase", "decoded", "model_of"]


@triton.jit
def target_of(x, y, a, b, H: tl.constexpr, BINARY: tl.constexpr):
    if BINARY:
        target = H(x, y)
    else:
        target = H(x, a, b)
    return target


@triton.jit
def decoded(x, eta, current, offset):
    """``x <- x - eta (2 current - offset)``."""
    return x - eta * (current + current - offset)


@triton.jit
def chase(v, target, eta, scale):
    """A spike at ``v >= target``, and ``v <- v - eta scale (2 spike - 1)``."""
    spike = v >= target
    return v - tl.where(spike, eta, -eta) * scale, spike


@triton.jit
def filtered(m, gradient, momentum, NESTEROV: tl.constexpr):
    """The filtered gradient, and what to descend along: see csrc/core/neuron.h."""
    m = momentum * m + gradient
    step = m
    if NESTEROV:
        step = gradient + momentum * m
    return m, step


# One step of each model: the same arguments; x, y, v, the filtered gradients of these, and the spike come back.


@triton.jit
def signgd_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """The neuron that decodes what it receives and chases ``h`` of it."""
    x = decoded(x, eta, current_x, offset_x)
    if BINARY:
        y = decoded(y, eta, current_y, offset_y)
    v, spike = chase(v, target_of(x, y, a, b, H, BINARY), eta, scale)
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def signgd_momentum_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """The same with every gradient filtered."""
    m_x, step = filtered(m_x, current_x + current_x - offset_x, momentum, NESTEROV)
    x = x - eta * step
    if BINARY:
        m_y, step = filtered(m_y, current_y + current_y - offset_y, momentum, NESTEROV)
        y = y - eta * step
    spike = v >= target_of(x, y, a, b, H, BINARY)
    m_v, step = filtered(m_v, tl.where(spike, 1.0, -1.0), momentum, NESTEROV)
    v = v - eta * scale * step
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def signgd_target_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """The target is given as the current."""
    v, spike = chase(v, current_x, eta, scale)
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def subgradient_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """``x <- x - eta ((x - b) - (current - b))``; a spike at ``x > v``; ``v <- v - eta (v - scale spike)``."""
    x = x - eta * ((x - offset_x) - (current_x - offset_x))
    spike = x > v
    v = v - eta * (v - tl.where(spike, scale, 0.0))
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def subgradient_momentum_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """The same with every gradient filtered."""
    m_x, step = filtered(m_x, (x - offset_x) - (current_x - offset_x), momentum, NESTEROV)
    x = x - eta * step
    spike = x > v
    m_v, step = filtered(m_v, v - tl.where(spike, scale, 0.0), momentum, NESTEROV)
    v = v - eta * step
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def integrate_and_fire_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """``v <- v + current``; a spike at ``v >= threshold``, and the reset ``H``. The threshold is the scale."""
    v = v + current_x
    spike = v >= scale
    v = tl.where(spike, H(v, scale, offset_x), v)
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def leaky_integrate_and_fire_step(
    x, y, v, m_x, m_y, m_v, offset_x, offset_y, scale, a, b, current_x, current_y, eta, momentum,
    H: tl.constexpr, BINARY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """``v <- v + a (current - (v - b))``; the rest as without the leak."""
    v = v + a * (current_x - (v - b))
    spike = v >= scale
    v = tl.where(spike, H(v, scale, offset_x), v)
    return x, y, v, m_x, m_y, m_v, spike


@triton.jit
def soft_reset(v, threshold, value):
    return v - threshold


@triton.jit
def hard_reset(v, threshold, value):
    return value


# Step and what it is given as H; the signGD neuron is given its activation.
STEPS = {
    "signgd_target": (signgd_target_step, soft_reset),
    "subgradient": (subgradient_step, soft_reset),
    "subgradient with momentum": (subgradient_momentum_step, soft_reset),
    "integrate_and_fire": (integrate_and_fire_step, soft_reset),
    "integrate_and_fire with hard reset": (integrate_and_fire_step, hard_reset),
    "leaky_integrate_and_fire": (leaky_integrate_and_fire_step, soft_reset),
    "leaky_integrate_and_fire with hard reset": (leaky_integrate_and_fire_step, hard_reset),
}


def model_of(model: str, momentum: bool) -> tuple:
    """A model's step and what it is given as ``H``; whether it has two inputs; whether it is light on the registers."""
    row = TRITON_ACTIVATIONS.get(model)
    if row is None:
        return *STEPS[model + (" with momentum" if momentum else "")], False, not momentum
    return signgd_momentum_step if momentum else signgd_step, row.function, row.arity == 2, row.light and not momentum
