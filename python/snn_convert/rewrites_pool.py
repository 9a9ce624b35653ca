"""Averages over windows, in the weights of the convolution that they average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from snn_kernels.ops.spike_gemm.checks import pair
from snn_kernels.ops.spike_gemm.rows import convolution_shape

from .rules import argument

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["average_pool"]

aten = torch.ops.aten

MOST_TAPS = 4  # for each of the convolution's: weights are prepared in every call


def average_pool(lowering: Lowering, node: fx.Node) -> None:
    """``avg_pool2d`` of a convolution that nothing else reads: one convolution, where that takes no more products.

    The mean of a convolution at ``q x q`` positions has ``k + q - 1`` taps a side in place of ``q`` times ``k``.
    """
    lowering.varying.add(node)
    window, stride = pair(node.args[1]), pair(argument(node, 2, "stride") or node.args[1])
    x = node.args[0]
    whole = convolution_shape(x.meta["val"].shape[-2:], window, stride, (0, 0), (1, 1))
    other = argument(node, 6, "divisor_override") is not None or any(pair(argument(node, 3, "padding", 0)))
    if other or tuple(node.meta["val"].shape[-2:]) != whole:  # which differs where a window may reach beyond the end
        return
    if len(x.users) > 1 or x.target is not aten.conv2d.default or x.args[1].op != "get_attr":
        return
    weight, steps = lowering.tensor(x.args[1]), pair(argument(x, 3, "stride", 1))
    taps = [(q - 1) * s + k for q, s, k in zip(window, steps, weight.shape[2:])]
    before, after = weight.shape[2:].numel(), taps[0] * taps[1]
    if after > before * stride[0] * stride[1] or after > MOST_TAPS * before:
        return
    if pair(argument(x, 5, "dilation", 1)) != [1, 1]:
        return
    spread = weight.new_zeros((*weight.shape[:2], *taps), dtype=torch.float64)
    for i in range(window[0]):
        for j in range(window[1]):
            rows, columns = i * steps[0], j * steps[1]
            spread[..., rows : rows + weight.shape[2], columns : columns + weight.shape[3]] += weight
    average = (spread / (window[0] * window[1])).to(weight.dtype)
    rest = [argument(x, 4, "padding", [0, 0]), [1, 1], argument(x, 6, "groups", 1)]
    values = lowering.constant(x, "averaging_weight", average)
    x.args = (x.args[0], values, argument(x, 2, "bias"), [a * b for a, b in zip(steps, stride)], *rest)
    x.kwargs = {}
    x.meta["val"] = node.meta["val"]
    lowering.replace(node, x)
