"""Currents that come as what delivers them, a train whose spikes are each worth an amplitude, or dense."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import DTYPES, Field, checked_currents, checked_field, kind
from ..layout import Operand
from ..spike_train import SpikeTrain

__all__ = ["checked_input", "checked_inputs", "dense_currents", "input_argument", "is_train"]


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


def checked_inputs(
    names: Sequence[str], currents: Sequence[Tensor | SpikeTrain], amplitudes: Sequence[Field | None]
) -> tuple[list[Tensor], int, list[Tensor]]:
    """Dense currents ``[T, *shape]`` of one shape, dtype and device, ``T`` and nothing; or the bytes of trains of one
    shape, ``T`` and what their spikes are worth."""
    if not any(isinstance(current, SpikeTrain) for current in currents) and all(worth is None for worth in amplitudes):
        return list(currents), len(checked_currents(currents, names)), []
    values, timesteps, worths = zip(*map(checked_input, names, currents, amplitudes))
    alike = [(value.shape, value.dtype, value.device, steps) for value, steps in zip(values, timesteps)]
    for name, current, found in zip(names, currents, alike):
        if found != alike[0]:
            what = "a train" if is_train(values[0]) else "currents"
            raise ValueError(
                f"{name}: expected {what} of the shape, steps and device of {names[0]}, got {kind(current)}"
            )
    return list(values), timesteps[0], list(worths)


def is_train(values: Tensor) -> bool:
    return values.dtype == torch.uint8


def dense_currents(values: Tensor, timesteps: int, amplitude: Tensor) -> Tensor:
    """``current[t] = amplitude * spike[t]`` of a train's bytes: their definition."""
    return SpikeTrain(values, timesteps).unpack() * amplitude if is_train(values) else values


def input_argument(flat: Tensor, stride: int, amplitude: Operand) -> tuple:
    """``SourceArgument`` of csrc/arguments.h: steps or byte groups ``stride`` elements apart."""
    dtype = "uint8" if is_train(flat) else DTYPES[flat.dtype]
    return dtype, flat.data_ptr(), stride, (amplitude.data.data_ptr(), amplitude.inner, amplitude.period)
