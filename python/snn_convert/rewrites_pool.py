"""Averages over windows, in the weights of a convolution beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from snn_kernels.ops.spike_gemm.checks import pair
from snn_kernels.ops.spike_gemm.rows import convolution_shape

from .rules import argument

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["average_pool"]

aten = torch.ops.aten

MOST_TAPS = 4  # of a window in front of a convolution, whose products they multiply


def average_pool(lowering: Lowering, node: fx.Node) -> None:
    """``avg_pool2d``: one convolution with the one that it averages, or with the 1x1 that reads it alone.

    The mean of a convolution at ``q x q`` positions has ``k + q - 1`` taps a side in place of ``q`` times ``k``.
    """
    lowering.varying.add(node)
    window, stride = pair(node.args[1]), pair(argument(node, 2, "stride") or node.args[1])
    x = node.args[0]
    whole = convolution_shape(x.meta["val"].shape[-2:], window, stride, (0, 0), (1, 1))
    silent = argument(node, 6, "divisor_override") is not None or any(pair(argument(node, 3, "padding", 0)))
    if silent or tuple(node.meta["val"].shape[-2:]) != whole:  # which differs where a window may reach beyond the end
        return
    reader = next(iter(node.users))
    if _is_convolution(x) and len(x.users) == 1:
        _average_of(lowering, x, node, window, stride)
    elif _is_convolution(reader) and len(node.users) == 1 and reader.args[0] is node:
        _of_average(lowering, reader, node, window, stride)


def _is_convolution(node: fx.Node) -> bool:
    """Whether it has weights of its own, with its taps side by side."""
    if node.target is not aten.conv2d.default or node.args[1].op != "get_attr":
        return False
    return pair(argument(node, 5, "dilation", 1)) == [1, 1]


def _average_of(lowering: Lowering, x: fx.Node, node: fx.Node, window: Sequence[int], stride: Sequence[int]) -> None:
    """The average ``node`` over the convolution ``x``."""
    weight, steps = lowering.tensor(x.args[1]), pair(argument(x, 3, "stride", 1))
    taps = [(q - 1) * s + k for q, s, k in zip(window, steps, weight.shape[2:])]
    if taps[0] * taps[1] > weight[0, 0].numel() * stride[0] * stride[1]:
        return
    spread = weight.new_zeros((*weight.shape[:2], *taps), dtype=torch.float64)
    for i in range(window[0]):
        for j in range(window[1]):
            rows, columns = i * steps[0], j * steps[1]
            spread[..., rows : rows + weight.shape[2], columns : columns + weight.shape[3]] += weight
    _rewrite(lowering, x, x.args[0], spread / (window[0] * window[1]), [a * b for a, b in zip(steps, stride)])
    x.meta["val"] = node.meta["val"]
    lowering.replace(node, x)


def _of_average(
    lowering: Lowering, reader: fx.Node, node: fx.Node, window: Sequence[int], stride: Sequence[int]
) -> None:
    """The 1x1 convolution ``reader`` of the average ``node``."""
    weight, steps = lowering.tensor(reader.args[1]), pair(argument(reader, 3, "stride", 1))
    points = weight.shape[2:] == (1, 1) and not any(pair(argument(reader, 4, "padding", 0)))
    if not points or window[0] * window[1] > MOST_TAPS:
        return
    spread = weight.double().expand(-1, -1, *window) / (window[0] * window[1])
    _rewrite(lowering, reader, node.args[0], spread, [a * b for a, b in zip(steps, stride)])


def _rewrite(lowering: Lowering, convolution: fx.Node, x: fx.Node, weight: Tensor, stride: list[int]) -> None:
    """Let the convolution read ``x`` with other weights, where its stride leads."""
    dtype = lowering.tensor(convolution.args[1]).dtype
    values = lowering.constant(convolution, "averaging_weight", weight.to(dtype))
    rest = [argument(convolution, 4, "padding", [0, 0]), [1, 1], argument(convolution, 6, "groups", 1)]
    convolution.args = (x, values, argument(convolution, 2, "bias"), stride, *rest)
    convolution.kwargs = {}
