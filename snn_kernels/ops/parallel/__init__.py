"""Parallel spiking neurons: all steps of a train from all currents at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backends import choose, run_extension
from ...checks import DTYPES, checked_currents, checked_field, kind
from ...layout import as_operand, empty_steps, flat_steps, neuron_order
from ...spike_train import SpikeTrain, groups_of
from .reference import count_reference, mix_reference

__all__ = ["parallel_spikes", "parallel_spiking_neuron"]


def parallel_spikes(
    current: Tensor,
    threshold: Tensor | float = 1.0,
    *,
    shift: Tensor | float = 0.0,
    backend: str | None = None,
) -> SpikeTrain:
    """Neurons that count first and fire then (Hao et al., ICML 2025), the parallel form of integrate-and-fire::

        count = clip(floor((sum_t current[t] + threshold / 2 + shift * T) / threshold), 0, T)
        s[t] = 1 if t + 1 <= count else 0               for t = 0 .. T-1

    Spikes come first in the train, and ``threshold * count / T`` is the quantised, clipped mean current: for ``L = T``
    levels it is QCFS, ``threshold * clip(floor(x * L / threshold + 1/2) / L, 0, 1)`` of the mean ``x``.

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        threshold: what a spike is worth; broadcasts to ``shape``.
        shift: is added to every step's current (``pre`` of DA-QCFS).
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    checked_currents((current,), ("current",))
    shape, device = current.shape[1:], current.device
    fields = checked_field("threshold", threshold, shape, device), checked_field("shift", shift, shape, device)
    with torch.no_grad():
        bytes = torch.ops.snn_kernels.parallel_spikes(current, *fields, choose(backend, device))
    return SpikeTrain(bytes, len(current))


def parallel_spiking_neuron(
    current: Tensor, weight: Tensor, threshold: Tensor, *, backend: str | None = None
) -> SpikeTrain:
    """The parallel spiking neuron of Fang et al. (NeurIPS 2023), which mixes the currents of all steps::

        s[t] = 1 if sum_u weight[t, u] * current[u] >= threshold[t] else 0

    The sum runs over ``u = 0 .. T-1`` in this order, every operation rounded once.

    Args:
        current: ``[T, *shape]`` in float32, float16 or bfloat16, any memory format.
        weight: float32 ``[T, T]``.
        threshold: float32 ``[T]``.
        backend: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes, packed.

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    checked_currents((current,), ("current",))
    timesteps = len(current)
    for name, value, shape in (("weight", weight, (timesteps, timesteps)), ("threshold", threshold, (timesteps,))):
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            raise TypeError(f"{name}: expected a float32 tensor, got {kind(value)}")
        if value.shape != shape or value.device != current.device:
            raise ValueError(f"{name}: expected shape {shape} on {current.device}, got {kind(value)}")
    with torch.no_grad():
        backend = choose(backend, current.device)
        bytes = torch.ops.snn_kernels.parallel_spiking_neuron(current, weight, threshold, backend)
    return SpikeTrain(bytes, timesteps)


torch.library.define(
    "snn_kernels::parallel_spikes", "(Tensor current, Tensor threshold, Tensor shift, str backend) -> Tensor"
)
torch.library.define(
    "snn_kernels::parallel_spiking_neuron", "(Tensor current, Tensor weight, Tensor threshold, str backend) -> Tensor"
)


@torch.library.register_fake("snn_kernels::parallel_spikes")
@torch.library.register_fake("snn_kernels::parallel_spiking_neuron")
def _empty_bytes(current: Tensor, *_) -> Tensor:
    timesteps, *shape = current.shape
    return empty_steps(groups_of(timesteps), shape, neuron_order(current), torch.uint8, current.device)


@torch.library.impl("snn_kernels::parallel_spikes", "CompositeExplicitAutograd")
def _parallel_spikes(current: Tensor, threshold: Tensor, shift: Tensor, backend: str) -> Tensor:
    out = _empty_bytes(current)
    if backend == "reference":
        return out.copy_(torch.ops.snn_kernels.pack(count_reference(current, threshold, shift), backend))
    if out.numel():
        order = neuron_order(current)
        fields = [as_operand(field, current.shape[1:], order) for field in (threshold, shift)]
        _run(backend, current, order, fields, None, out)
    return out


@torch.library.impl("snn_kernels::parallel_spiking_neuron", "CompositeExplicitAutograd")
def _parallel_spiking_neuron(current: Tensor, weight: Tensor, threshold: Tensor, backend: str) -> Tensor:
    out = _empty_bytes(current)
    if backend == "reference":
        return out.copy_(torch.ops.snn_kernels.pack(mix_reference(current, weight, threshold), backend))
    if out.numel():
        weights = weight.contiguous(), threshold.contiguous()
        _run(backend, current, neuron_order(current), None, weights, out)
    return out


def _run(backend: str, current: Tensor, order, fields, weights, out: Tensor) -> None:
    flat, stride = flat_steps(current, order)
    if backend == "triton":
        from .triton_kernel import parallel_triton

        return parallel_triton(flat, stride, fields, weights, out)
    none = (0, 1, 1)
    threshold, shift = (none, none) if fields is None else ((f.data.data_ptr(), f.inner, f.period) for f in fields)
    arguments = (
        DTYPES[current.dtype],
        len(current),
        out[0].numel(),
        (flat.data_ptr(), stride),
        threshold,
        shift,
        (0, 0) if weights is None else tuple(part.data_ptr() for part in weights),
        out.data_ptr(),
    )
    run_extension("parallel", arguments, out.device)
