"""Spike products in Triton: float16 weights, trains in aligned runs, and the launches."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from ...layout import Order
from ...triton_activations import TRITON_ACTIVATIONS
from .rows import convolution_shape, offsets
from .triton_kernel import product_kernel, product_signgd_kernel

__all__ = [
    "blocks_of",
    "convolution_signgd_triton",
    "convolution_triton",
    "halves",
    "linear_signgd_triton",
    "linear_triton",
]


# Outputs of a tile, at most; see blocks_of.
MOST_OUTPUTS = 32
MOST_FUSED_OUTPUTS = 16
OPTIONS = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False}


class Product(NamedTuple):
    """What both kernels take: the arguments before the bias, the padded bias, and the sizes of rows and inputs."""

    arguments: tuple
    bias: Tensor
    rows: int
    inputs: int
    constants: dict[str, int]


def blocks_of(inputs: int, outputs: int, timesteps: int, most_outputs: int) -> dict[str, int]:
    """The tile of a program of 128 threads.

    With 32 outputs half of a thread's registers are sums; the fused kernel, which keeps the neurons beside them, has
    16. Both walk the inputs in the same blocks, so they add in the same order.
    """
    return {
        "STEPS": 8 if timesteps > 4 else 4,
        "BLOCK_M": 64,
        "BLOCK_N": min(most_outputs, max(16, triton.next_power_of_2(outputs))),
        "BLOCK_K": 32 if inputs > 16 else 16,
    }


def power_of_two(exponent: Tensor) -> Tensor:
    """``2**exponent`` from its bits: exact on every device."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def is_uniform(amplitude: Tensor | None) -> bool:
    return amplitude is None or amplitude.numel() == 1 or amplitude.stride(0) == 0


def halves(weight: Tensor, amplitude: Tensor | None) -> tuple[Tensor, Tensor]:
    """``weight[N, taps, C]`` as float16 ``[parts, N, taps, C]`` and a float32 multiplier ``[N]``.

    ``multiplier[n] * parts.sum(0)[n]`` is ``weight[n] * amplitude`` up to

    - nothing for float16 weights without amplitude;
    - ``2**-39 max|weight[n]|`` for bfloat16 ones: nothing for those above ``2**-31`` of the output's largest;
    - ``2**-23 |weight[n, k]| + 2**-39 max|weight[n]|`` for float32 ones, in two parts.

    The multiplier is a power of two, which brings the largest weight of an output to ``[2**14, 2**15)``, times the
    amplitude where that is the same for all inputs. An amplitude for each input is multiplied in as float32.
    """
    value = weight.float()
    if not is_uniform(amplitude):
        value = value * amplitude
    parts = 2 if weight.dtype == torch.float32 or not is_uniform(amplitude) else 1
    largest = value.new_zeros(len(value))
    if value.numel():
        largest = torch.where(value.isfinite(), value.abs(), 0.0).flatten(1).amax(1)
    # float16 weights as they are fit as they are: scaled down, the smallest would not.
    lowest = 0 if weight.dtype == torch.float16 and parts == 1 else -126
    exponent = (15 - torch.frexp(largest).exponent).clamp(lowest, 126)
    scaled = value * power_of_two(exponent).reshape(-1, 1, 1)
    high = scaled.half()
    multiplier = power_of_two(-exponent)
    if amplitude is not None and is_uniform(amplitude) and amplitude.numel():
        multiplier = multiplier * amplitude[0]
    if parts == 1:
        return high.unsqueeze(0), multiplier
    low = torch.where(high.isfinite(), scaled - high.float(), 0.0).half()
    return torch.stack((high, low)), multiplier


def in_runs(bytes: Tensor, block: int) -> Tensor:
    """``[G, ..., C]`` with every run of ``C`` bytes dense, from a multiple of 16 bytes on and of whole blocks.

    A train that is not is copied, zeros behind it.
    """
    channels = bytes.shape[-1]
    strides = (*bytes.stride()[:-1], bytes.data_ptr())
    if channels % block == 0 and bytes.stride(-1) == 1 and all(stride % 16 == 0 for stride in strides):
        return bytes
    padded = bytes.new_zeros((*bytes.shape[:-1], triton.cdiv(channels, block) * block))
    padded[..., :channels] = bytes
    return padded


def product(
    bytes: Tensor,
    rows: int,
    row_offsets: Tensor | None,
    row_stride: int,
    tap_offsets: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    blocks: dict[str, int],
) -> Product:
    """``bytes[G, ...]`` in runs; ``weight[N, taps, C]``."""
    parts, multiplier = halves(weight, amplitude)
    outputs, channels = weight.shape[0], weight.shape[2]
    more = -outputs % blocks["BLOCK_N"]
    parts = F.pad(parts, (0, -channels % blocks["BLOCK_K"], 0, 0, 0, more)).flatten(2).contiguous()
    bias = multiplier.new_zeros(outputs) if bias is None else bias.float()
    arguments = (bytes, bytes.stride(0), row_offsets, row_stride, tap_offsets, parts, parts.stride(0))
    return Product(
        (*arguments, F.pad(multiplier, (0, more))),
        F.pad(bias, (0, more)),
        rows,
        parts.shape[2],
        {**blocks, "PARTS": len(parts), **OPTIONS},
    )


def linear_product(
    bytes: Tensor, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None, most_outputs: int
) -> Product:
    blocks = blocks_of(weight.shape[1], weight.shape[0], timesteps, most_outputs)
    rows = bytes.shape[1:-1].numel()
    runs = in_runs(bytes.reshape(bytes.shape[0], rows, bytes.shape[-1]), blocks["BLOCK_K"])
    return product(runs, rows, None, runs.stride(1), None, weight.unsqueeze(1), bias, amplitude, blocks)


