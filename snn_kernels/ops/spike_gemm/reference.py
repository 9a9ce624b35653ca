"""The definition of the products of spikes with weights: unpack, then PyTorch's own linear map or convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...autocast import without_autocast, without_tf32
from ..packing.reference import unpack_reference
from .synapses import Synapses

__all__ = ["convolution_reference", "linear_reference"]


def _spikes(bytes: Tensor, timesteps: int, amplitude: Tensor | None) -> Tensor:
    spikes = unpack_reference(bytes, timesteps, torch.float32)
    return spikes if amplitude is None else spikes * amplitude


@without_autocast()
def linear_reference(bytes: Tensor, timesteps: int, synapses: Synapses, amplitude: Tensor | None) -> Tensor:
    """``current[t, ..., n] = bias[n] + sum_k weight[n, k] * amplitude[k] * spike[t, ..., k]``, or with an amplitude for
    each row or each neuron, or with a scale of the sum."""
    weight, scale, bias = synapses.values(), *synapses.floats()
    spikes = _spikes(bytes, timesteps, amplitude)
    if scale is None:
        return F.linear(spikes, weight, bias)
    current = F.linear(spikes, weight).mul_(scale)
    return current if bias is None else current.add_(bias)


@without_autocast()
@without_tf32()
def convolution_reference(
    bytes: Tensor,
    timesteps: int,
    synapses: Synapses,
    amplitude: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A 2d convolution of every step's spikes, ``[T, B, C, H, W]`` to ``[T, B, N, H', W']``."""
    if amplitude is not None and amplitude.ndim == 1:
        amplitude = amplitude.reshape(-1, 1, 1)
    weight, scale, bias = synapses.values(), *synapses.floats()
    spikes = _spikes(bytes, timesteps, amplitude)
    added = bias if scale is None else None
    out = F.conv2d(spikes.flatten(0, 1), weight, added, stride, padding, dilation, groups)
    if scale is not None:
        out.mul_(scale.reshape(-1, 1, 1))
        out = out if bias is None else out.add_(bias.reshape(-1, 1, 1))
    return out.unflatten(0, spikes.shape[:2])
