"""Packing in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pack_reference", "unpack_reference"]


def _bit_values(ndim: int, device: torch.device) -> Tensor:
    return (2 ** torch.arange(8, device=device, dtype=torch.uint8)).reshape(8, *[1] * ndim)


def pack_reference(spikes: Tensor) -> Tensor:
    """``[T, *shape]`` to uint8 ``[ceil(T / 8), *shape]``: bit ``i`` of byte ``g`` is step ``8 * g + i``."""
    bits = (spikes != 0).to(torch.uint8)
    missing = -bits.shape[0] % 8
    bits = torch.cat([bits, bits.new_zeros(missing, *bits.shape[1:])])
    bits = bits.reshape(len(bits) // 8, 8, *bits.shape[1:])
    return (bits * _bit_values(spikes.ndim - 1, spikes.device)).sum(dim=1, dtype=torch.uint8)


def unpack_reference(bytes: Tensor, timesteps: int, dtype: torch.dtype) -> Tensor:
    """uint8 ``[ceil(T / 8), *shape]`` to 0 and 1 in ``[T, *shape]``."""
    bits = (bytes.unsqueeze(1) & _bit_values(bytes.ndim - 1, bytes.device)) != 0
    return bits.flatten(0, 1)[:timesteps].to(dtype)
