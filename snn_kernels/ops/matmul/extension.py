"""What ``snn_kernels._C`` takes for products of two decoded matrices: addresses, strides and sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...checks import DTYPES
from ..currents import is_train

__all__ = ["matmul_arguments", "one_of_each"]


def matmul_arguments(
    a: Tensor,
    b: Tensor,
    timesteps: int,
    eta: Tensor,
    of_a: Sequence[Tensor],
    of_b: Sequence[Tensor],
    scale: Tensor,
    v: Tensor,
    outputs: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[tuple, list[Tensor], list[Tensor]]:
    """The arguments of ``matmul_problem`` in csrc/bindings.cpp; what it writes the decoded inputs to, each product its
    own; and the tensors whose addresses the arguments hold.
    """
    bytes, x_a, x_b, v_out = outputs
    *batch, rows, columns = v_out.shape
    alive = [eta.contiguous()]

    def view(field: Tensor, size: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        alive.append(field.expand(*batch, *size))
        return alive[-1].data_ptr(), alive[-1].stride()

    def matrix(values: Tensor, of: Sequence[Tensor], x_out: Tensor) -> tuple:
        time, *its_batch, height, width = values.shape
        if 1 not in values.stride()[-2:] and width > 1:
            values = values.contiguous()  # neither rows nor columns are neighbours in memory
        front = [1] * (len(batch) - len(its_batch))
        alive.append(values.view(time, *front, *values.shape[1:]).expand(time, *batch, height, width))
        dtype = "uint8" if is_train(values) else DTYPES[values.dtype]
        step_stride, *strides = alive[-1].stride()
        fields = (view(field, (height, width)) for field in of)
        return dtype, (alive[-1].data_ptr(), strides), step_stride, *fields, x_out.data_ptr()

    sizes = [(*batch, *x.shape[-2:]) for x in (x_a, x_b)]
    written = [x if x.shape == size else x.new_empty(size) for x, size in zip((x_a, x_b), sizes)]
    arguments = (
        timesteps,
        [*batch, rows, a.shape[-1], columns],
        alive[0].data_ptr(),
        matrix(a, of_a, written[0]),
        matrix(b, of_b, written[1]),
        view(scale, (rows, columns)),
        view(v, (rows, columns)),
        v_out.data_ptr(),
        bytes.data_ptr(),
    )
    return arguments, written, alive


def one_of_each(spread: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor of the shape that was broadcast to ``spread``."""
    while spread.ndim > len(shape):
        spread = spread[0]
    for dim, size in enumerate(shape):
        spread = spread.narrow(dim, 0, size)
    return spread
