"""Spike products on tensor cores, what their kernels in CUDA and Triton share: float16 weights, trains in aligned runs.

A byte of a train holds eight steps of an input. Widened to 16 bits and masked with ``1 << s`` it is, read as float16,
the subnormal ``spike * 2**(s - 24)``: tensor cores multiply it with a float16 weight without rounding and add in
float32, and the sum is multiplied by ``2**(24 - s)``, without rounding, at the end.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layout import Order
from .checks import TENSOR_CORE_BACKENDS, is_by_row
from .residual import Residual
from .rows import convolution_shape, offsets

__all__ = [
    "Neurons",
    "Product",
    "convolution",
    "convolution_signgd",
    "fuses",
    "halves",
    "linear",
    "linear_signgd",
]

# Each of TENSOR_CORE_BACKENDS has a module <backend>_launch with
#   tile_of(inputs, outputs, timesteps, fused): the sizes of a program's tile, BLOCK_N outputs and BLOCK_K inputs first
#   run(product, out): write out[T, rows, N], whose outputs lie side by side
#   run_signgd(product, neurons): write their train and state
#   FUSES_RESIDUAL: whether run_signgd takes a residual that is something


class Product(NamedTuple):
    """The operands of a product, outputs and inputs padded to whole blocks of the tile.

    Input ``k`` of row ``r`` is the byte at ``row_offsets[r] + block_offsets[k // BLOCK_K] + k % BLOCK_K`` of a group;
    where these are ``None``, at ``r * row_stride + k``.
    """

    bytes: Tensor  # [G, ...], runs of inputs from multiples of 16 bytes on
    rows: int
    row_offsets: Tensor | None
    row_stride: int
    block_offsets: Tensor | None
    parts: Tensor  # float16 [parts, N, K]
    multiplier: Tensor  # [N]
    bias: Tensor  # [N]
    tile: dict[str, int]


class Neurons(NamedTuple):
    """The neurons behind a product, row by row: neuron ``(row, n)`` is number ``row * outputs + n``.

    A field is one value for each output and a row stride of 0, or one for each neuron.
    """

    timesteps: int
    outputs: int
    activation: str
    eta: Tensor
    fields: list[tuple[Tensor, int]]  # offset, x, scale, two parameters, v
    residual: Residual
    train: Tensor
    x_out: Tensor
    v_out: Tensor


def launcher(backend: str) -> ModuleType:
    return importlib.import_module(f".{backend}_launch", __package__)


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
    padded = bytes.new_zeros((*bytes.shape[:-1], -(-channels // block) * block))
    padded[..., :channels] = bytes
    return padded


def product(
    bytes: Tensor,
    rows: int,
    row_offsets: Tensor | None,
    row_stride: int,
    block_offsets: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    tile: dict[str, int],
) -> Product:
    """``bytes[G, ...]`` in runs; ``weight[N, taps, C]``."""
    parts, multiplier = halves(weight, amplitude)
    outputs, channels = weight.shape[0], weight.shape[2]
    more = -outputs % tile["BLOCK_N"]
    parts = F.pad(parts, (0, -channels % tile["BLOCK_K"], 0, 0, 0, more)).flatten(2).contiguous()
    bias = multiplier.new_zeros(outputs) if bias is None else bias.float()
    padded = F.pad(multiplier, (0, more)), F.pad(bias, (0, more))
    return Product(bytes, rows, row_offsets, row_stride, block_offsets, parts, *padded, tile)


def linear_product(
    bytes: Tensor, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None, tile: dict[str, int]
) -> Product:
    rows = bytes.shape[1:-1].numel()
    runs = in_runs(bytes.reshape(bytes.shape[0], rows, bytes.shape[-1]), tile["BLOCK_K"])
    return product(runs, rows, None, runs.stride(1), None, weight.unsqueeze(1), bias, amplitude, tile)


def convolution_product(
    bytes: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
    tile: dict[str, int],
) -> Product:
    """A convolution without groups of ``[G, B, C, H, W]``: rows are output positions, taps are runs of channels."""
    stride, padding, dilation = geometry
    size = convolution_shape(bytes.shape[-2:], weight.shape[-2:], *geometry)
    if any(padding):
        bytes = F.pad(bytes, (padding[1], padding[1], padding[0], padding[0]))
    block = tile["BLOCK_K"]
    runs = in_runs(bytes.permute(0, 1, 3, 4, 2), block)
    _, batch, row, column, _ = runs.stride()
    row_offsets = offsets((runs.shape[1], *size), (batch, row * stride[0], column * stride[1]), bytes.device)
    tap_shape = (*weight.shape[-2:], runs.shape[-1] // block)
    block_offsets = offsets(tap_shape, (row * dilation[0], column * dilation[1], block), bytes.device)
    taps = weight.flatten(2).transpose(1, 2)
    return product(runs, len(row_offsets), row_offsets, 0, block_offsets, taps, bias, amplitude, tile)


def neurons_of(
    timesteps: int, residual: Residual, neuron: Sequence, order: Order, outputs: tuple[Tensor, Tensor, Tensor]
) -> Neurons:
    """``neuron`` is what the ops' schemas have of it; ``order`` has the features last."""
    eta, offset, x, scale, parameters, v, activation = neuron
    shape = outputs[2].shape

    def field(value: Tensor) -> tuple[Tensor, int]:
        ordered = value.float().expand(shape).permute(order)
        if all(stride == 0 or size == 1 for size, stride in zip(ordered.shape[:-1], ordered.stride())):
            return ordered.flatten(0, -2)[0].contiguous() if ordered.ndim > 1 else ordered.contiguous(), 0
        return ordered.contiguous(), ordered.shape[-1]

    padded = [*parameters, *[scale] * (2 - len(parameters))]
    fields = [field(value) for value in (offset, x, scale, *padded, v)]
    return Neurons(timesteps, shape[order[-1]], activation, eta.contiguous(), fields, residual, *outputs)


def linear(
    backend: str, bytes: Tensor, timesteps: int, weight: Tensor, bias: Tensor | None, amplitude: Tensor | None
) -> Tensor:
    if is_by_row(amplitude):
        current = linear(backend, bytes, timesteps, weight, None, None).mul_(amplitude)
        return current if bias is None else current.add_(bias)
    out = bytes.new_empty((timesteps, *bytes.shape[1:-1], weight.shape[0]), dtype=torch.float32)
    if out.numel():
        launch = launcher(backend)
        tile = launch.tile_of(weight.shape[1], weight.shape[0], timesteps, fused=False)
        launch.run(linear_product(bytes, weight, bias, amplitude, tile), out.view(timesteps, -1, weight.shape[0]))
    return out


def linear_signgd(backend: str, bytes, timesteps, weight, bias, amplitude, *fused) -> None:
    """``fused`` is what :func:`neurons_of` takes behind the timesteps."""
    launch = launcher(backend)
    tile = launch.tile_of(weight.shape[1], weight.shape[0], timesteps, fused=True)
    launch.run_signgd(linear_product(bytes, weight, bias, amplitude, tile), neurons_of(timesteps, *fused))


def convolution(
    backend: str,
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
    launch = launcher(backend)
    tile = launch.tile_of(inputs, outputs, timesteps, fused=False)
    for group in range(groups):
        channels = slice(group * inputs, (group + 1) * inputs)
        members = slice(group * outputs, (group + 1) * outputs)
        part = convolution_product(
            bytes[:, :, channels],
            weight[members],
            None if bias is None else bias[members],
            None if amplitude is None else amplitude[channels],
            geometry,
            tile,
        )
        launch.run(part, rows[:, :, members])


def convolution_signgd(backend: str, bytes, timesteps, weight, bias, amplitude, geometry, *fused) -> None:
    launch = launcher(backend)
    tile = launch.tile_of(weight.shape[1], weight.shape[0], timesteps, fused=True)
    product = convolution_product(bytes, weight, bias, amplitude, geometry, tile)
    launch.run_signgd(product, neurons_of(timesteps, *fused))


def fuses(backend: str, residual: Residual) -> bool:
    """Whether a fused product on this backend is on tensor cores and takes the residual along."""
    return backend in TENSOR_CORE_BACKENDS and (residual.value is None or launcher(backend).FUSES_RESIDUAL)
