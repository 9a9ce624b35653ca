"""Layer, group, instance and RMS normalisation: a chain of populations, or one that chases the whole function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from .errors import UnsupportedOperation
from .rules import argument

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["NORMALISATIONS", "written_out"]

aten = torch.ops.aten


def layer_norm(lowering: Lowering, node: fx.Node) -> None:
    x, shape = node.args[:2]
    weight, bias, eps = argument(node, 2, "weight"), argument(node, 3, "bias"), argument(node, 4, "eps", 1e-5)
    if lowering.normalisation == "vector":
        weight, bias = _tensors(lowering, node, weight, bias)
        given = {"shape": [int(size) for size in shape], "weight": weight, "bias": bias, "eps": eps}
        return lowering.replace(node, _whole(lowering, node, "layer_norm", x, given))
    out = _standardised(lowering, node, x, range(-len(shape), 0), eps)
    return lowering.replace(node, _affine(lowering, node, out, weight, bias))


def rms_norm(lowering: Lowering, node: fx.Node) -> None:
    x, shape, weight, eps = node.args[0], node.args[1], argument(node, 2, "weight"), argument(node, 3, "eps")
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    if lowering.normalisation == "vector":
        (weight,) = _tensors(lowering, node, weight)
        given = {"shape": [int(size) for size in shape], "weight": weight, "eps": eps}
        return lowering.replace(node, _whole(lowering, node, "rms_norm", x, given))
    out = _by_root_mean_square(lowering, node, x, range(-len(shape), 0), eps)
    return lowering.replace(node, _affine(lowering, node, out, weight, None))


def written_out(lowering: Lowering, node: fx.Node) -> bool:
    """Whether ``node`` is ``x * rsqrt(mean(x**2) + eps)`` over the last dimension, which one population then is."""
    for x, inverse in (node.args[:2], node.args[1::-1]):
        total = lowering.input_of(inverse, "rsqrt")
        if total is None or total.target is not aten.add.Tensor or total.kwargs or not isinstance(total.args[1], float):
            continue
        mean, eps = total.args
        last = ([-1], [x.meta["val"].ndim - 1])
        if mean.target is not aten.mean.dim or mean.args[1] not in last or not argument(mean, 2, "keepdim", False):
            continue
        if lowering.normalisation == "vector" and lowering.input_of(mean.args[0], "square") is x:
            given = {"shape": [int(x.meta["val"].shape[-1])], "weight": None, "eps": eps}
            lowering.replace(node, _whole(lowering, node, "rms_norm", x, given))
            return True
    return False


def group_norm(lowering: Lowering, node: fx.Node) -> None:
    x, groups = node.args[:2]
    weight, bias, eps = argument(node, 2, "weight"), argument(node, 3, "bias"), argument(node, 4, "eps", 1e-5)
    return _by_groups(lowering, node, x, groups, weight, bias, eps)


def instance_norm(lowering: Lowering, node: fx.Node) -> None:
    x, weight, bias, _, _, use_input_stats, _, eps = node.args[:8]
    if not use_input_stats:
        raise UnsupportedOperation(
            node, "instance norm with running statistics: use BatchNorm, which computes the same"
        )
    return _by_groups(lowering, node, x, x.meta["val"].shape[1], weight, bias, eps)


def _by_groups(lowering: Lowering, node: fx.Node, x: fx.Node, groups: int, weight, bias, eps: float) -> None:
    """Normalisation over the channels of a group and all places."""
    if lowering.normalisation == "vector":
        weight, bias = _tensors(lowering, node, weight, bias)
        given = {"groups": groups, "weight": weight, "bias": bias, "eps": eps}
        return lowering.replace(node, _whole(lowering, node, "group_norm", x, given))
    channels, *places = x.meta["val"].shape[1:]
    split = lowering.call(node, aten.unflatten.int, x, 1, [groups, channels // groups])
    out = _standardised(lowering, node, split, range(2, 3 + len(places)), eps)
    out = lowering.call(node, aten.flatten.using_ints, out, 1, 2)
    across = [-1, *[1] * len(places)]
    weight, bias = (p if p is None else lowering.call(node, aten.reshape.default, p, across) for p in (weight, bias))
    return lowering.replace(node, _affine(lowering, node, out, weight, bias))


def _standardised(lowering: Lowering, like: fx.Node, x: fx.Node, dims: Sequence[int], eps: float) -> fx.Node:
    """``(x - mean) / sqrt(var + eps)`` over ``dims`` as Oh & Lee decompose it."""
    mean = lowering.call(like, aten.mean.dim, x, list(dims), True)
    return _by_root_mean_square(lowering, like, lowering.call(like, aten.sub.Tensor, x, mean), dims, eps)


def _by_root_mean_square(lowering: Lowering, like: fx.Node, u: fx.Node, dims: Sequence[int], eps: float) -> fx.Node:
    """``u / sqrt(mean(u**2) + eps)``: ``square`` neurons, their mean, and neurons of two inputs."""
    squares = lowering.population(like, "square", u)
    mean = lowering.call(like, aten.mean.dim, squares, list(dims), True)
    return lowering.population(like, "multiply_rsqrt", u, lowering.call(like, aten.add.Tensor, mean, eps))


def _affine(lowering: Lowering, like: fx.Node, x: fx.Node, weight, bias) -> fx.Node:
    x = x if weight is None else lowering.call(like, aten.mul.Tensor, x, weight)
    return x if bias is None else lowering.call(like, aten.add.Tensor, x, bias)


def _whole(lowering: Lowering, node: fx.Node, function: str, x: fx.Node, parameters: dict) -> fx.Node:
    ndim = x.meta["val"].ndim
    channels = (ndim - 1,) if "shape" in parameters else (1,)
    return lowering.vector_population(node, function, x, channel_dim=channels, **parameters)


def _tensors(lowering: Lowering, node: fx.Node, *parameters) -> list[torch.Tensor | None]:
    if any(isinstance(p, fx.Node) and p.op != "get_attr" for p in parameters):
        raise UnsupportedOperation(node, "its weight and bias have to be parameters or buffers of the model")
    return [p if p is None else lowering.tensor(p) for p in parameters]


NORMALISATIONS: dict[Callable, Callable[[Lowering, fx.Node], None]] = {
    aten.layer_norm.default: layer_norm,
    aten.rms_norm.default: rms_norm,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
}
