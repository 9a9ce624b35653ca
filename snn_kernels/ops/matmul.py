"""signGD neurons that chase the product of two decoded matrices: attention's scores, and what these gather."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..backends import choose
from ..checks import checked_eta, checked_field
from ..spike_train import SpikeTrain, groups_of
from .currents import checked_input, is_train
from .neuron.state import NeuronState, checked_state
from .signgd import signgd_target

__all__ = ["signgd_matmul"]

Field = Tensor | float
Pair = tuple[Field, Field]

STEPS = 8  # that are decoded at once where not all are: a byte of a train is not cut
# Bytes of decoded inputs and targets that are computed at once: on the CPU they are to be read back from a cache.
AT_ONCE = {"cpu": 4 << 20, "cuda": 256 << 20}


def signgd_matmul(
    current_a: Tensor | SpikeTrain,
    current_b: Tensor | SpikeTrain,
    eta: Tensor,
    *,
    amplitude: tuple[Field | None, Field | None] = (None, None),
    offset: Pair = (1.0, 1.0),
    bias: Pair = (0.0, 0.0),
    scale: Field = 1.0,
    v0: Field = 0.0,
    state: NeuronState | None = None,
    backend: str | None = None,
) -> tuple[SpikeTrain, NeuronState]:
    """signGD neurons (Oh & Lee, ICML 2024) that chase ``a @ b``, the product of two decoded matrices.

    For ``t = 0 .. T-1``, with ``x`` of both inputs::

        x <- x - eta[t] * (2 * current[t] - offset)      elementwise
        s[t] = 1 if v >= a @ b else 0                    each neuron against its element of the product
        v <- v - eta[t] * scale * (2 * s[t] - 1)

    The updates are exactly rounded on every backend; the product is :func:`torch.matmul`'s in float32, so a spike may
    differ between two devices where ``|v - a @ b|`` is below the rounding of that sum.

    Args:
        current_a, current_b: ``[T, *batch, M, K]`` and ``[T, *batch, K, N]``, whose batch dimensions broadcast; each a
            tensor in float32, float16 or bfloat16, or a train, as in :func:`decode`.
        eta: ``[T]`` float32 step sizes.
        amplitude, offset, bias: pairs, one value for each input, as in :func:`decode`.
        scale, v0: of the ``[*batch, M, N]`` neurons, as in :func:`signgd`.
        state: continues an earlier call in place of ``bias`` and ``v0``.
        backend: of everything but the product: ``None`` for the fastest here, or a name that runs or raises.

    Returns:
        The spikes of the ``[*batch, M, N]`` neurons, packed, and the state after the last step (float32).

    Raises:
        TypeError, ValueError: an argument of a dtype, shape or device that does not fit; it is named.
    """
    checked_state(state)
    x_name, x = ("bias", bias) if state is None else ("state.x", state.x)
    for name, value in (("amplitude", amplitude), ("offset", offset), (x_name, x)):
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{name}: expected a pair, one value for each input, got {value!r}")
    inputs = zip(("current_a", "current_b"), (current_a, current_b), amplitude, offset, x)
    a, b = (_operand(eta, x_name, *given) for given in inputs)
    shape = _shape_of_product(a.shape, b.shape)
    device = eta.device
    scale = checked_field("scale", scale, shape, device)
    v = checked_field(*(("v0", v0) if state is None else ("state.v", state.v)), shape, device).expand(shape)
    backend = choose(backend, device)
    with torch.no_grad():
        parts = [_run(*part, eta, backend) for part in _parts(a, b, scale, v, len(eta))]
        bytes, *after = parts[0] if len(parts) == 1 else _joined(parts)
    return SpikeTrain(bytes, len(eta)), NeuronState(tuple(after[:2]), after[2])


class _Operand(NamedTuple):
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

    def part(self, samples: slice) -> _Operand:
        fields = (_part(field, samples, len(self.shape)) for field in self[1:])
        return _Operand(self.current[:, samples], *fields)


def _operand(eta: Tensor, x_name: str, name: str, current, amplitude, offset, x) -> _Operand:
    values, timesteps, amplitude = checked_input(name, current, amplitude)
    if values.ndim < 3:
        raise ValueError(f"{name}: expected [T, *batch, rows, columns], got shape {tuple(values.shape)}")
    checked_eta(eta, timesteps, values.device)
    shape, device = values.shape[1:], values.device
    start = checked_field(x_name, x, shape, device).expand(shape)
    return _Operand(values, amplitude, checked_field("offset", offset, shape, device), start)


def _shape_of_product(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        batch = torch.broadcast_shapes(a[:-2], b[:-2])
    except RuntimeError:
        batch = None
    if batch is None or a[-1] != b[-2]:
        raise ValueError(f"current_b: expected matrices that those of current_a, {a}, can be multiplied with, got {b}")
    return (*batch, a[-2], b[-1])


def _parts(
    a: _Operand, b: _Operand, scale: Tensor, v: Tensor, timesteps: int
) -> Iterator[tuple[_Operand, _Operand, Tensor, Tensor]]:
    """The products of a few samples at a time."""
    size = _size(a, b, v, min(timesteps, STEPS))
    limit = AT_ONCE.get(v.device.type, size)
    if size <= limit or len(a.shape) != len(b.shape) or len(a.shape) < 3 or a.shape[0] != b.shape[0]:
        yield a, b, scale, v
        return
    for samples in _slices(len(v), max(1, limit * len(v) // size)):
        yield a.part(samples), b.part(samples), _part(scale, samples, v.ndim), v[samples]


def _size(a: _Operand, b: _Operand, v: Tensor, timesteps: int) -> int:
    """Bytes of the decoded inputs and targets."""
    return 4 * (a.x.numel() + b.x.numel() + v.numel()) * timesteps


def _slices(count: int, at_once: int) -> list[slice]:
    return [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]


def _part(field: Tensor, samples: slice, ndim: int) -> Tensor:
    """The samples of a field that broadcasts to ``ndim`` dimensions."""
    return field[samples] if field.ndim == ndim and len(field) > 1 else field


def _run(
    a: _Operand, b: _Operand, scale: Tensor, v: Tensor, eta: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bytes, the decoded inputs and the estimate after the last step."""
    whole = _size(a, b, v, len(eta)) <= AT_ONCE.get(v.device.type, 0)
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
    return groups[-1] if len(groups) <= 2 else torch.cat(groups), *(xi.clone() for xi in x), v.clone()


def _joined(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    bytes, *states = zip(*parts)
    return [torch.cat(bytes, 1), *map(torch.cat, states)]