def convolution_product(
    bytes: Tensor,
    timesteps: int,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
    most_outputs: int,
) -> Product:
    """A convolution without groups of ``[G, B, C, H, W]``: rows are output positions, taps are runs of channels."""
    stride, padding, dilation = geometry
    size = convolution_shape(bytes.shape[-2:], weight.shape[-2:], *geometry)
    blocks = blocks_of(weight.shape[1], weight.shape[0], timesteps, most_outputs)
    if any(padding):
        bytes = F.pad(bytes, (padding[1], padding[1], padding[0], padding[0]))
    runs = in_runs(bytes.permute(0, 1, 3, 4, 2), blocks["BLOCK_K"])
    _, batch, row, column, _ = runs.stride()
    shape = (runs.shape[1], *size)
    row_offsets = offsets(shape, (batch, row * stride[0], column * stride[1]), bytes.device)
    block = blocks["BLOCK_K"]
    tap_shape = (*weight.shape[-2:], runs.shape[-1] // block)
    tap_offsets = offsets(tap_shape, (row * dilation[0], column * dilation[1], block), bytes.device)
    taps = weight.flatten(2).transpose(1, 2)
    return product(runs, len(row_offsets), row_offsets, 0, tap_offsets, taps, bias, amplitude, blocks)


def on_device(tensor: Tensor):
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def check_row(elements: int, blocks: dict[str, int]) -> None:
    """Offsets inside a tile of outputs have 32 bits."""
    if elements * blocks["BLOCK_M"] >= 2**31:
        raise ValueError(f"weight: the triton backend takes up to 2**25 - 1 outputs, got {elements}")


def run_product(product: Product, out: Tensor) -> None:
    """Write ``out[T, rows, N]``, whose outputs lie side by side."""
    timesteps, rows, outputs = out.shape
    blocks = product.constants
    check_row(out.stride(1), blocks)
    tiles = triton.cdiv(rows, blocks["BLOCK_M"]) * triton.cdiv(outputs, blocks["BLOCK_N"])
    with on_device(out):
        product_kernel[(tiles, triton.cdiv(timesteps, 8))](
            *product.arguments,
            product.bias,
            out,
            out.stride(0),
            out.stride(1),
            timesteps,
            rows,
            outputs,
            product.inputs,
            **blocks,
        )


def field_of(value: Tensor, shape: Sequence[int], order: Order) -> tuple[Tensor, int]:
    """A field of the neurons as one value for each output (0 from row to row) or one for each neuron."""
    ordered = value.float().expand(shape).permute(order)
    if all(stride == 0 or size == 1 for size, stride in zip(ordered.shape[:-1], ordered.stride())):
        return ordered.flatten(0, -2)[0].contiguous() if ordered.ndim > 1 else ordered.contiguous(), 0
    return ordered.contiguous(), shape[order[-1]]


def run_product_signgd(
    product: Product, timesteps: int, neuron: Sequence, order: Order, outputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Write the train and the state, whose neurons lie row by row in ``order``."""
    eta, offset, x, scale, parameters, v, activation = neuron
    train, x_out, v_out = outputs
    padded = [*parameters, *[scale] * (2 - len(parameters))]
    fields = [field_of(field, v_out.shape, order) for field in (offset, x, scale, *padded, v)]
    columns = v_out.shape[order[-1]]
    blocks = product.constants
    check_row(columns, blocks)
    tiles = triton.cdiv(product.rows, blocks["BLOCK_M"]) * triton.cdiv(columns, blocks["BLOCK_N"])
    with on_device(v_out):
        product_signgd_kernel[(tiles,)](
            *product.arguments,
            product.bias,
            *(value for field in fields for value in field),
            eta.contiguous(),
            train,
            x_out,
            v_out,
            timesteps,
            product.rows,
            columns,
            product.inputs,
            H=TRITON_ACTIVATIONS[activation].function,
            **blocks,
        )


def linear_triton(
    bytes: Tensor, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None
) -> Tensor:
    out = bytes.new_empty((timesteps, *bytes.shape[1:-1], weight.shape[0]), dtype=torch.float32)
    if out.numel():
        flat = out.view(timesteps, -1, weight.shape[0])
        run_product(linear_product(bytes, timesteps, weight, bias, amplitude, MOST_OUTPUTS), flat)
    return out


def linear_signgd_triton(bytes, timesteps, weight, bias, amplitude, neuron, order, outputs) -> None:
    product = linear_product(bytes, timesteps, weight, bias, amplitude, MOST_FUSED_OUTPUTS)
    run_product_signgd(product, timesteps, neuron, order, outputs)


def convolution_triton(
    bytes: Tensor,
    timesteps: int,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
    groups: int,
    out: Tensor,
) -> None:
    """Write ``out[T, B, N, H', W']``, channels last; a group of channels is a launch of its own."""
    if not out.numel():
        return
    rows = out.permute(0, 1, 3, 4, 2).flatten(1, 3)
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    for group in range(groups):
        channels = slice(group * inputs, (group + 1) * inputs)
        members = slice(group * outputs, (group + 1) * outputs)
        part = convolution_product(
            bytes[:, :, channels],
            timesteps,
            weight[members],
            None if bias is None else bias[members],
            None if amplitude is None else amplitude[channels],
            geometry,
            MOST_OUTPUTS,
        )
        run_product(part, rows[:, :, members])


def convolution_signgd_triton(bytes, timesteps, weight, bias, amplitude, geometry, neuron, order, outputs) -> None:
    product = convolution_product(bytes, timesteps, weight, bias, amplitude, geometry, MOST_FUSED_OUTPUTS)
    run_product_signgd(product, timesteps, neuron, order, outputs)
