"""The product of two decoded matrices of PyTorch, between kernels that decode and neurons that are given targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...autocast import without_autocast
from ...spike_train import groups_of
from ..currents import is_train
from ..signgd import signgd_target

__all__ = ["signgd_matmul_apart"]

STEPS = 8  # that are decoded at once where not all are: a byte of a train is not cut
AT_ONCE = 256 << 20  # bytes of decoded inputs and targets


class Operand(NamedTuple):
    """A matrix that is decoded: its currents, or the bytes of a train, and its fields."""

    current: Tensor  # [T, *shape], or bytes [G, *shape]
    amplitude: Tensor
    offset: Tensor
    x: Tensor  # *shape

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.current.shape[1:])

    def decoded(self, steps: slice, eta: Tensor, x: Tensor, backend: str) -> Tensor:
        if is_train(self.current):
            steps = slice(steps.start // STEPS, groups_of(steps.stop))
        return torch.ops.snn_kernels.decode(self.current[steps], len(eta), eta, self.amplitude, self.offset, x, backend)

    def part(self, samples: slice) -> Operand:
        fields = (_part(field, samples, len(self.shape)) for field in self[1:])
        return Operand(self.current[:, samples], *fields)


@without_autocast()
def signgd_matmul_apart(
    a: Tensor,
    b: Tensor,
    eta: Tensor,
    of_a: Sequence[Tensor],
    of_b: Sequence[Tensor],
    scale: Tensor,
    v: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bytes, the decoded inputs and the estimate after the last step: a few samples and a few steps at a time."""
    first, second = (Operand(values, *of[:2], of[2].expand(values.shape[1:])) for values, of in ((a, of_a), (b, of_b)))
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    v = v.expand(*batch, first.shape[-2], second.shape[-1])
    parts = [_run(*part, eta, backend) for part in _parts(first, second, scale, v, len(eta))]
    if len(parts) == 1:
        return parts[0]
    bytes, *states = zip(*parts)
    return torch.cat(bytes, 1), *map(torch.cat, states)


def _parts(
    a: Operand, b: Operand, scale: Tensor, v: Tensor, timesteps: int
) -> Iterator[tuple[Operand, Operand, Tensor, Tensor]]:
    """The products of a few samples at a time."""
    size = _size(a, b, v, min(timesteps, STEPS))
    if size <= AT_ONCE or len(a.shape) != len(b.shape) or len(a.shape) < 3 or a.shape[0] != b.shape[0]:
        yield a, b, scale, v
        return
    for samples in _slices(len(v), max(1, AT_ONCE * len(v) // size)):
        yield a.part(samples), b.part(samples), _part(scale, samples, v.ndim), v[samples]


def _size(a: Operand, b: Operand, v: Tensor, timesteps: int) -> int:
    """Bytes of the decoded inputs and targets."""
    return 4 * (a.x.numel() + b.x.numel() + v.numel()) * timesteps


def _slices(count: int, at_once: int) -> list[slice]:
    return [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]


def _part(field: Tensor, samples: slice, ndim: int) -> Tensor:
    """The samples of a field that broadcasts to ``ndim`` dimensions."""
    return field[samples] if field.ndim == ndim and len(field) > 1 else field


def _run(
    a: Operand, b: Operand, scale: Tensor, v: Tensor, eta: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    whole = _size(a, b, v, len(eta)) <= AT_ONCE
    ndim = max(len(a.shape), len(b.shape))
    x, groups = [a.x, b.x], [v.new_empty((0, *v.shape), dtype=torch.uint8)]
    for steps in _slices(len(eta), len(eta) if whole and len(eta) else STEPS):
        now = eta[steps]
        decoded = [operand.decoded(steps, now, xi, backend) for operand, xi in zip((a, b), x)]
        targets = torch.matmul(*(d.reshape(len(now), *(1,) * (ndim + 1 - d.ndim), *d.shape[1:]) for d in decoded))
        train, after = signgd_target(targets, now, scale=scale, v0=v, backend=backend)
        groups.append(train.bytes)
        v, x = after.v, [d[-1] for d in decoded]
    # Copies: what has been decoded of earlier steps is not to be kept with them.
    return torch.cat(groups), *(xi.clone() for xi in x), v.clone()
