"""How an analog input enters the network as the emissions of a population of its own (scale 1, initial value 0)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .packed import Ramp

__all__ = ["ENCODERS", "encode", "float_ramp"]


def _float(f: Tensor, x: Tensor) -> Tensor:
    return (1 + f - x) / 2


def _spike(f: Tensor, x: Tensor) -> Tensor:
    return (f >= x).to(x.dtype)


def _stochastic(f: Tensor, x: Tensor) -> Tensor:
    return torch.bernoulli(torch.sigmoid(f - x))


# What is emitted at a step, from the estimate f before it: the gradient f - x scaled to [0, 1], its sign, or a
# Bernoulli draw of its sigmoid. `direct` has no emissions: the input is a constant.
ENCODERS = {"direct": None, "float": _float, "spike": _spike, "stochastic": _stochastic}


def encode(name: str, x: Tensor, f: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """Emissions ``[T, *x.shape]`` for the steps ``eta``, and the estimate after them.

    ``f <- f - eta[t] * (2 * emission - 1)``: for ``float``, ``f - eta[t] * (f - x)``.
    """
    emissions = []
    for step in eta:
        emission = ENCODERS[name](f, x)
        emissions.append(emission)
        f = f - step * (2 * emission - 1)
    return torch.stack(emissions), f


def float_ramp(x: Tensor, eta: Tensor, steps: slice) -> tuple[Ramp, Tensor]:
    """What the ``float`` encoder emits in some of the steps ``eta``, and the estimate after them.

    With ``r[t] = prod(1 - eta[:t])`` the estimate is ``(1 - r[t]) x`` and the emission ``(1 - r[t] x) / 2``, on the
    line between a half and ``(1 - x) / 2``.
    """
    missing = F.pad(torch.cumprod(1 - eta, 0), (1, 0), value=1.0)
    ends = torch.stack([torch.full_like(x, 0.5), (1 - x) / 2])
    return Ramp(ends, missing[steps]), (1 - missing[steps.stop]) * x
