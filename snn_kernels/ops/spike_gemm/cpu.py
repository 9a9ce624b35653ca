"""Spike products on the CPU: what ``snn_kernels._C`` takes for them, and which method suits a train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends import C
from .rows import Rows, convolution_rows, convolution_shape, linear_rows

__all__ = ["convolution_cpu", "linear_cpu", "product_arguments", "resolve_method"]

# Below this share of ones the event method is the fastest, by instruction set: `python -m bench --experiment density`.
EVENT_DENSITY = {"avx512": 0.1, "avx2": 0.2, "portable": 0.05}
# With fewer outputs a window the index words cost more than the sums they look up.
FEWEST_DENSE_OUTPUTS = 8
# With fewer rows PyTorch's product is done before the packed ones have prepared the weights.
FEWEST_ROWS = 8


def resolve_method(method: str, bytes: Tensor, timesteps: int, rows: int, outputs: int) -> str:
    """``auto`` as a named method: by the sizes, the density of the train and the instruction set."""
    if method != "auto":
        return method
    if rows < FEWEST_ROWS:
        return "unpack"
    if _count(bytes) < EVENT_DENSITY[C.isa] * timesteps * bytes.shape[1:].numel():
        return "event"
    return "dense" if C.isa != "portable" and outputs >= FEWEST_DENSE_OUTPUTS else "unpack"


def _count(bytes: Tensor) -> int:
    bytes = bytes.contiguous()
    return C.count_cpu(bytes.data_ptr(), bytes.numel())


def product_arguments(
    rows: Rows, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None
) -> tuple[tuple, tuple[Tensor | None, ...]]:
    """The arguments of ``spike_gemm_problem`` in csrc/bindings.cpp, and the tensors whose addresses they hold.

    ``weight`` is ``[N, C, ...]``; ``amplitude`` is ``[C]``, one for the inputs of a channel.
    """
    weight = weight.float().flatten(1).contiguous()
    bias = None if bias is None else bias.float().contiguous()
    if amplitude is not None:
        amplitude = amplitude.repeat_interleave(weight.shape[1] // max(amplitude.numel(), 1))
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
        0 if amplitude is None else amplitude.data_ptr(),
        0 if bias is None else bias.data_ptr(),
    )
    return arguments, (*rows, weight, bias, amplitude)


def _empty_currents(*shape: int) -> Tensor:
    out = torch.empty(shape)
    C.prefer_huge_pages(out.data_ptr(), out.nbytes)
    return out


def _product(product: tuple, out: Tensor, row_out: Tensor, output_stride: int, method: str) -> None:
    arguments, _alive = product
    current = (out.data_ptr(), out.stride(0), row_out.data_ptr(), output_stride)
    C.spike_gemm_cpu(method, arguments, current, torch.get_num_threads())


def linear_cpu(
    bytes: Tensor, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None, method: str
) -> Tensor:
    out = _empty_currents(timesteps, *bytes.shape[1:-1], weight.shape[0])
    if out.numel():
        rows = linear_rows(bytes)
        row_out = torch.arange(rows.row.numel()) * weight.shape[0]
        _product(product_arguments(rows, timesteps, weight, bias, amplitude), out, row_out, 1, method)
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
    out = _empty_currents(timesteps, bytes.shape[1], weight.shape[0], *size)
    if not out.numel():
        return out
    area = size[0] * size[1]
    row_out = (torch.arange(out.shape[1]).unsqueeze(1) * out.stride(1) + torch.arange(area)).reshape(-1)
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    for group in range(groups):
        channels = slice(group * inputs, (group + 1) * inputs)
        members = slice(group * outputs, (group + 1) * outputs)
        rows = convolution_rows(bytes, channels, weight.shape[-2:], stride, padding, dilation)
        part = (values if values is None else values[members] for values in (weight, bias))
        group_amplitude = None if amplitude is None else amplitude[channels]
        product = product_arguments(rows, timesteps, *part, group_amplitude)
        _product(product, out[:, :, members], row_out, area, method)
    return out
