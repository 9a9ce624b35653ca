"""Launches of Triton's spike products: see ``tensor_cores``."""

from __future__ import annotations

import contextlib

import torch
import triton
from torch import Tensor

from ...triton_activations import TRITON_ACTIVATIONS
from .tensor_cores import Neurons, Product, Weights, is_uniform
from .triton_kernel import product_kernel, product_signgd_kernel, weight_kernel

__all__ = ["FUSES_RESIDUAL", "prepare", "run", "run_signgd", "tile_of"]

FUSES_RESIDUAL = False

# Outputs of a tile, at most; see tile_of.
MOST_OUTPUTS = 32
MOST_FUSED_OUTPUTS = 16
OPTIONS = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False}


def tile_of(inputs: int, outputs: int, timesteps: int, fused: bool) -> dict[str, int]:
    """The tile of a program of 128 threads.

    With 32 outputs half of a thread's registers are sums; the fused kernel, which keeps the neurons beside them, has
    16. Both walk the inputs in the same blocks, so they add in the same order.
    """
    most_outputs = MOST_FUSED_OUTPUTS if fused else MOST_OUTPUTS
    return {
        "BLOCK_N": min(most_outputs, max(16, triton.next_power_of_2(outputs))),
        "BLOCK_K": 32 if inputs > 16 else 16,
        "BLOCK_M": 64,
        "STEPS": 8 if timesteps > 4 else 4,
    }


def on_device(tensor: Tensor):
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def check_row(elements: int, product: Product) -> None:
    """Offsets inside a tile of outputs have 32 bits."""
    if elements * product.tile["BLOCK_M"] >= 2**31:
        raise ValueError(f"weight: the triton backend takes up to 2**25 - 1 outputs, got {elements}")


def prepare(weight: Tensor, amplitude: Tensor | None, bias: Tensor | None, tap_inputs: int, weights: Weights) -> None:
    outputs, channels, _ = weight.shape
    parts, padded, inputs = weights.values.shape
    uniform = is_uniform(amplitude)
    with on_device(weight):
        weight_kernel[(padded,)](
            *(weight, *weight.stride(), amplitude, bias),
            *(weights.values, weights.values.stride(0), weights.multiplier, weights.bias),
            *(outputs, channels, tap_inputs, inputs),
            # float16 weights as they are fit as they are: scaled down, the smallest would not.
            0 if weight.dtype == torch.float16 and uniform else -126,
            UNIFORM=uniform,
            PARTS=parts,
            BLOCK=1024,
            **OPTIONS,
        )


def operands_of(product: Product) -> tuple:
    """The arguments of both kernels up to the bias."""
    bytes, windows, (values, multiplier, bias) = product.bytes, product.windows, product.weights
    places = windows._asdict()
    places.pop("taps")  # the inputs say how many there are
    return bytes, bytes.stride(0), *places.values(), values, values.stride(0), multiplier, bias


def constants_of(product: Product) -> dict:
    """The constants of both kernels, apart from the activation."""
    windows = product.windows.taps > 1 or product.windows.width > 1 or product.windows.height > 1
    return {"WINDOWS": windows, "PARTS": len(product.weights.values), **product.tile, **OPTIONS}


def tiles_of(product: Product, outputs: int) -> int:
    return triton.cdiv(product.rows, product.tile["BLOCK_M"]) * triton.cdiv(outputs, product.tile["BLOCK_N"])


def run(product: Product, out: Tensor) -> None:
    timesteps, rows, outputs = out.shape
    check_row(out.stride(1), product)
    with on_device(out):
        product_kernel[(tiles_of(product, outputs), triton.cdiv(timesteps, 8))](
            *operands_of(product),
            out,
            out.stride(0),
            out.stride(1),
            timesteps,
            rows,
            outputs,
            product.weights.values.shape[2],
            **constants_of(product),
        )


def run_signgd(product: Product, neurons: Neurons) -> None:
    check_row(neurons.outputs, product)
    with on_device(neurons.v_out):
        product_signgd_kernel[(tiles_of(product, neurons.outputs),)](
            *operands_of(product),
            *(value for field in neurons.fields for value in field),
            neurons.eta,
            neurons.train,
            neurons.x_out,
            neurons.v_out,
            neurons.timesteps,
            product.rows,
            neurons.outputs,
            product.weights.values.shape[2],
            H=TRITON_ACTIVATIONS[neurons.activation].function,
            **constants_of(product),
        )
