"""Spike products on the CPU where each neuron has an amplitude of its own: what ``snn_kernels._C`` takes for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...backends import C
from .cpu import Arguments
from .rows import convolution_shape, offsets, sample_argument
from .synapses import Synapses

__all__ = ["scaled_convolution", "scaled_linear", "write_currents"]


def scaled_linear(bytes: Tensor, timesteps: int, synapses: Synapses, amplitude: Tensor) -> Arguments:
    """The arguments of ``scaled_gemm_problem`` in csrc/bindings.cpp for a linear map of ``[G, B, *rest, K]`` with
    ``amplitude[1, *rest, K]``, and the tensors whose addresses they hold."""
    _, _, *rest, inputs = bytes.shape
    positions = offsets(rest, bytes.stride()[2:-1])
    row_position = torch.arange(len(positions))
    worth = amplitude.reshape(len(positions), inputs)
    return _arguments(bytes, timesteps, positions, bytes.stride(-1), row_position, synapses, worth)


def scaled_convolution(
    bytes: Tensor,
    timesteps: int,
    synapses: Synapses,
    amplitude: Tensor,
    geometry: Sequence[Sequence[int]],
) -> Arguments:
    """The same for a convolution without groups of ``[G, B, C, H, W]`` with ``amplitude[1, C, H, W]``."""
    size = bytes.shape[-2:]
    positions = offsets(size, bytes.stride()[-2:])
    worth = amplitude[0].flatten(1).t()
    return _arguments(
        *(bytes, timesteps, positions, bytes.stride(2)),
        *(window_positions(size, synapses.weight.shape[-2:], *geometry), synapses, worth),
    )


def window_positions(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """``[rows, taps]``: the input position that each tap of each window sees, -1 in the padding."""
    numbers = F.pad(torch.arange(size[0] * size[1]).reshape(*size), (padding[1],) * 2 + (padding[0],) * 2, value=-1)
    windows = convolution_shape(size, kernel, stride, padding, dilation)
    row, column = numbers.stride()
    steps = (row * stride[0], column * stride[1], row * dilation[0], column * dilation[1])
    return numbers.as_strided((*windows, *kernel), steps).flatten(2).flatten(0, 1).contiguous()


def _arguments(
    bytes: Tensor,
    timesteps: int,
    positions: Tensor,
    channel_stride: int,
    row_position: Tensor,
    synapses: Synapses,
    amplitude: Tensor,
) -> Arguments:
    weight, amplitude = synapses.dequantized().float().contiguous(), amplitude.contiguous()
    _, bias = synapses.floats()
    rows, channels = len(row_position), amplitude.shape[1]
    taps = row_position.numel() // max(rows, 1)
    arguments = (
        (timesteps, bytes.shape[1], len(positions), channels, rows, taps, len(weight)),
        (bytes.data_ptr(), bytes.stride(0), bytes.stride(1), positions.data_ptr(), channel_stride),
        (row_position.data_ptr(), weight.data_ptr(), amplitude.data_ptr(), 0 if bias is None else bias.data_ptr()),
    )
    return arguments, (bytes, positions, row_position, weight, amplitude, bias)


def write_currents(product: Arguments, out: Tensor) -> None:
    """Write ``out[T, B, *, N]``, whose features and rows may lie anywhere."""
    arguments, _alive = product
    current, _alive_too = sample_argument(out)
    C.scaled_gemm_cpu(arguments, current, torch.get_num_threads())
