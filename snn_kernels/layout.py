"""How tensors of any memory format reach kernels that know only a flat list of neurons.

A population is laid out in the order of its currents' memory (channels-last stays channels-last), and whatever
broadcasts against it (a scale a channel, an offset a neuron) is described instead of being expanded:
neuron ``n`` reads ``data[(n // inner) % period]``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Operand", "as_operand", "empty_steps", "flat_steps", "neuron_order"]

Order = tuple[int, ...]


class Operand(NamedTuple):
    """A float32 tensor read as ``data[(n // inner) % period]`` for neuron ``n``."""

    data: Tensor
    inner: int
    period: int


def neuron_order(current: Tensor) -> Order:
    """The order in memory, slowest first, of the dimensions of ``[T, *shape]`` that follow time."""
    return tuple(
        sorted(range(current.ndim - 1), key=lambda d: -current.stride(d + 1) if current.shape[d + 1] > 1 else -math.inf)
    )


def in_order(tensor: Tensor, order: Order) -> Tensor:
    """``[T, *shape]`` with the dimensions that follow time permuted to ``order``."""
    return tensor.permute(0, *(d + 1 for d in order))


def empty_steps(steps: int, shape: tuple[int, ...], order: Order, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised ``[steps, *shape]`` whose dimensions lie in memory in ``order``, time slowest."""
    return torch.empty_permuted((steps, *shape), (0, *(d + 1 for d in order)), dtype=dtype, device=device)


def flat_steps(tensor: Tensor, order: Order) -> tuple[Tensor, int]:
    """``[T, *shape]`` as a tensor whose every step is one dense run in ``order``, and the stride between steps.

    Steps may be any distance apart (0 too: the same current at every step). A step that is not dense is copied.
    """
    ordered = in_order(tensor, order)
    if len(ordered) == 0 or not ordered[0].is_contiguous():
        ordered = ordered.contiguous()
    return ordered, ordered.stride(0)


def as_operand(tensor: Tensor, shape: tuple[int, ...], order: Order) -> Operand:
    """Describe ``tensor``, broadcast to ``shape``, without expanding it where one (inner, period) pair can say it.

    A pattern with a broadcast dimension between two others, or in another order, cannot, and is copied; what is
    broadcast around it is not.
    """
    if tensor.numel() == 1:  # the usual case: what follows, for four operands, is a quarter of a call's overhead
        return Operand(tensor.float(), 1, 1)
    ordered = tensor.float().expand(shape).permute(order)
    sizes = [size for size in ordered.shape if size != 1]
    strides = [stride for stride, size in zip(ordered.stride(), ordered.shape) if size != 1]
    varying = [d for d, stride in enumerate(strides) if stride != 0]
    if not varying or 0 in sizes:
        return Operand(ordered, 1, 1)
    first, last = varying[0], varying[-1] + 1
    inner, dense = math.prod(sizes[last:]), 1
    for size, stride in zip(reversed(sizes[first:last]), reversed(strides[first:last])):
        if stride != dense:
            pattern = ordered.squeeze()[(0,) * first]
            pattern = pattern[(..., *[0] * (len(sizes) - last))].contiguous()
            return Operand(pattern, inner, pattern.numel())
        dense *= size
    return Operand(ordered, inner, dense)
