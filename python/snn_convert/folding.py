"""Constant factors and summands on their way into the weights before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from .packed import LAYOUT
from .rules import argument

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["fold", "fold_factor", "scaled"]

aten = torch.ops.aten


def fold(lowering: Lowering, x: fx.Node, scale: Tensor, shift: Tensor | None = None, dim: int = 1) -> bool:
    """Fold ``scale * x + shift`` into the map that computes ``x``, if that map feeds nothing else.

    Both are float64, one number or one for each index of dimension ``dim``.
    """
    features = {aten.linear.default: x.meta["val"].ndim - 1, aten.conv1d.default: 1, aten.conv2d.default: 1}
    if x.target not in features or _uses(x) != 1 or (scale.numel() != 1 and dim != features[x.target]):
        return False
    weight, bias = x.args[1], argument(x, 2, "bias")
    if any(node.op != "get_attr" for node in (weight, bias) if node is not None):
        return False
    weight = lowering.tensor(weight)
    summands = [] if bias is None else [scale * lowering.tensor(bias).double()]
    summands += [] if shift is None else [shift]
    folded = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    new_weight = lowering.constant(x, "folded_weight", folded.to(weight.dtype))
    new_bias = lowering.constant(x, "folded_bias", sum(summands).to(weight.dtype)) if summands else None
    x.args = (x.args[0], new_weight, new_bias, *x.args[3:])
    x.kwargs = {key: value for key, value in x.kwargs.items() if key != "bias"}
    return True


def _uses(x: fx.Node) -> int:
    """How often other nodes name it: an attention may take its queries for its keys too."""
    found: list[bool] = []
    for user in x.users:
        fx.node.map_arg((user.args, user.kwargs), lambda source: found.append(source is x))
    return sum(found)


def fold_factor(lowering: Lowering, node: fx.Node) -> bool:
    """Fold a number, or a parameter that multiplies the features of a map, into its weights: the layer scale of
    ConvNeXt, ResMLP."""
    x, factor = node.args if lowering.varies(node.args[0]) else reversed(node.args)
    if isinstance(factor, fx.Node):
        if factor.op != "get_attr":
            return False
        factor = lowering.tensor(factor)
    factor = torch.as_tensor(factor)
    if factor.is_complex():
        return False
    dims = [dim - factor.ndim for dim, size in enumerate(factor.shape) if size > 1] or [-1]
    if len(dims) != 1 or x.meta["val"].shape != node.meta["val"].shape:
        return False
    if not fold(lowering, x, factor.double().flatten(), dim=x.meta["val"].ndim + dims[0]):
        return False
    lowering.replace(node, x)
    return True


def scaled(lowering: Lowering, like: fx.Node, x: fx.Node, factor: float) -> fx.Node:
    """``factor * x``, in the weights of the map that ``x`` comes from where nothing but its layout changes between."""
    source = x
    while source.target in LAYOUT and _uses(source) == 1:
        source = source.args[0]
    if fold(lowering, source, torch.tensor(factor, dtype=torch.float64)):
        return x
    return lowering.call(like, aten.mul.Tensor, x, factor)
