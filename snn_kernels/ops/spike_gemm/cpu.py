"""Spike products on the CPU: what ``snn_kernels._C`` takes for them, and which method suits a train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends import C
from ...spike_train import SpikeTrain
from .rows import Rows, convolution_rows, convolution_shape, linear_rows

__all__ = ["convolution_cpu", "linear_cpu", "product_arguments", "resolve_method"]

# Below this share of ones the event method is taken; `python -m bench --experiment density` shows the crossover.
EVENT_DENSITY = 0.1
# With fewer outputs a window the index bytes cost more than the sums they look up.
FEWEST_DENSE_OUTPUTS = 8


def resolve_method(method: str, bytes: Tensor, timesteps: int, outputs: int) -> str:
    """``auto`` as a named method: by the density of the train, the outputs a group has and the instruction set."""
    if method != "auto":
        return method
    if SpikeTrain(bytes, timesteps).firing_rate() < EVENT_DENSITY:
        return "event"
    return "dense" if C.isa == "avx512" and outputs >= FEWEST_DENSE_OUTPUTS else "unpack"


def product_arguments(
    rows: Rows, timesteps: int, weight: Tensor, bias: Tensor | None
) -> tuple[tuple, tuple[Tensor, ...]]:
    """The arguments of ``spike_gemm_problem`` in csrc/bindings.cpp, and the tensors whose addresses they hold.

    ``weight`` is a contiguous float32 ``[N, K]``.
    """
    arguments = (
        timesteps,
        rows.row.numel(),
        rows.input.numel(),
        weight.shape[0],
        rows.bytes.data_ptr(),
        rows.bytes.stride(0),
        rows.row.data_ptr(),
        rows.input.data_ptr(),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
    )
    return arguments, (*rows, weight, *([] if bias is None else [bias]))


def folded(weight: Tensor, amplitude: Tensor | None) -> Tensor:
    """``weight[N, C, ...]`` in float32 with each input channel's amplitude multiplied in, contiguous."""
    weight = weight.float()
    if amplitude is not None:
        weight = weight * amplitude.reshape(-1, *[1] * (weight.ndim - 2))
    return weight.contiguous()


def _product(
    rows: Rows,
    timesteps: int,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    row_out: Tensor,
    output_stride: int,
    method: str,
) -> None:
    bias = None if bias is None else bias.float().contiguous()
    arguments, _alive = product_arguments(rows, timesteps, weight, bias)
    by_input = weight.t().contiguous() if method == "event" else None
    current = (out.data_ptr(), out.stride(0), row_out.data_ptr(), output_stride)
    C.spike_gemm_cpu(arguments, current, 0 if by_input is None else by_input.data_ptr(), torch.get_num_threads())


def linear_cpu(
    bytes: Tensor, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None, method: str
) -> Tensor:
    out = torch.empty((timesteps, *bytes.shape[1:-1], weight.shape[0]))
    if out.numel():
        rows = linear_rows(bytes)
        row_out = torch.arange(rows.row.numel()) * weight.shape[0]
        _product(rows, timesteps, folded(weight, amplitude), bias, out, row_out, 1, method)
    return out


def convolution_cpu(
    bytes: Tensor,
    timesteps: int,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    method: str,
) -> Tensor:
    size = convolution_shape(bytes.shape[-2:], weight.shape[-2:], stride, padding, dilation)
    out = torch.empty((timesteps, bytes.shape[1], weight.shape[0], *size))
    if not out.numel():
        return out
    area = size[0] * size[1]
    row_out = (torch.arange(out.shape[1]).unsqueeze(1) * out.stride(1) + torch.arange(area)).reshape(-1)
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    for group in range(groups):
        channels = slice(group * inputs, (group + 1) * inputs)
        members = slice(group * outputs, (group + 1) * outputs)
        rows = convolution_rows(bytes, channels, weight.shape[-2:], stride, padding, dilation)
        part = folded(weight[members], None if amplitude is None else amplitude[channels]).flatten(1)
        group_bias = None if bias is None else bias[members]
        _product(rows, timesteps, part, group_bias, out[:, :, members], row_out, area, method)
    return out
