"""The definition of the signGD neuron: one line of PyTorch for each line of its dynamics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["signgd_loop", "signgd_step"]


def signgd_step(
    currents: Sequence[Tensor],
    eta: Tensor,
    function: Callable[..., Tensor],
    offsets: Sequence[Tensor],
    scale: Tensor,
    x: Sequence[Tensor],
    v: Tensor,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """One time-step (Oh & Lee 2024, section 4): ``(spike, x, v)`` after it.

    ``x <- x - eta * (2 * current - offset)``; ``spike = v >= h(x)``; ``v <- v - eta * scale * (2 * spike - 1)``.
    """
    x = tuple(xi - eta * (2 * current.float() - offset) for xi, current, offset in zip(x, currents, offsets))
    spike = v >= function(*x)
    v = v - eta * scale * (2 * spike.float() - 1)
    return spike, x, v


def signgd_loop(
    currents: Sequence[Tensor],
    eta: Tensor,
    function: Callable[..., Tensor],
    offsets: Sequence[Tensor],
    scale: Tensor,
    x: Sequence[Tensor],
    v: Tensor,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """All time-steps: spikes as bool ``[T, *shape]`` and the state after the last one."""
    shape = currents[0].shape[1:]
    x, v = tuple(xi.expand(shape) for xi in x), v.expand(shape)
    spikes = torch.empty(currents[0].shape, dtype=torch.bool, device=v.device)
    for t in range(currents[0].shape[0]):
        spikes[t], x, v = signgd_step([current[t] for current in currents], eta[t], function, offsets, scale, x, v)
    return spikes, x, v
