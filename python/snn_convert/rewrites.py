"""Operations that become several: batch normalisation, max pooling, products and quotients."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from snn_kernels.activations import ActivationSpec

from .errors import UnsupportedOperation
from .rewrites_attention import ATTENTION, matmul
from .rewrites_norm import NORMALISATIONS
from .rewrites_rectifiers import RECTIFIERS
from .rewrites_small import SMALL
from .rules import argument

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["REWRITES", "binary"]

aten = torch.ops.aten


def binary(lowering: Lowering, node: fx.Node, function: ActivationSpec) -> None:
    """One population for a function of two activations; a constant operand makes it a unary one."""
    a, b = node.args[:2]
    if a is b and function == "multiply":
        return lowering.replace(node, lowering.population(node, "square", a))
    if function == "matmul" and lowering.varies(a):
        return lowering.replace(node, matmul(lowering, node, a, b))
    if lowering.varies(a) or (isinstance(a, fx.Node) and function in ("maximum", "minimum")):
        return lowering.replace(node, lowering.population(node, function, a, b))
    if function in ("multiply", "matmul"):  # constant * activation is affine
        lowering.varying.add(node)
        return None
    if function == "divide":  # constant / activation
        inverse = lowering.population(node, "reciprocal", b)
        return lowering.replace(node, lowering.call(node, aten.mul.Tensor, inverse, a))
    raise UnsupportedOperation(node, f"{function} of a constant and an activation: use clamp")


def batch_norm(lowering: Lowering, node: fx.Node) -> None:
    """Into the weights of the convolution or linear map before it, or else a scale and a shift per channel."""
    x, weight, bias, mean, var = node.args[:5]
    eps = node.args[-1]
    mean, var = lowering.tensor(mean), lowering.tensor(var)
    scale = (var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * lowering.tensor(weight).double()
    shift = -mean.double() * scale
    shift = shift if bias is None else shift + lowering.tensor(bias).double()
    for user in list(node.users):  # (output, saved mean, saved rstd): only the first is used in evaluation
        if user.target is operator.getitem and user.args[1] == 0:
            lowering.replace(user, node)
    if _fold(lowering, x, scale, shift):
        return lowering.replace(node, x)
    shape = (1, -1, *[1] * (x.meta["val"].ndim - 2))
    factor = lowering.constant(node, "batch_norm_scale", scale.float().reshape(shape))
    summand = lowering.constant(node, "batch_norm_shift", shift.float().reshape(shape))
    scaled = lowering.call(node, aten.mul.Tensor, x, factor)
    return lowering.replace(node, lowering.call(node, aten.add.Tensor, scaled, summand))


def _fold(lowering: Lowering, x: fx.Node, scale: Tensor, shift: Tensor) -> bool:
    """Fold ``scale * x + shift`` into the map that computes ``x``, if that map feeds nothing else."""
    channel_last = x.target is aten.linear.default and x.meta["val"].ndim == 2
    if not (channel_last or x.target in (aten.conv1d.default, aten.conv2d.default)) or len(x.users) != 1:
        return False
    weight = lowering.tensor(x.args[1])
    bias = argument(x, 2, "bias")
    bias = shift if bias is None else scale * lowering.tensor(bias).double() + shift
    folded = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    new_weight = lowering.constant(x, "folded_weight", folded.to(weight.dtype))
    new_bias = lowering.constant(x, "folded_bias", bias.to(weight.dtype))
    x.args = (x.args[0], new_weight, new_bias, *x.args[3:])
    x.kwargs = {key: value for key, value in x.kwargs.items() if key != "bias"}
    return True


def _pair(value) -> tuple[int, int]:
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return (value[0], value[-1])


def max_pool2d(lowering: Lowering, node: fx.Node) -> None:
    """A tree of binary ``maximum`` neurons over the window's elements, one population a level."""
    x = node.args[0]
    kernel = _pair(node.args[1])
    stride = _pair(argument(node, 2, "stride") or kernel)
    padding = _pair(argument(node, 3, "padding", 0))
    dilation = _pair(argument(node, 4, "dilation", 1))
    out = [int(size) for size in node.meta["val"].shape[-2:]]
    size = [int(size) for size in x.meta["val"].shape[-2:]]
    rows, columns = (
        [_window_indices(offset, *axis) for offset in range(axis[-1])]
        for axis in zip(out, size, stride, padding, dilation, kernel)
    )
    lines = [_select(lowering, node, x, -2, indices) for indices in rows]
    elements = [_select(lowering, node, line, -1, indices) for line in lines for indices in columns]
    channel_dim = node.meta["val"].ndim - 3
    while len(elements) > 1:
        elements = _level(lowering, node, elements, channel_dim)
    lowering.replace(node, elements[0])


def _window_indices(offset: int, out: int, size: int, stride: int, padding: int, dilation: int, _: int) -> list[int]:
    """Where element ``offset`` of each window lies. One in the padding is replaced by the window's own nearest
    element: the maximum is the same, and no neuron has to hold minus infinity."""
    indices = []
    for o in range(out):
        index = o * stride - padding + offset * dilation
        while index < 0:
            index += dilation
        while index >= size:
            index -= dilation
        indices.append(index)
    return indices


def _select(lowering: Lowering, like: fx.Node, x: fx.Node, dim: int, indices: list[int]) -> fx.Node:
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if step > 0 and indices == list(range(indices[0], indices[-1] + 1, step)):
        return lowering.call(like, aten.slice.Tensor, x, dim, indices[0], indices[-1] + 1, step)
    where = lowering.constant(like, "window", torch.tensor(indices))
    return lowering.call(like, aten.index_select.default, x, dim, where)


def _level(lowering: Lowering, node: fx.Node, elements: list[fx.Node], channel_dim: int) -> list[fx.Node]:
    """The maxima of neighbouring pairs, all pairs in one population stacked before the channels."""
    pairs = len(elements) // 2
    if pairs == 1:
        winners = [lowering.population(node, "maximum", *elements[:2], channel_dim=channel_dim)]
    else:
        sides = [
            lowering.call(node, aten.stack.default, elements[side : 2 * pairs : 2], channel_dim) for side in (0, 1)
        ]
        winner = lowering.population(node, "maximum", *sides, channel_dim=channel_dim + 1)
        winners = [lowering.call(node, aten.select.int, winner, channel_dim, pair) for pair in range(pairs)]
    return winners + elements[2 * pairs :]


REWRITES: dict[Callable, Callable[[Lowering, fx.Node], None]] = {
    aten._native_batch_norm_legit_no_training.default: batch_norm,
    aten.max_pool2d.default: max_pool2d,
    **ATTENTION,
    **NORMALISATIONS,
    **RECTIFIERS,
    **SMALL,
}
