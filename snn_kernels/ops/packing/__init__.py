"""Packing over time: ``[T, *shape]`` spikes to one byte for eight steps, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backends import C, choose
from ...checks import DTYPES, kind
from ...layout import empty_steps, in_order, neuron_order
from ...spike_train import SpikeTrain, groups_of
from .reference import pack_reference, unpack_reference

__all__ = ["pack", "unpack"]

BACKENDS = ("cpu", "reference")

torch.library.define("snn_kernels::pack", "(Tensor spikes, str backend) -> Tensor")
torch.library.define("snn_kernels::unpack", "(Tensor bytes, int timesteps, ScalarType dtype, str backend) -> Tensor")


def pack(spikes: Tensor, *, backend: str | None = None) -> SpikeTrain:
    """Pack dense spikes over time.

    Args:
        spikes: ``[T, *shape]``, any dtype; an element that is not 0 is a spike.
        backend: ``None`` for the fastest here, or its name.

    Returns:
        A :class:`SpikeTrain` of ``T`` steps in the memory format of ``spikes``.

    Raises:
        TypeError: ``spikes`` is no tensor.
        ValueError: ``spikes`` has no time dimension, or the named backend cannot run.
    """
    if not isinstance(spikes, Tensor):
        raise TypeError(f"spikes: expected a tensor, got {kind(spikes)}")
    if spikes.ndim == 0:
        raise ValueError("spikes: expected [T, *shape], got a tensor without dimensions")
    backend = choose(backend, spikes.device, BACKENDS)
    return SpikeTrain(torch.ops.snn_kernels.pack(spikes, backend), spikes.shape[0])


def unpack(train: SpikeTrain, dtype: torch.dtype = torch.float32, *, backend: str | None = None) -> Tensor:
    """Dense spikes ``[T, *shape]`` of 0 and 1 in ``dtype``; the inverse of :func:`pack`.

    The ``cpu`` backend writes float32, float16 and bfloat16; ``reference`` any dtype.

    Raises:
        TypeError, ValueError: ``train`` is no train whose bytes hold its ``timesteps``.
        ValueError: the named backend cannot run or does not write ``dtype``.
    """
    if not isinstance(train, SpikeTrain):
        raise TypeError(f"train: expected a SpikeTrain, got {kind(train)}")
    SpikeTrain.checked(train.bytes, train.timesteps)
    if backend == "cpu" and dtype not in DTYPES:
        raise ValueError(f"dtype: expected float32, float16 or bfloat16 of the cpu backend, got {dtype}")
    backend = choose(backend, train.device, BACKENDS if dtype in DTYPES else ("reference",))
    return torch.ops.snn_kernels.unpack(train.bytes, train.timesteps, dtype, backend)


def _empty_bytes(spikes: Tensor) -> Tensor:
    order = neuron_order(spikes)
    return empty_steps(groups_of(spikes.shape[0]), spikes.shape[1:], order, torch.uint8, spikes.device)


def _empty_spikes(bytes: Tensor, timesteps: int, dtype: torch.dtype) -> Tensor:
    return empty_steps(timesteps, bytes.shape[1:], neuron_order(bytes), dtype, bytes.device)


@torch.library.impl("snn_kernels::pack", "CompositeExplicitAutograd")
def _pack(spikes: Tensor, backend: str) -> Tensor:
    out = _empty_bytes(spikes)
    if backend == "reference":
        return out.copy_(pack_reference(spikes))
    known = spikes if spikes.dtype == torch.bool or spikes.dtype in DTYPES else spikes != 0
    dense = in_order(known, neuron_order(spikes)).contiguous()
    size = len(spikes), spikes.shape[1:].numel()
    C.pack_cpu(dense.data_ptr(), dense.element_size(), out.data_ptr(), *size, torch.get_num_threads())
    return out


@torch.library.impl("snn_kernels::unpack", "CompositeExplicitAutograd")
def _unpack(bytes: Tensor, timesteps: int, dtype: torch.dtype, backend: str) -> Tensor:
    out = _empty_spikes(bytes, timesteps, dtype)
    if backend == "reference":
        return out.copy_(unpack_reference(bytes, timesteps, dtype))
    dense = in_order(bytes, neuron_order(bytes)).contiguous()
    name, neurons = DTYPES[dtype], bytes.shape[1:].numel()
    C.unpack_cpu(dense.data_ptr(), out.data_ptr(), name, timesteps, neurons, torch.get_num_threads())
    return out


torch.library.register_fake("snn_kernels::pack", lambda spikes, backend: _empty_bytes(spikes))
torch.library.register_fake(
    "snn_kernels::unpack", lambda bytes, timesteps, dtype, backend: _empty_spikes(bytes, timesteps, dtype)
)
