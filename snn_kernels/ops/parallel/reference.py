"""The definition of the neurons that see the currents of all steps at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["count_reference", "mix_reference"]


def count_reference(current: Tensor, threshold: Tensor, shift: Tensor) -> Tensor:
    """Step ``t`` (from 1) is a spike where ``t <= (sum + threshold / 2 + shift * T) / threshold``.

    The sum runs over the steps in their order; spikes are bool ``[T, *shape]``.
    """
    timesteps = current.shape[0]
    total = torch.zeros(current.shape[1:], dtype=torch.float32, device=current.device)
    for now in current.float():
        total = total + now
    level = (total + 0.5 * threshold + shift * float(timesteps)) / threshold
    steps = torch.arange(1, timesteps + 1, dtype=torch.float32, device=current.device)
    return steps.reshape(-1, *[1] * level.ndim) <= level


def mix_reference(current: Tensor, weight: Tensor, threshold: Tensor) -> Tensor:
    """``sum_s weight[t, s] * current[s] >= threshold[t]``, the sum in the order of the steps: bool ``[T, *shape]``."""
    spikes = torch.empty(current.shape, dtype=torch.bool, device=current.device)
    for t, row in enumerate(weight):
        total = torch.zeros(current.shape[1:], dtype=torch.float32, device=current.device)
        for factor, now in zip(row, current.float()):
            total = total + factor * now
        spikes[t] = total >= threshold[t]
    return spikes
