"""What a population carries from one call to the next, and the checks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...checks import checked_field, kind
from .reference import Momentum

__all__ = ["NeuronState", "checked_gradients", "checked_momentum", "checked_state"]


class NeuronState(NamedTuple):
    """A population between two calls.

    ``x`` is the decoded input (a pair for two inputs, ``None`` in neurons that decode nothing), ``v`` its own estimate
    or membrane potential, ``m`` the filtered gradients of all of these where there is momentum, otherwise empty.
    """

    x: Tensor | tuple[Tensor, Tensor] | None
    v: Tensor
    m: tuple[Tensor, ...] = ()


# So that programs that return a state can be saved by torch.export.
pytree._register_namedtuple(NeuronState, serialized_type_name="snn_kernels.NeuronState")


def checked_momentum(momentum: float, nesterov: bool) -> Momentum:
    """A number in [0, 1), and whether it is Nesterov's."""
    if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), got {momentum!r}")
    if nesterov and momentum == 0:
        raise ValueError("nesterov: expected a momentum above 0 with it, got momentum=0")
    return Momentum(float(momentum), bool(nesterov))


def checked_state(state: NeuronState | None, momentum: Momentum = Momentum()) -> None:  # noqa: B008
    """None, or a state that a call with or without momentum, like this one, has returned."""
    if state is None:
        return
    if not isinstance(state, NeuronState):
        raise TypeError(f"state: expected a NeuronState, got {kind(state)}")
    if bool(state.m) != (momentum.beta != 0):
        held = "with" if state.m else "without"
        raise ValueError(f"state: expected one of a call with momentum={momentum.beta}, got one {held} momentum")


def checked_gradients(
    state: NeuronState | None, momentum: Momentum, count: int, shape: Sequence[int], device: torch.device
) -> tuple[Tensor, ...]:
    """The ``count`` filtered gradients that a call starts from; none without momentum."""
    if momentum.beta == 0:
        return ()
    values = (0.0,) * count if state is None else state.m
    if len(values) != count:
        raise ValueError(f"state.m: expected {count} tensors, got {len(values)}")
    return tuple(checked_field("state.m", value, shape, device) for value in values)
