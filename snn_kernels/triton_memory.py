"""How Triton's kernels of populations read and write: operands that broadcast, currents of steps, packed trains.

``n`` are a program's neurons, ``alive`` those that exist. ``ALIGNED`` promises that pointers are multiples of 16
bytes, strides and sizes of 16 elements, so that neighbours move together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
import triton
import triton.language as tl

__all__ = ["is_aligned", "load_currents", "load_operand", "load_received", "on_device", "store"]


@triton.jit
def load_operand(p_data, inner, period, n, neurons, alive):
    """Neuron ``n`` of a broadcast operand reads ``data[(n // inner) % period]``."""
    if period == 1:
        value = tl.broadcast_to(tl.load(p_data), n.shape)
    elif period >= neurons:
        value = tl.load(p_data + n, mask=alive, other=0.0)
    elif neurons <= 0x7FFFFFFF:  # a 64-bit division costs as much as several steps of a neuron
        phase = n.to(tl.uint32) // inner.to(tl.uint32) % period.to(tl.uint32)
        value = tl.load(p_data + phase, mask=alive, other=0.0)
    else:
        value = tl.load(p_data + n // inner % period, mask=alive, other=0.0)
    return value


@triton.jit
def load_currents(p_current, step_stride, n, alive, t, STEPS: tl.constexpr, ALIGNED: tl.constexpr):
    """The currents of ``STEPS`` steps from ``t`` on, all loads issued before the first use of one."""
    currents = ()
    for s in tl.static_range(STEPS):
        pointers = p_current + (t + s) * step_stride + n
        if ALIGNED:
            pointers = tl.multiple_of(pointers, 16)
        currents += (tl.load(pointers, mask=alive, other=0),)
    return currents


@triton.jit
def load_received(
    p_current, stride, amplitude, n, alive, t, bit, STEPS: tl.constexpr, PACKED: tl.constexpr, ALIGNED: tl.constexpr
):
    """The currents of ``STEPS`` steps from ``t`` on, in float32. ``PACKED`` ones are bits from ``bit`` on of the byte
    that holds step ``t``, each worth the amplitude."""
    currents = ()
    if PACKED:
        byte = load_currents(p_current, stride, n, alive, t // 8, 1, ALIGNED)[0].to(tl.int32) >> bit
        for s in tl.static_range(STEPS):
            currents += (tl.where((byte >> s) & 1 != 0, amplitude, 0.0),)
    else:
        loaded = load_currents(p_current, stride, n, alive, t, STEPS, ALIGNED)
        for s in tl.static_range(STEPS):
            currents += (loaded[s].to(tl.float32),)
    return currents


@triton.jit
def store(p_out, values, n, alive, ALIGNED: tl.constexpr):
    pointers = p_out + n
    if ALIGNED:
        pointers = tl.multiple_of(pointers, 16)
    tl.store(pointers, values, mask=alive)


def on_device(tensor: torch.Tensor):
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def is_aligned(pointers: Iterable[torch.Tensor], sizes: Iterable[int]) -> bool:
    """Whether kernels may be promised ALIGNED."""
    return all(tensor.data_ptr() % 16 == 0 for tensor in pointers) and all(size % 16 == 0 for size in sizes)
