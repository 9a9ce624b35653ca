"""What ``snn_kernels._C`` takes for a population of neurons: addresses, strides and sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...layout import Order, as_operand
from .reference import Momentum, Operands

__all__ = ["neuron_arguments"]


def neuron_arguments(
    model: str,
    timesteps: int,
    currents: Sequence[tuple],
    eta: Tensor,
    operands: Operands,
    x: Sequence[Tensor],
    v: Tensor,
    momentum: Momentum,
    order: Order,
    outputs: tuple[Tensor, Sequence[Tensor], Tensor, Sequence[Tensor]],
) -> tuple[tuple, list[Tensor]]:
    """The arguments of ``neuron_problem`` in csrc/bindings.cpp, and the tensors whose addresses they hold.

    ``currents`` are of the form of ``SourceArgument`` in csrc/arguments.h; ``outputs`` the bytes, decoded inputs,
    estimate and filtered gradients to write (the last hold their initial values).
    """
    bytes, x_out, v_out, m_out = outputs
    alive = []

    def operand(tensor: Tensor) -> tuple[int, int, int]:
        data, inner, period = as_operand(tensor, v_out.shape, order)
        alive.append(data)
        return data.data_ptr(), inner, period

    def address(tensors: Sequence[Tensor], k: int) -> int:
        return tensors[k].data_ptr() if tensors else 0

    scale = operand(operands.scale)
    inputs = [
        (current, operand(offset), operand(x[k]) if x else scale, address(x_out, k), address(m_out, k))
        for k, (current, offset) in enumerate(zip(currents, operands.offsets))
    ]
    eta = eta.contiguous()
    alive.append(eta)
    parameters = [operand(value) for value in operands.parameters]
    arguments = (
        model + (" with momentum" if m_out else ""),
        timesteps,
        v_out.numel(),
        eta.data_ptr(),
        inputs,
        scale,
        [*parameters, *[scale] * (2 - len(parameters))],
        operand(v),
        v_out.data_ptr(),
        bytes.data_ptr(),
        (*momentum, address(m_out, -1)),
    )
    return arguments, alive
