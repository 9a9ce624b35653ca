"""Currents that come as what delivers them, a train whose spikes are each worth an amplitude, or dense."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import checked_currents, checked_field, kind
from ..layout import Operand
from ..spike_train import SpikeTrain
from .neuron import CURRENT_DTYPES

__all__ = ["checked_input", "dense_currents", "input_argument", "is_train"]

Field = Tensor | float


def checked_input(name: str, current: Tensor | SpikeTrain, amplitude: Field | None) -> tuple[Tensor, int, Tensor]:
    """Currents ``[T, *shape]`` or the bytes of a train ``[G, *shape]``, ``T``, and what a spike is worth."""
    if isinstance(current, SpikeTrain):
        values, timesteps = SpikeTrain.checked(current.bytes, current.timesteps).bytes, current.timesteps
    elif amplitude is not None:
        raise ValueError(f"amplitude: expected None where {name} is no SpikeTrain, got {kind(amplitude)}")
    else:
        values = checked_currents((current,), (name,))
        timesteps = len(values)
    worth = checked_field("amplitude", 1.0 if amplitude is None else amplitude, values.shape[1:], values.device)
    return values, timesteps, worth


def is_train(values: Tensor) -> bool:
    return values.dtype == torch.uint8


def dense_currents(values: Tensor, timesteps: int, amplitude: Tensor) -> Tensor:
    """``current[t] = amplitude * spike[t]`` of a train's bytes: their definition."""
    return SpikeTrain(values, timesteps).unpack() * amplitude if is_train(values) else values


def input_argument(flat: Tensor, stride: int, amplitude: Operand) -> tuple:
    """``SourceArgument`` of csrc/arguments.h: steps or byte groups ``stride`` elements apart."""
    dtype = "uint8" if is_train(flat) else CURRENT_DTYPES[flat.dtype]
    return dtype, flat.data_ptr(), stride, (amplitude.data.data_ptr(), amplitude.inner, amplitude.period)
