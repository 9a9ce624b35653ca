"""Spike trains packed over time: one bit a step, one byte for eight steps of one neuron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .checks import kind

__all__ = ["SpikeTrain", "groups_of"]


def groups_of(timesteps: int) -> int:
    """Number of byte groups that hold ``timesteps`` steps: ``ceil(T / 8)``."""
    return (timesteps + 7) // 8


@dataclass(frozen=True, eq=False)
class SpikeTrain:
    """Spikes of a population over ``timesteps`` steps.

    Args:
        bytes: uint8 ``[ceil(T / 8), *shape]``; bit ``i`` of ``bytes[g]`` is the spike at step ``8 * g + i``.
            Bits at or past ``timesteps`` are 0.
        timesteps: ``T``.

    The feature dimensions can be reshaped, permuted, sliced and concatenated without unpacking, and trains joined over
    time. A train is a pytree node, so it passes through ``torch.compile`` and ``torch.export``. What it is put together
    from is not looked at here, for a tree may hold anything for a time: every op that reads a train checks it
    (:meth:`checked`).
    """

    bytes: Tensor
    timesteps: int

    @staticmethod
    def checked(bytes: Tensor, timesteps: int) -> SpikeTrain:
        """A train from bytes that come from elsewhere.

        Raises:
            TypeError: ``bytes`` is no uint8 tensor.
            ValueError: ``timesteps`` is no integer >= 0, or the number of byte groups does not fit it.
        """
        if not isinstance(bytes, Tensor) or bytes.dtype != torch.uint8:
            raise TypeError(f"bytes: expected a torch.uint8 tensor, got {kind(bytes)}")
        if not isinstance(timesteps, (int, torch.SymInt)) or timesteps < 0:
            raise ValueError(f"timesteps: expected an integer >= 0, got {timesteps!r}")
        groups = groups_of(timesteps)
        if bytes.ndim == 0 or bytes.shape[0] != groups:
            found = tuple(bytes.shape)
            raise ValueError(f"bytes: expected {groups} groups for timesteps={timesteps}, got shape {found}")
        return SpikeTrain(bytes, timesteps)

    @property
    def shape(self) -> torch.Size:
        """Shape of the population, without time."""
        return self.bytes.shape[1:]

    @property
    def device(self) -> torch.device:
        return self.bytes.device

    def unpack(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Dense spikes ``[T, *shape]`` of 0 and 1."""
        from .ops.packing import unpack

        return unpack(self, dtype)

    def step(self, t: int) -> Tensor:
        """The spikes at step ``t``, from 0 on: uint8 ``[*shape]`` of 0 and 1.

        Raises:
            ValueError: the train has no such step.
        """
        if not isinstance(t, Integral) or not 0 <= t < self.timesteps:
            raise ValueError(f"t: expected a step from 0 to {self.timesteps - 1}, got {t}")
        return self.bytes[t // 8] >> t % 8 & 1

    def count(self) -> Tensor:
        """Number of spikes, over all neurons and steps: an int64 scalar."""
        return sum(((self.bytes >> bit) & 1).sum() for bit in range(8))

    def firing_rate(self) -> Tensor:
        """Share of steps with a spike, over all neurons: a float32 scalar (NaN when there is nothing to count)."""
        return self.count().float() / (self.timesteps * self.shape.numel())

    def to(self, device: torch.device | str) -> SpikeTrain:
        return SpikeTrain(self.bytes.to(device=device), self.timesteps)

    def reshape(self, *shape: int | Sequence[int]) -> SpikeTrain:
        """The same spikes with the population's dimensions reshaped."""
        return SpikeTrain(self.bytes.reshape(self.bytes.shape[0], *_numbers(shape)), self.timesteps)

    def permute(self, *dims: int | Sequence[int]) -> SpikeTrain:
        """The same spikes with the population's dimensions permuted; ``dims`` count without time.

        Raises:
            ValueError: they are not all of the dimensions.
        """
        order = [self._dim("dims", dim) for dim in _numbers(dims)]
        if sorted(order) != list(range(1, self.bytes.ndim)):
            raise ValueError(f"dims: expected all dimensions of {tuple(self.shape)}, got {_numbers(dims)}")
        return SpikeTrain(self.bytes.permute(0, *order), self.timesteps)

    def _dim(self, name: str, dim: int) -> int:
        """The dimension of ``bytes`` that is the population's ``dim``."""
        ndim = self.bytes.ndim - 1
        if not -ndim <= dim < ndim:
            raise ValueError(f"{name}: expected a dimension of {tuple(self.shape)}, got {dim}")
        return dim % ndim + 1

    def __getitem__(self, index) -> SpikeTrain:
        """Index or slice the population's dimensions."""
        index = index if isinstance(index, tuple) else (index,)
        places = [i for i in index if not (i is None or i is Ellipsis or isinstance(i, slice))]
        if len(places) == 1 or not any(isinstance(i, (Tensor, list)) for i in places):
            return SpikeTrain(self.bytes[(slice(None), *index)], self.timesteps)
        # Tensors that are not side by side put their dimensions before all others, and so before time.
        rest = () if any(i is Ellipsis for i in index) else (Ellipsis,)
        bytes = self.bytes.movedim(0, -1)[(*index, *rest, slice(None))]
        return SpikeTrain(bytes.movedim(-1, 0).contiguous(), self.timesteps)

    @staticmethod
    def cat(trains: Sequence[SpikeTrain], dim: int = 0) -> SpikeTrain:
        """Concatenate populations along ``dim`` (counted without time).

        Raises:
            ValueError: there are none, the trains differ in ``timesteps``, or ``dim`` is no dimension of theirs.
        """
        if not trains:
            raise ValueError("trains: expected at least one, got none")
        steps = {train.timesteps for train in trains}
        if len(steps) != 1:
            raise ValueError(f"trains: expected one number of time-steps, got {sorted(steps)}")
        return SpikeTrain(torch.cat([train.bytes for train in trains], trains[0]._dim("dim", dim)), steps.pop())

    @staticmethod
    def join(trains: Sequence[SpikeTrain]) -> SpikeTrain:
        """The steps of one train after those of the other: what calls that passed on their state have fired.

        Nothing is unpacked where all but the last are of whole bytes, multiples of 8 steps.

        Raises:
            ValueError: there are none, or the populations differ in shape.
        """
        if len({train.shape for train in trains}) != 1:
            raise ValueError(f"trains: expected one shape, got {[tuple(train.shape) for train in trains]}")
        if any(train.timesteps % 8 for train in trains[:-1]):
            from .ops.packing import pack

            return pack(torch.cat([train.unpack(torch.bool) for train in trains]))
        return SpikeTrain(torch.cat([train.bytes for train in trains]), sum(train.timesteps for train in trains))

    def __repr__(self) -> str:
        return f"SpikeTrain(shape={tuple(self.shape)}, timesteps={self.timesteps}, device={self.device})"


def _numbers(given: tuple) -> tuple[int, ...]:
    """Numbers one by one or in one sequence, as tensors take them."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


pytree.register_pytree_node(
    SpikeTrain,
    lambda train: ([train.bytes], train.timesteps),
    lambda children, timesteps: SpikeTrain(children[0], timesteps),
    serialized_type_name="snn_kernels.SpikeTrain",
    flatten_with_keys_fn=lambda train: ([(pytree.GetAttrKey("bytes"), train.bytes)], train.timesteps),
)
