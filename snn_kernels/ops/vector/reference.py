"""The definition of the neurons whose target is a function of their whole vector."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...activations import sqrt

__all__ = ["VECTOR_TARGETS", "vector_target"]


def softmax(x: Tensor, keep: Tensor, _: Tensor, eps: float) -> Tensor:
    """``exp(x - max) / sum`` over the elements where ``keep`` is not 0; 0 elsewhere."""
    kept = x.masked_fill(keep == 0, -math.inf)
    weight = torch.where(keep == 0, 0.0, torch.exp(x - kept.amax(-1, keepdim=True)))
    total = weight.sum(-1, keepdim=True)
    return torch.where(total == 0, 0.0, weight / total)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``u / sqrt(mean(u**2) + eps) * weight + bias`` with ``u = x - mean(x)``."""
    return rms_norm(x - x.mean(-1, keepdim=True), weight, bias, eps)


def rms_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x**2) + eps) * weight + bias``."""
    return x / sqrt((x * x).mean(-1, keepdim=True) + eps) * weight + bias


VECTOR_TARGETS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "softmax": softmax,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
}


def vector_target(function: str, a: Tensor, b: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    return lambda x: VECTOR_TARGETS[function](x, a, b, eps)
