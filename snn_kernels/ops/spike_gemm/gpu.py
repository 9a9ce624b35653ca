"""Spike products on a GPU, what their kernels in CUDA and Triton share: prepared weights, trains in aligned runs.

Dense, on tensor cores: a byte of a train holds eight steps of an input. Widened to 16 bits, moved and masked so that a
step's bit is one of a float16 number's exponent, it is a power of two where there is a spike: tensor cores multiply it
with a float16 weight without rounding and add in float32, and the power is undone, without rounding, at the end. (Left
at its place the bit would be a subnormal number, which tensor cores multiply as well, but add less precisely.)

Event-driven: a row's bytes that are not silent add float32 weights, input after input.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ...layout import Order
from .checks import is_by_row
from .gpu_weights import Weights, dense_weights, event_weights, in_sections
from .residual import Residual
from .rows import convolution_shape
from .synapses import Synapses

__all__ = [
    "Neurons",
    "Product",
    "Windows",
    "convolution",
    "convolution_signgd",
    "launcher",
    "linear",
    "linear_signgd",
]

# Each of GPU_BACKENDS has a module <backend>_launch with
#   tile_of(outputs, timesteps, fused, residual): the sizes of a program's tile, BLOCK_N outputs, BLOCK_K inputs first
#   event_tile_of(outputs): the same, of the event method
#   prepare(weight, amplitude, bias, tap_inputs, lowest, weights): write the Weights of weight[N, C, taps], taps padded
#       to tap_inputs, brought to size by powers of two with exponents from `lowest` on
#   run(product, out): write out[T, rows, N], whose outputs lie side by side
#   run_events(product, out): the same, of event_weights
#   run_signgd(product, neurons): write their train and state


class Windows(NamedTuple):
    """Where the inputs of a row lie in a byte group: ``Windows`` of csrc/cuda/spike_gemm.h, with distances in bytes.

    A row is an output position (y, x) of a sample; its inputs are the taps of a window, row by row, each a run of
    channels in whole blocks of the tile. Of a linear map a sample has one position and a window one tap. The channels
    lie in sections, of so many each: see :func:`in_sections`.
    """

    height: int
    width: int
    sample_stride: int
    y_stride: int
    x_stride: int
    kernel_width: int
    tap_y_stride: int
    tap_x_stride: int
    taps: int
    tap_blocks: int
    section_outputs: int  # outputs that see the same channels


class Product(NamedTuple):
    """The operands of a product."""

    bytes: Tensor  # [G, ...], runs of inputs from multiples of 16 bytes on
    rows: int
    windows: Windows
    weights: Weights
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


class Way(NamedTuple):
    """How a product is taken: by which kernels, and in which blocks."""

    launch: ModuleType
    method: str
    tile: dict[str, int]

    @staticmethod
    def of(backend: str, method: str, outputs: int, timesteps: int, fused: bool = False, residual: bool = False) -> Way:
        """``method`` is ``event`` or else dense; ``residual``: a fused one adds one."""
        launch = launcher(backend)
        if method == "event":
            return Way(launch, method, launch.event_tile_of(outputs))
        return Way(launch, "dense", launch.tile_of(outputs, timesteps, fused, residual))

    def run(self, product: Product, out: Tensor) -> None:
        (self.launch.run_events if self.method == "event" else self.launch.run)(product, out)

    def weights(self, synapses: Synapses, amplitude: Tensor | None) -> Weights:
        """The operands that are made of weights ``[N, C]`` or ``[N, C, kh, kw]``."""
        synapses = synapses._replace(weight=synapses.weight.unsqueeze(-1).flatten(2))
        if self.method == "event":
            return event_weights(synapses, amplitude)
        return dense_weights(synapses, amplitude, self.tile, self.launch.prepare)


def in_runs(bytes: Tensor, block: int, padding: Sequence[int] = ()) -> Tensor:
    """``[G, ..., C]`` with every run of ``C`` bytes dense, from a multiple of 16 bytes on and of whole blocks, and
    ``padding`` of silence around each of the dimensions before the last.

    A train that is not is copied, zeros around it.
    """
    channels = bytes.shape[-1]
    strides = (*bytes.stride()[:-1], bytes.data_ptr())
    dense = channels % block == 0 and bytes.stride(-1) == 1 and all(stride % 16 == 0 for stride in strides)
    if dense and not any(padding):
        return bytes
    first = bytes.ndim - 1 - len(padding)
    size = [n + 2 * p for n, p in zip(bytes.shape[first:-1], padding)]
    padded = bytes.new_zeros((*bytes.shape[:first], *size, -(-channels // block) * block))
    inner = padded[..., :channels]
    for i, (n, p) in enumerate(zip(bytes.shape[first:-1], padding)):
        inner = inner.narrow(first + i, p, n)
    inner.copy_(bytes)
    return padded


def linear_product(way: Way, bytes: Tensor, synapses: Synapses, amplitude: Tensor | None) -> Product:
    rows, block = bytes.shape[1:-1].numel(), way.tile["BLOCK_K"]
    runs = in_runs(bytes.reshape(bytes.shape[0], rows, bytes.shape[-1]), block)
    windows = Windows(1, 1, runs.stride(1), 0, 0, 1, 0, 0, 1, runs.shape[-1] // block, synapses.outputs)
    return Product(runs, rows, windows, way.weights(synapses, amplitude), way.tile)


def convolution_product(
    way: Way,
    bytes: Tensor,
    synapses: Synapses,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
    groups: int,
) -> Product:
    """A convolution of ``[G, B, C, H, W]``: rows are output positions, taps are runs of channels."""
    stride, padding, dilation = geometry
    kernel = synapses.weight.shape[-2:]
    height, width = convolution_shape(bytes.shape[-2:], kernel, *geometry)
    synapses, amplitude, section_outputs = in_sections(synapses, amplitude, groups, way.tile)
    tap_blocks = -(-synapses.weight.shape[1] // way.tile["BLOCK_K"])
    runs = in_runs(bytes.permute(0, 1, 3, 4, 2), tap_blocks * way.tile["BLOCK_K"], padding)
    _, sample, row, column, _ = runs.stride()
    windows = Windows(
        *(height, width, sample, row * stride[0], column * stride[1]),
        *(kernel[1], row * dilation[0], column * dilation[1]),
        *(kernel.numel(), tap_blocks, section_outputs),
    )
    return Product(runs, bytes.shape[1] * height * width, windows, way.weights(synapses, amplitude), way.tile)


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
    values = (offset, x, scale, *padded, v)
    different = {id(value): value for value in values}
    fields = {key: field(value) for key, value in different.items() if value.numel() != 1}
    single = {key: value.float().reshape(()) for key, value in different.items() if value.numel() == 1}
    if single:  # two launches for all of them
        repeated = torch.stack(list(single.values()))[:, None].expand(-1, shape[order[-1]]).contiguous()
        fields |= {key: (row, 0) for key, row in zip(single, repeated)}
    fields = [fields[id(value)] for value in values]
    return Neurons(timesteps, shape[order[-1]], activation, eta.contiguous(), fields, residual, *outputs)


def linear(
    backend: str,
    method: str,
    bytes: Tensor,
    timesteps: int,
    synapses: Synapses,
    amplitude: Tensor | None,
) -> Tensor:
    if is_by_row(amplitude):
        current = linear(backend, method, bytes, timesteps, synapses._replace(bias=None), None).mul_(amplitude)
        return current if synapses.bias is None else current.add_(synapses.bias)
    outputs = synapses.outputs
    out = bytes.new_empty((timesteps, *bytes.shape[1:-1], outputs), dtype=torch.float32)
    if out.numel():
        way = Way.of(backend, method, outputs, timesteps)
        way.run(linear_product(way, bytes, synapses, amplitude), out.view(timesteps, -1, outputs))
    return out


def linear_signgd(backend: str, bytes, timesteps, synapses, amplitude, residual: Residual, *fused) -> None:
    """``fused`` is what :func:`neurons_of` takes behind the residual."""
    way = Way.of(backend, "dense", synapses.outputs, timesteps, fused=True, residual=residual.value is not None)
    way.launch.run_signgd(linear_product(way, bytes, synapses, amplitude), neurons_of(timesteps, residual, *fused))


def convolution(
    backend: str,
    method: str,
    bytes: Tensor,
    timesteps: int,
    synapses: Synapses,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
    groups: int,
    out: Tensor,
) -> None:
    """Write ``out[T, B, N, H', W']``, channels last."""
    if out.numel():
        way = Way.of(backend, method, synapses.outputs // groups, timesteps)
        product = convolution_product(way, bytes, synapses, amplitude, geometry, groups)
        way.run(product, out.permute(0, 1, 3, 4, 2).flatten(1, 3))


def convolution_signgd(
    backend: str, bytes, timesteps, synapses, amplitude, geometry, groups, residual: Residual, *fused
) -> None:
    outputs = synapses.outputs // groups
    way = Way.of(backend, "dense", outputs, timesteps, fused=True, residual=residual.value is not None)
    product = convolution_product(way, bytes, synapses, amplitude, geometry, groups)
    way.launch.run_signgd(product, neurons_of(timesteps, residual, *fused))
