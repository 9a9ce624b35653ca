"""Launches of CUDA's spike products: see ``gpu``."""

from __future__ import annotations

from torch import Tensor

from ...backends import run_extension
from .gpu import Neurons, Product
from .gpu_weights import EVENT_BLOCK, Weights, is_uniform

__all__ = ["event_tile_of", "prepare", "run", "run_events", "run_signgd", "tile_of"]

OUTPUTS, INPUTS = 32, 16  # kOutputBlock and kInputBlock of csrc/cuda/spike_gemm.h
EVENT_OUTPUTS = 128  # kEventOutputs of csrc/cuda/spike_event_kernel.cuh


def tile_of(outputs: int, timesteps: int, fused: bool, residual: bool) -> dict[str, int]:
    """The blocks of weights, whatever the sizes."""
    return {"BLOCK_N": OUTPUTS, "BLOCK_K": INPUTS}


def event_tile_of(outputs: int) -> dict[str, int]:
    return {"BLOCK_N": EVENT_OUTPUTS, "BLOCK_K": EVENT_BLOCK}


def prepare(
    weight: Tensor, amplitude: Tensor | None, bias: Tensor | None, tap_inputs: int, lowest: int, weights: Weights
) -> None:
    """See ``SpikeWeightProblem`` of csrc/cuda/spike_gemm.h."""
    arguments = (
        str(weight.dtype).removeprefix("torch."),
        weight.data_ptr(),
        weight.stride(),
        (*weight.shape, tap_inputs // INPUTS),
        (weights.parts, lowest),
        (0, 0) if amplitude is None else (amplitude.data_ptr(), 0 if is_uniform(amplitude) else 1),
        0 if bias is None else bias.data_ptr(),
        *(tensor.data_ptr() for tensor in weights),
    )
    run_extension("spike_weight", arguments, weight.device)


def product_of(product: Product, timesteps: int, outputs: int) -> tuple:
    """``SpikeProductArgument`` of csrc/arguments.h."""
    bytes, weights = product.bytes, product.weights
    return (
        *(timesteps, product.rows, outputs, weights.parts),
        *(bytes.data_ptr(), bytes.stride(0), product.windows),
        *(tensor.data_ptr() for tensor in weights),
    )


def run(product: Product, out: Tensor, op: str = "spike_current") -> None:
    argument = product_of(product, len(out), out.shape[2])
    run_extension(op, (argument, out.data_ptr(), out.stride(0), out.stride(1)), out.device)


def run_events(product: Product, out: Tensor) -> None:
    run(product, out, "spike_event")


def run_signgd(product: Product, neurons: Neurons) -> None:
    rows, amplitude = neurons.residual.in_rows(neurons.outputs)
    residual = (0, 0, 0, 0, 0)
    if amplitude is not None:
        residual = (0, rows.data_ptr(), *rows.stride()[:2], amplitude.data_ptr())
    elif rows is not None:
        residual = (rows.data_ptr(), 0, *rows.stride()[:2], 0)
    arguments = (
        product_of(product, neurons.timesteps, neurons.outputs),
        residual,
        neurons.activation,
        neurons.eta.data_ptr(),
        [(data.data_ptr(), stride) for data, stride in neurons.fields],
        neurons.x_out.data_ptr(),
        neurons.v_out.data_ptr(),
        neurons.train.data_ptr(),
    )
    run_extension("spike_neuron", arguments, neurons.v_out.device)
