"""What a fused op adds to its product before the neurons see it: currents, or a train that stays packed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...checks import kind
from ...quantized_weight import QuantizedWeight
from ...spike_train import SpikeTrain
from .checks import checked_weight, folded_amplitude
from .rows import offsets, sample_argument

__all__ = ["Residual", "checked_residual"]


def checked_residual(
    residual: Tensor | SpikeTrain | None,
    amplitude: Tensor | float | None,
    train: SpikeTrain,
    shape: tuple[int, ...],
    feature_dim: int,
    weight: Tensor | QuantizedWeight | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """A residual of the neurons ``shape`` behind ``train`` as the ops take it: currents, or bytes and what
    ``checked_amplitude`` gives of their amplitude; and what projects it."""
    values, scale = (None, None) if weight is None else checked_weight("residual_weight", weight)
    if values is not None:
        shape = _projected_shape(residual, values, train, shape, feature_dim)
    if isinstance(residual, SpikeTrain):
        SpikeTrain.checked(residual.bytes, residual.timesteps)
        if (residual.timesteps, residual.shape, residual.device) != (train.timesteps, shape, train.device):
            raise ValueError(
                f"residual: expected a train of shape {shape} and {train.timesteps} steps on {train.device}, "
                f"got {residual}"
            )
        worth, scale = folded_amplitude("residual_amplitude", amplitude, scale, shape, feature_dim, train.device)
        worth = worth.expand(len(worth), *shape[1:]) if worth is not None and worth.ndim > 1 else worth
        return residual.bytes, worth, values, scale
    if amplitude is not None:
        raise ValueError(f"residual_amplitude: expected None where residual is no SpikeTrain, got {amplitude}")
    if residual is not None and not isinstance(residual, Tensor):
        raise TypeError(f"residual: expected a tensor or a SpikeTrain, got {type(residual).__name__}")
    expected = (train.timesteps, *shape)
    if residual is not None and (
        residual.shape != expected or residual.dtype != torch.float32 or residual.device != train.device
    ):
        raise ValueError(f"residual: expected float32 {expected} on {train.device}, got {kind(residual)}")
    return residual, None, None, None


def _projected_shape(
    residual: object, weight: Tensor, train: SpikeTrain, shape: tuple[int, ...], feature_dim: int
) -> tuple[int, ...]:
    """The shape of the train that ``weight`` brings to the neurons' shape."""
    if not isinstance(residual, SpikeTrain):
        raise ValueError(f"residual_weight: expected None where residual is no SpikeTrain, got {kind(weight)}")
    outputs = shape[feature_dim]
    if weight.ndim != 2 or len(weight) != outputs or weight.device != train.device:
        raise ValueError(f"residual_weight: expected shape [{outputs}, M] on {train.device}, got {kind(weight)}")
    projected = list(shape)
    projected[feature_dim] = weight.shape[1]
    return tuple(projected)


class Residual(NamedTuple):
    """Currents, bytes of a train whose spikes are worth ``amplitude`` (1 if it is ``None``), or nothing.

    ``feature_dim`` is that of ``value``, time included.
    """

    value: Tensor | None
    amplitude: Tensor | None
    timesteps: int
    feature_dim: int

    @property
    def is_packed(self) -> bool:
        return self.value is not None and self.value.dtype == torch.uint8

    def nothing(self) -> Residual:
        return self._replace(value=None, amplitude=None)

    def added_to(self, current: Tensor) -> Tensor:
        """``current[t] + amplitude * spike[t]``: the definition of a packed residual."""
        return current if self.value is None else current + self.currents()

    def currents(self) -> Tensor:
        """What is added, unpacked."""
        if not self.is_packed:
            return self.value
        spikes = SpikeTrain(self.value, self.timesteps).unpack()
        if self.amplitude is None:
            return spikes
        if self.amplitude.ndim > 1:
            return spikes * self.amplitude
        return (spikes.movedim(self.feature_dim, -1) * self.amplitude).movedim(-1, self.feature_dim)

    def arguments(self) -> tuple[tuple, tuple, tuple[Tensor | None, ...]]:
        """``CurrentArgument`` and ``ResidualTrainArgument`` of csrc/bindings.cpp, one of them for nothing, and the
        tensors whose addresses they hold."""
        current, train = (0, 0, 0, 0), (0, 0, 0, 0, 0)
        if self.value is None:
            return current, train, ()
        features_last = self.value.movedim(self.feature_dim, -1)
        rows = offsets(features_last.shape[1:-1], features_last.stride()[1:-1])
        where = (self.value.data_ptr(), self.value.stride(0), rows.data_ptr(), self.value.stride(self.feature_dim))
        if not self.is_packed:
            return where, train, (self.value, rows)
        amplitude = None if self.amplitude is None else self.amplitude.contiguous()
        return current, (*where, 0 if amplitude is None else amplitude.data_ptr()), (rows, amplitude)

    def by_feature(self) -> Residual:
        """The same, its train unpacked where its amplitude is none of features."""
        packed = self.is_packed and (self.amplitude is None or self.amplitude.ndim == 1)
        return self if packed or self.value is None else self._replace(value=self.currents(), amplitude=None)

    def of_samples(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Tensor | None, ...]]:
        """``SampleCurrentArgument`` and ``SampleTrainArgument`` of csrc/bindings.cpp, one of them for nothing, and the
        tensors whose addresses they hold."""
        current, train = (0,) * 5, (0,) * 7
        if self.value is None:
            return current, train, ()
        by_sample = self.is_packed and (self.amplitude is None or self.amplitude.ndim == 1 or len(self.amplitude) == 1)
        value = (self.value if by_sample else self.currents()).movedim(self.feature_dim, -1)
        where, rows = sample_argument(value)
        if not by_sample:
            return where, train, (value, rows)
        amplitude = torch.ones(value.shape[-1], dtype=torch.float32) if self.amplitude is None else self.amplitude
        if amplitude.ndim > 1:  # [1, *rest] of the neurons, time not among them
            amplitude = amplitude.unsqueeze(0).movedim(self.feature_dim, -1).reshape(len(rows), -1)
        amplitude = amplitude.contiguous()
        return current, (*where, amplitude.data_ptr(), amplitude.stride(0) * (amplitude.ndim - 1)), (rows, amplitude)

    def in_rows(self, outputs: int) -> tuple[Tensor | None, Tensor | None]:
        """The value as ``[T or G, rows, N]`` with features side by side, and the ``[N]`` amplitudes of a train."""
        if self.value is None:
            return None, None
        features_last = self.value.movedim(self.feature_dim, -1)
        steps, *batch, features = features_last.shape
        rows = features_last.reshape(steps, math.prod(batch), features)
        if rows.stride(-1) != 1:
            rows = rows.contiguous()
        if not self.is_packed:
            return rows, None
        if self.amplitude is None:
            return rows, torch.ones(outputs, dtype=torch.float32, device=rows.device)
        return rows, self.amplitude.contiguous()
