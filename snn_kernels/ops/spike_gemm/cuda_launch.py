"""Launches of CUDA's spike products: see ``tensor_cores``."""

from __future__ import annotations

from torch import Tensor

from ...backends import run_extension
from .tensor_cores import Neurons, Product

__all__ = ["FUSES_RESIDUAL", "fragments", "run", "run_signgd", "tile_of"]

FUSES_RESIDUAL = True


def tile_of(inputs: int, outputs: int, timesteps: int, fused: bool) -> dict[str, int]:
    """The blocks of weights of csrc/cuda/spike_gemm.h, whatever the sizes."""
    return {"BLOCK_N": 32, "BLOCK_K": 16}


def fragments(parts: Tensor) -> Tensor:
    """``parts[P, N, K]`` in the order in which lanes read them, ``[N / 32, K / 16, P, 2, 32, 8]``.

    For each pair of products the lane ``4 i + j`` has, of two products ``q`` and two pairs of inputs, the weights of
    output ``8 (i // 2) + 2 q + i % 2`` for inputs ``4 j .. 4 j + 3``: see csrc/cuda/spike_gemm_kernel.cuh.
    """
    count, outputs, inputs = parts.shape
    blocks = parts.view(count, outputs // 32, 4, 2, 2, 2, inputs // 16, 4, 4)
    part, n, half_i, pair, q, odd_i, k, j, input = range(9)
    return blocks.permute(n, k, part, pair, half_i, odd_i, j, q, input).reshape(
        outputs // 32, inputs // 16, count, 2, 32, 8
    )


def product_of(product: Product, timesteps: int, outputs: int) -> tuple[tuple, Tensor]:
    """``SpikeProductArgument`` of csrc/arguments.h, and the weights whose address it holds."""
    weight = fragments(product.parts)

    def address(tensor: Tensor | None) -> int:
        return 0 if tensor is None else tensor.data_ptr()

    argument = (
        timesteps,
        product.rows,
        outputs,
        product.parts.shape[2] // product.tile["BLOCK_K"],
        len(product.parts),
        address(product.bytes),
        product.bytes.stride(0),
        address(product.row_offsets),
        product.row_stride,
        address(product.block_offsets),
        address(weight),
        address(product.multiplier),
        address(product.bias),
    )
    return argument, weight


def run(product: Product, out: Tensor) -> None:
    argument, _alive = product_of(product, len(out), out.shape[2])
    run_extension("spike_current", (argument, out.data_ptr(), out.stride(0), out.stride(1)), out.device)


def run_signgd(product: Product, neurons: Neurons) -> None:
    argument, _alive = product_of(product, neurons.timesteps, neurons.outputs)
    residual, _alive_as_well = neurons.residual.in_rows(neurons.outputs)
    arguments = (
        argument,
        residual,
        neurons.activation,
        neurons.eta.data_ptr(),
        [(data.data_ptr(), stride) for data, stride in neurons.fields],
        neurons.x_out.data_ptr(),
        neurons.v_out.data_ptr(),
        neurons.train.data_ptr(),
    )
    run_extension("spike_neuron", arguments, neurons.v_out.device)
