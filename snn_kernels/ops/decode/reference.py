"""The definition of the decoded inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..neuron.reference import decoded_gradient

__all__ = ["decode_reference"]


def decode_reference(current: Tensor, eta: Tensor, offset: Tensor, x: Tensor) -> Tensor:
    """``x <- x - eta * (2 * current - offset)``, after each step: the first line of ``signgd_step``."""
    decoded = torch.empty(current.shape, dtype=torch.float32, device=current.device)
    for t, step in enumerate(eta):
        x = decoded[t] = x - step * decoded_gradient(current[t], offset)
    return decoded
