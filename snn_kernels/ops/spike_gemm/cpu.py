"""Spike products on the CPU: what ``snn_kernels._C`` takes for them, and which method suits a train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends import C
from .checks import is_by_row
from .rows import Rows, convolution_rows, convolution_shape, linear_rows
from .synapses import Synapses

__all__ = [
    "Arguments",
    "convolution_arguments",
    "convolution_cpu",
    "linear_arguments",
    "linear_cpu",
    "resolve_method",
    "takes_scaled",
]

Arguments = tuple[tuple, tuple[Tensor | None, ...]]  # of a product, and the tensors whose addresses they hold

# Below this share of ones the event method is the faster one, by instruction set: `python -m bench --experiment
# density`. It needs enough outputs (of a group) to be worth collecting the spikes for; the overlapping windows of a
# convolution share that work.
EVENT_DENSITY = {"amx int8": 0.02, "amx": 0.05, "avx512": 0.08, "avx2": 0.24, "portable": 0.05}
FEWEST_OUTPUTS, FEWEST_OF_WINDOWS = 128, 48
# With fewer rows PyTorch's product is done before the packed ones have prepared the weights.
FEWEST_ROWS = 8
# Steps of samples that share the tables of a neuron's own amplitudes, and outputs of which 16 are made at a time.
FEWEST_COLUMNS, FEWEST_SCALED_OUTPUTS = 16, 16


def resolve_method(method: str, bytes: Tensor, timesteps: int, rows: int, weight: Tensor, groups: int = 1) -> str:
    """``auto`` as a named method: by the sizes, the density of the train and the instruction set."""
    if method != "auto":
        return method
    if rows < FEWEST_ROWS:
        return "unpack"
    fewest = FEWEST_OF_WINDOWS if weight.shape[2:].numel() > 1 else FEWEST_OUTPUTS
    of_tiles = f"{C.isa} int8" if weight.dtype == torch.int8 else C.isa
    density = EVENT_DENSITY.get(of_tiles, EVENT_DENSITY[C.isa])
    if len(weight) // groups >= fewest and _density(bytes, timesteps) < density:
        return "event"
    return "unpack" if C.isa == "portable" else "dense"


def takes_scaled(amplitude: Tensor, timesteps: int, samples: int, outputs: int, groups: int = 1) -> bool:
    """Whether ``auto`` takes ``dense`` where each neuron has an amplitude of its own."""
    shared = len(amplitude) == 1 and timesteps * samples >= FEWEST_COLUMNS and outputs >= FEWEST_SCALED_OUTPUTS
    return shared and groups == 1 and C.isa != "portable"


def _density(bytes: Tensor, timesteps: int) -> float:
    bytes = bytes.contiguous()
    return C.count_cpu(bytes.data_ptr(), bytes.numel()) / max(timesteps * bytes.shape[1:].numel(), 1)


def product_arguments(
    rows: Rows, timesteps: int, synapses: Synapses, amplitude: Tensor | None, groups: int = 1
) -> Arguments:
    """The arguments of ``spike_gemm_problem`` in csrc/bindings.cpp, and the tensors whose addresses they hold.

    The weight is ``[N, C / groups, ...]``; ``amplitude`` is ``[C]``, one for the inputs of a channel, or one for each
    row. With groups the arguments are those of the first.
    """
    taps = synapses.weight.shape[2:].numel()
    weight = synapses.values() if synapses.scale is None else synapses.weight.contiguous()
    scale, bias = synapses.floats()
    of_row = None
    if is_by_row(amplitude):
        of_row, amplitude = amplitude.flatten().contiguous(), None
    if amplitude is not None:
        amplitude = amplitude.repeat_interleave(groups * weight[:1].numel() // max(amplitude.numel(), 1))
    arguments = (
        timesteps,
        rows.row.numel(),
        rows.input.numel(),
        taps,
        synapses.outputs // groups,
        rows.bytes.data_ptr(),
        rows.bytes.stride(0),
        rows.row.data_ptr(),
        rows.input.data_ptr(),
        weight.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        0 if amplitude is None else amplitude.data_ptr(),
        0 if of_row is None else of_row.data_ptr(),
        0 if bias is None else bias.data_ptr(),
    )
    return arguments, (*rows, weight, scale, bias, amplitude, of_row)


def linear_arguments(bytes: Tensor, timesteps: int, synapses: Synapses, amplitude: Tensor | None) -> Arguments:
    return product_arguments(linear_rows(bytes), timesteps, synapses, amplitude)


def convolution_arguments(
    bytes: Tensor,
    timesteps: int,
    synapses: Synapses,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
) -> Arguments:
    _, channels, *kernel = synapses.weight.shape
    return product_arguments(convolution_rows(bytes, channels, kernel, *geometry), timesteps, synapses, amplitude)


def _empty_currents(*shape: int) -> Tensor:
    out = torch.empty(shape, dtype=torch.float32)
    C.prefer_huge_pages(out.data_ptr(), out.nbytes)
    return out


def _product(
    product: tuple, out: Tensor, row_out: Tensor, output_stride: int, method: str, groups: tuple[int, int] = (1, 0)
) -> None:
    arguments, _alive = product
    current = (out.data_ptr(), out.stride(0), row_out.data_ptr(), output_stride)
    C.spike_gemm_cpu(method, arguments, current, groups, torch.get_num_threads())


def linear_cpu(bytes: Tensor, timesteps: int, synapses: Synapses, amplitude: Tensor | None, method: str) -> Tensor:
    out = _empty_currents(timesteps, *bytes.shape[1:-1], synapses.outputs)
    if out.numel():
        rows = linear_rows(bytes)
        row_out = torch.arange(rows.row.numel()) * synapses.outputs
        _product(product_arguments(rows, timesteps, synapses, amplitude), out, row_out, 1, method)
    return out


def convolution_cpu(
    bytes: Tensor,
    timesteps: int,
    synapses: Synapses,
    amplitude: Tensor | None,
    geometry: Sequence[Sequence[int]],
    groups: int,
    method: str,
) -> Tensor:
    _, channels, *kernel = synapses.weight.shape
    size = convolution_shape(bytes.shape[-2:], kernel, *geometry)
    out = _empty_currents(timesteps, bytes.shape[1], synapses.outputs, *size)
    if not out.numel():
        return out
    area = size[0] * size[1]
    row_out = (torch.arange(out.shape[1]).unsqueeze(1) * out.stride(1) + torch.arange(area)).reshape(-1)
    rows = convolution_rows(bytes, channels, kernel, *geometry)
    product = product_arguments(rows, timesteps, synapses, amplitude, groups)
    _product(product, out, row_out, area, method, (groups, channels * rows.bytes.stride(2)))
    return out
