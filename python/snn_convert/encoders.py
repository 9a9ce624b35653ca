"""How an analog input enters the network as the emissions of a population of its own (scale 1, initial value 0)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ENCODERS", "encode"]


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
