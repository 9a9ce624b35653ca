"""What ``snn_kernels._C`` takes for a population of signGD neurons: addresses, strides and sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...layout import Order, as_operand

__all__ = ["signgd_arguments"]


def signgd_arguments(
    activation: str,
    dtype: str,
    timesteps: int,
    currents: Sequence[tuple[int, int]],
    eta: Tensor,
    offsets: Sequence[Tensor],
    x: Sequence[Tensor],
    scale: Tensor,
    parameters: Sequence[Tensor],
    v: Tensor,
    order: Order,
    outputs: tuple[Tensor, Sequence[Tensor], Tensor],
) -> tuple[tuple, list[Tensor]]:
    """The arguments of ``signgd_problem`` in csrc/bindings.cpp, and the tensors whose addresses they hold.

    ``currents`` are addresses and step strides; ``outputs`` the bytes, decoded inputs and estimate to write.
    """
    bytes, x_out, v_out = outputs
    alive = []

    def operand(tensor: Tensor) -> tuple[int, int, int]:
        data, inner, period = as_operand(tensor, v_out.shape, order)
        alive.append(data)
        return data.data_ptr(), inner, period

    inputs = [
        (address, stride, operand(offset), operand(xi), out.data_ptr())
        for (address, stride), offset, xi, out in zip(currents, offsets, x, x_out)
    ]
    eta = eta.contiguous()
    alive.append(eta)
    padded = [*parameters, *[scale] * (2 - len(parameters))]
    arguments = (
        activation,
        dtype,
        timesteps,
        v_out.numel(),
        eta.data_ptr(),
        inputs,
        operand(scale),
        [operand(value) for value in padded],
        operand(v),
        v_out.data_ptr(),
        bytes.data_ptr(),
    )
    return arguments, alive
