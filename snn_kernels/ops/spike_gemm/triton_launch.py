"""Launches of Triton's spike products: see ``gpu``."""

from __future__ import annotations

import triton
from torch import Tensor

from ...triton_activations import TRITON_ACTIVATIONS
from ...triton_memory import on_device
from .gpu import Neurons, Product
from .gpu_weights import EVENT_BLOCK, Weights, is_uniform
from .triton_events import event_kernel
from .triton_kernel import product_kernel, product_signgd_kernel
from .triton_weights import weight_kernel

__all__ = ["event_tile_of", "prepare", "run", "run_events", "run_signgd", "tile_of"]

INPUTS = 16
# Outputs of a tile, at most; see tile_of.
MOST_OUTPUTS, MOST_FUSED_OUTPUTS, MOST_RESIDUAL_OUTPUTS = 64, 32, 16
LEAST_EVENT_OUTPUTS, MOST_EVENT_OUTPUTS = 128, 512
OPTIONS = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False}


def tile_of(outputs: int, timesteps: int, fused: bool, residual: bool) -> dict[str, int]:
    """The tile of a program of 128 threads.

    The more outputs, the more products for each spike that is made a factor. With 64 the sums of four steps are half of
    a thread's registers, so a byte group takes two passes over its inputs; the fused kernel, which keeps neurons
    beside them, has 32, and 16 where it adds a residual. All walk the inputs in the same blocks, so they add in the
    same order.
    """
    widest = MOST_FUSED_OUTPUTS if fused else MOST_OUTPUTS
    block = min(MOST_RESIDUAL_OUTPUTS if residual else widest, max(16, triton.next_power_of_2(outputs)))
    steps = 8 if timesteps > 4 else 4
    return {
        "BLOCK_N": block,
        "BLOCK_K": INPUTS,
        "BLOCK_M": 64,
        "STEPS": steps,
        "PASS": min(steps, 4 * widest // block),
    }


def event_tile_of(outputs: int) -> dict[str, int]:
    return {
        "BLOCK_N": min(MOST_EVENT_OUTPUTS, max(LEAST_EVENT_OUTPUTS, triton.next_power_of_2(outputs))),
        "BLOCK_K": EVENT_BLOCK,
    }


def check_row(name: str, elements: int, product: Product) -> None:
    """Offsets inside a tile of outputs have 32 bits."""
    if elements * product.tile["BLOCK_M"] >= 2**31:
        raise ValueError(f"{name}: the triton backend takes rows up to 2**25 - 1 elements long, got {elements}")


def prepare(
    weight: Tensor, amplitude: Tensor | None, bias: Tensor | None, tap_inputs: int, lowest: int, weights: Weights
) -> None:
    outputs, channels, _ = weight.shape
    parts, padded, inputs = weights.values.shape
    with on_device(weight):
        weight_kernel[(padded,)](
            *(weight, *weight.stride(), amplitude, bias),
            *(weights.values, weights.values.stride(0), weights.multiplier, weights.bias),
            *(outputs, channels, tap_inputs, inputs, lowest),
            UNIFORM=is_uniform(amplitude),
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


def currents_of(product: Product, out: Tensor) -> tuple:
    """What the kernels that write currents take behind the operands."""
    timesteps, rows, outputs = out.shape
    windows = product.windows
    inputs = windows.taps * windows.tap_blocks * product.tile["BLOCK_K"]
    return out, out.stride(0), out.stride(1), timesteps, rows, outputs, inputs


def is_windowed(product: Product, outputs: int) -> bool:
    """Whether it takes more than a row's number to find its inputs."""
    windows = product.windows
    return max(windows.taps, windows.width, windows.height) > 1 or windows.section_outputs < outputs


def constants_of(product: Product, outputs: int) -> dict:
    """The constants of the dense kernels, apart from the activation."""
    return {"WINDOWS": is_windowed(product, outputs), "PARTS": product.weights.parts, **product.tile, **OPTIONS}


def tiles_of(product: Product, outputs: int) -> int:
    return triton.cdiv(product.rows, product.tile["BLOCK_M"]) * triton.cdiv(outputs, product.tile["BLOCK_N"])


def grid_of(product: Product, out: Tensor) -> tuple[int, int]:
    """Tiles and byte groups. Triton counts programs in 32 bits, and CUDA those of a second dimension in 16."""
    grid = tiles_of(product, out.shape[2]), triton.cdiv(len(out), 8)
    if grid[1] >= 2**16 or grid[0] * grid[1] >= 2**31:
        raise ValueError(f"train: expected fewer rows or steps for the triton backend, got a grid of {grid} programs")
    return grid


def run(product: Product, out: Tensor) -> None:
    check_row("weight", out.stride(1), product)
    with on_device(out):
        product_kernel[grid_of(product, out)](
            *operands_of(product),
            *currents_of(product, out),
            **constants_of(product, out.shape[2]),
            ALIGNED=out.data_ptr() % 16 == 0 and all(size % 4 == 0 for size in (*out.stride()[:2], out.shape[2])),
        )


def run_events(product: Product, out: Tensor) -> None:
    # Four inputs a turn, and their sums in 32 registers of a thread.
    windows = product.windows._replace(tap_blocks=product.windows.tap_blocks * product.tile["BLOCK_K"] // 4)
    block = product.tile["BLOCK_N"]
    product = product._replace(windows=windows, tile={"BLOCK_M": 1, "BLOCK_N": block, "BLOCK_K": 4})
    with on_device(out):
        event_kernel[grid_of(product, out)](
            *operands_of(product),
            *currents_of(product, out),
            WINDOWS=is_windowed(product, out.shape[2]),
            BLOCK_N=block,
            BLOCK_K=4,
            num_warps=block // 128,
            enable_fp_fusion=False,
        )


def run_signgd(product: Product, neurons: Neurons) -> None:
    check_row("weight", neurons.outputs, product)
    residual, amplitude = neurons.residual.in_rows(neurons.outputs)
    residual_step, residual_row = (0, 0) if residual is None else residual.stride()[:2]
    check_row("residual", residual_row, product)
    with on_device(neurons.v_out):
        product_signgd_kernel[(tiles_of(product, neurons.outputs),)](
            *operands_of(product),
            *(value for field in neurons.fields for value in field),
            *(residual, residual_step, residual_row, amplitude),
            neurons.eta,
            neurons.train,
            neurons.x_out,
            neurons.v_out,
            neurons.timesteps,
            product.rows,
            neurons.outputs,
            product.weights.values.shape[2],
            H=TRITON_ACTIVATIONS[neurons.activation].function,
            **constants_of(product, neurons.outputs),
        )
