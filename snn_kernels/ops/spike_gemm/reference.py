"""The definition of the products of spikes with weights: unpack, then PyTorch's own linear map or convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..packing.reference import unpack_reference

__all__ = ["convolution_reference", "linear_reference"]


def _spikes(bytes: Tensor, timesteps: int, amplitude: Tensor | None) -> Tensor:
    spikes = unpack_reference(bytes, timesteps, torch.float32)
    return spikes if amplitude is None else spikes * amplitude


def linear_reference(
    bytes: Tensor, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None
) -> Tensor:
    """``current[t, ..., n] = bias[n] + sum_k weight[n, k] * amplitude[k] * spike[t, ..., k]``, or with an amplitude for
    each row or each neuron."""
    return F.linear(_spikes(bytes, timesteps, amplitude), weight.float(), None if bias is None else bias.float())


def convolution_reference(
    bytes: Tensor,
    timesteps: int,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A 2d convolution of every step's spikes, ``[T, B, C, H, W]`` to ``[T, B, N, H', W']``."""
    if amplitude is not None and amplitude.ndim == 1:
        amplitude = amplitude.reshape(-1, 1, 1)
    spikes = _spikes(bytes, timesteps, amplitude)
    bias = None if bias is None else bias.float()
    out = F.conv2d(spikes.flatten(0, 1), weight.float(), bias, stride, padding, dilation, groups)
    return out.unflatten(0, spikes.shape[:2])
