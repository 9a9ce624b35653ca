"""Where the rows and inputs of a spike product lie in the bytes of a train.

A linear map and a convolution differ only in that: row ``r``'s input ``k`` is the byte at ``row[r] + input[k]`` of a
byte group. For a convolution a row is an output position and an input is a tap of its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Rows", "convolution_rows", "convolution_shape", "linear_rows", "offsets", "sample_argument"]


def sample_argument(values: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """``SampleCurrentArgument`` of csrc/bindings.cpp for ``[T, B, *rows, N]``, and the offsets that it points to."""
    rows = offsets(values.shape[2:-1], values.stride()[2:-1])
    return (values.data_ptr(), *values.stride()[:2], rows.data_ptr(), values.stride(-1)), rows


class Rows(NamedTuple):
    """Byte offsets (int64) of rows and inputs from the start of each byte group, and the bytes they count in."""

    bytes: Tensor
    row: Tensor
    input: Tensor


def offsets(shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """The offset of every element of a strided array, in the order of its indices."""
    total = torch.zeros((), dtype=torch.int64)
    for size, stride in zip(shape, strides):
        total = total.unsqueeze(-1) + torch.arange(size) * stride
    return total.reshape(-1)


def linear_rows(bytes: Tensor) -> Rows:
    """Rows of ``[G, *batch, K]``: one for each index into ``batch``."""
    return Rows(bytes, offsets(bytes.shape[1:-1], bytes.stride()[1:-1]), offsets(bytes.shape[-1:], bytes.stride()[-1:]))


def convolution_shape(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Output positions along each spatial dimension."""
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation)
    )


def convolution_rows(
    bytes: Tensor,
    channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Rows:
    """Rows of ``[G, B, C, H, W]``, one for each ``(b, y, x)`` of the output; inputs are ``(c, ky, kx)`` of the first
    ``channels`` channels, those of a group.

    Padding is silence: zero bytes around a copy of the train, which is 32 times smaller than its currents.
    """
    out = convolution_shape(bytes.shape[-2:], kernel, stride, padding, dilation)
    if any(padding):
        bytes = F.pad(bytes, (padding[1], padding[1], padding[0], padding[0]))
    _, batch, channel, row, column = bytes.stride()
    rows = offsets((bytes.shape[1], *out), (batch, row * stride[0], column * stride[1]))
    inputs = offsets((channels, *kernel), (channel, row * dilation[0], column * dilation[1]))
    return Rows(bytes, rows, inputs)
