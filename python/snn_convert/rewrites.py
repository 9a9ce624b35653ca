"""Operations that become several: batch normalisation, max pooling, products and quotients."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import fx

from snn_kernels.activations import ActivationSpec

from .errors import UnsupportedOperation
from .folding import fold
from .rewrites_attention import ATTENTION, matmul
from .rewrites_norm import NORMALISATIONS, written_out
from .rewrites_pool import average_pool
from .rewrites_rectifiers import RECTIFIERS
from .rewrites_small import SMALL, in_pairs, values_alone
from .rules import LARGEST, argument

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["REWRITES", "binary"]

aten = torch.ops.aten


# Bounds that models give masked scores, and that no activation reaches.
BEYOND = {"maximum": lambda bound: bound <= -LARGEST, "minimum": lambda bound: bound >= LARGEST}


def _is_beyond(lowering: Lowering, bound: fx.Node, function: str) -> bool:
    value = None if lowering.varies(bound) else lowering.fixed_value(bound)
    return value is not None and bool(BEYOND[function](torch.as_tensor(value)).all())


def binary(lowering: Lowering, node: fx.Node, function: ActivationSpec) -> None:
    """One population for a function of two activations; a constant operand makes it a unary one."""
    a, b = node.args[:2]
    if a is b and function == "multiply":
        return lowering.replace(node, lowering.population(node, "square", a))
    if function == "matmul" and lowering.varies(a):
        return lowering.replace(node, matmul(lowering, node, a, b))
    if function in BEYOND:
        for x, bound in ((a, b), (b, a)):
            if _is_beyond(lowering, bound, function) and x.meta["val"].shape == node.meta["val"].shape:
                return lowering.replace(node, x)
    if function == "multiply" and written_out(lowering, node):
        return None
    if lowering.varies(a) or (isinstance(a, fx.Node) and function in ("maximum", "minimum")):
        return lowering.replace(node, lowering.population(node, function, a, b))
    if function in ("multiply", "matmul"):  # constant * activation
        return lowering.affine(node)
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
    if fold(lowering, x, scale, shift):
        return lowering.replace(node, x)
    shape = (1, -1, *[1] * (x.meta["val"].ndim - 2))
    factor = lowering.constant(node, "batch_norm_scale", scale.float().reshape(shape))
    summand = lowering.constant(node, "batch_norm_shift", shift.float().reshape(shape))
    scaled = lowering.call(node, aten.mul.Tensor, x, factor)
    return lowering.replace(node, lowering.call(node, aten.add.Tensor, scaled, summand))


def max_pool(lowering: Lowering, node: fx.Node) -> None:
    """Over windows of one size; ``max_pool1d``, ``max_pool2d`` and ``max_pool3d``."""
    ndim = {aten.max_pool1d.default: 1, aten.max_pool2d.default: 2, aten.max_pool3d.default: 3}[node.target]
    kernel = _each(node.args[1], ndim)
    stride = _each(argument(node, 2, "stride") or kernel, ndim)
    padding, dilation = (_each(argument(node, at, name, default), ndim) for at, name, default in POOL_ARGUMENTS)
    x, before = _padded(node.args[0], ndim)
    out, size = _sizes(node, ndim), _sizes(x, ndim)
    axes = list(zip(out, size, stride, map(sum, zip(padding, before)), dilation, kernel))
    if any(p > (k - 1) * d or (o - 1) * s - p >= n for o, n, s, p, d, k in axes):
        raise UnsupportedOperation(node, "a window of padding alone, whose maximum is minus infinity")
    windows = [[_window_indices(offset, *axis) for offset in range(axis[-1])] for axis in axes]
    lowering.replace(node, _maxima(lowering, node, x, windows))


def _padded(x: fx.Node, ndim: int) -> tuple[fx.Node, list[int]]:
    """What ``x`` pads with minus infinity, and how far before the first element of each axis; or ``x`` itself."""
    at = {aten.pad.default: 3, aten.constant_pad_nd.default: 2}.get(x.target)
    if at is None or argument(x, at, "value", 0) != -math.inf:
        return x, [0] * ndim
    sides = [*x.args[1], *[0] * (2 * ndim - len(x.args[1]))]
    if len(sides) > 2 * ndim or min(sides) < 0:
        return x, [0] * ndim
    return x.args[0], sides[-2::-2]


POOL_ARGUMENTS = ((3, "padding", 0), (4, "dilation", 1))


def adaptive_max_pool(lowering: Lowering, node: fx.Node) -> None:
    """Over windows that share the input out evenly; ``adaptive_max_pool1d``, ``-2d`` and ``-3d``."""
    ndim = ADAPTIVE[node.target]
    values = values_alone(node)
    if set(_sizes(values, ndim)) == {1}:
        return lowering.replace(values, in_pairs(lowering, node, "maximum", range(-ndim, 0), keepdim=True))
    windows = []
    for out, size in zip(_sizes(values, ndim), _sizes(node.args[0], ndim)):
        spans = [range(o * size // out, -(-(o + 1) * size // out)) for o in range(out)]
        longest = max(map(len, spans))
        # A shorter window repeats its last element: the maximum is the same.
        windows.append([[span[min(offset, len(span) - 1)] for span in spans] for offset in range(longest)])
    return lowering.replace(values, _maxima(lowering, node, node.args[0], windows))


ADAPTIVE = {
    aten.adaptive_max_pool1d.default: 1,
    aten.adaptive_max_pool2d.default: 2,
    aten.adaptive_max_pool3d.default: 3,
}


def _sizes(node: fx.Node, ndim: int) -> list[int]:
    return [int(size) for size in node.meta["val"].shape[-ndim:]]


def _each(value, ndim: int) -> tuple[int, ...]:
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value if len(value) == ndim else value * ndim


def _maxima(lowering: Lowering, node: fx.Node, x: fx.Node, windows: list[list[list[int]]]) -> fx.Node:
    """A tree of binary ``maximum`` neurons over the windows' elements of ``x``, one population a level.

    ``windows[axis][offset]`` are the places of each window's element ``offset`` along an axis.
    """
    elements, ndim = [x], len(windows)
    for axis, offsets in enumerate(windows):
        elements = [
            _select(lowering, node, element, axis - ndim, indices) for element in elements for indices in offsets
        ]
    channel_dim = elements[0].meta["val"].ndim - ndim - 1
    while len(elements) > 1:
        elements = _level(lowering, node, elements, channel_dim)
    return elements[0]


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
    aten.avg_pool2d.default: average_pool,
    aten.max_pool1d.default: max_pool,
    aten.max_pool2d.default: max_pool,
    aten.max_pool3d.default: max_pool,
    **dict.fromkeys(ADAPTIVE, adaptive_max_pool),
    **ATTENTION,
    **NORMALISATIONS,
    **RECTIFIERS,
    **SMALL,
}
