"""What each aten operation becomes: an affine map, one population of neurons, or a rewriting into these.

To support another operation, add a row here: to :data:`UNARY` or :data:`BINARY` when it is a nonlinearity the kernels
know, to :data:`AFFINE` when it is affine, and to :mod:`snn_convert.rewrites` when it is made of several.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch import fx

from snn_kernels.activations import ActivationSpec

__all__ = ["AFFINE", "BINARY", "TRANSPARENT", "UNARY", "argument"]

aten = torch.ops.aten


def argument(node: fx.Node, index: int, name: str, default=None):
    """An argument by position or keyword; both occur in exported graphs."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _gelu(node: fx.Node) -> ActivationSpec:
    return "gelu_tanh" if argument(node, 1, "approximate", "none") == "tanh" else "gelu"


def _hardtanh(node: fx.Node) -> ActivationSpec:
    return ("hardtanh", float(argument(node, 1, "min_val", -1.0)), float(argument(node, 2, "max_val", 1.0)))


def _clamp(node: fx.Node) -> ActivationSpec:
    low, high = argument(node, 1, "min"), argument(node, 2, "max")
    if low == 0 and high is None:
        return "relu"
    return ("hardtanh", -math.inf if low is None else float(low), math.inf if high is None else float(high))


def _pow(node: fx.Node) -> ActivationSpec:
    exponent = float(node.args[1])
    special = {1.0: "identity", 2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    return special.get(exponent, ("pow", exponent))


def _elu(node: fx.Node) -> ActivationSpec:
    names = ("alpha", "scale", "input_scale")
    alpha, scale, input_scale = (float(argument(node, i, name, 1.0)) for i, name in enumerate(names, 1))
    if (scale, input_scale) == (1.0, 1.0):
        return ("elu", alpha)
    if math.isclose(scale, 1.0507009873554805) and math.isclose(alpha, 1.6732632423543772):
        return "selu"
    raise ValueError("elu with another scale or input_scale is not one of the neuron kernels")


def _softplus(node: fx.Node) -> ActivationSpec:
    if float(argument(node, 1, "beta", 1.0)) != 1.0:
        raise ValueError("softplus with beta other than 1 is not one of the neuron kernels")
    return "softplus"


UNARY: dict[Callable, Callable[[fx.Node], ActivationSpec]] = {
    aten.relu.default: lambda node: "relu",
    aten.relu6.default: lambda node: "relu6",
    aten.hardtanh.default: _hardtanh,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.leaky_relu.default: lambda node: ("leaky_relu", float(argument(node, 1, "negative_slope", 0.01))),
    aten.hardsigmoid.default: lambda node: "hardsigmoid",
    aten.hardswish.default: lambda node: "hardswish",
    aten.elu.default: _elu,
    aten.celu.default: lambda node: ("celu", float(argument(node, 1, "alpha", 1.0))),
    aten.selu.default: lambda node: "selu",
    aten.gelu.default: _gelu,
    aten.silu.default: lambda node: "silu",
    aten.mish.default: lambda node: "mish",
    aten.softplus.default: _softplus,
    aten.sigmoid.default: lambda node: "sigmoid",
    aten.tanh.default: lambda node: "tanh",
    aten.exp.default: lambda node: "exp",
    aten.log.default: lambda node: "log",
    aten.sqrt.default: lambda node: "sqrt",
    aten.rsqrt.default: lambda node: "rsqrt",
    aten.reciprocal.default: lambda node: "reciprocal",
    aten.abs.default: lambda node: "abs",
    aten.square.default: lambda node: "square",
    aten.pow.Tensor_Scalar: _pow,
}

# Functions of two tensors: one population when both depend on the input.
BINARY: dict[Callable, ActivationSpec] = {
    aten.maximum.default: "maximum",
    aten.max.other: "maximum",
    aten.minimum.default: "minimum",
    aten.min.other: "minimum",
    aten.mul.Tensor: "multiply",
    aten.div.Tensor: "divide",
}

# Nodes that pass their first argument on.
TRANSPARENT = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.lift_fresh_copy.default,
}

# Affine in every tensor that enters together: L(f) = A f + b.
_JOINTLY = (
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.rsub.Scalar,
    aten.neg.default,
    aten.cat.default,
    aten.stack.default,
    aten.mean.dim,
    aten.mean.default,
    aten.sum.dim_IntList,
    aten.sum.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.index_select.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.roll.default,
    aten.flip.default,
    operator.getitem,
)
# Affine in the first argument while the others stay as they are.
_IN_FIRST = (
    aten.linear.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
)
# Affine in the second argument while the first stays as it is.
_IN_SECOND = (aten.mul.Tensor, aten.matmul.default, aten.mm.default, aten.bmm.default)

# For each affine operation, the groups of arguments that may depend on the input together.
AFFINE: dict[Callable, list[tuple[int, ...] | None]] = {}
for _op in _JOINTLY:
    AFFINE.setdefault(_op, []).append(None)  # None: all of them
for _op in _IN_FIRST:
    AFFINE.setdefault(_op, []).append((0,))
for _op in _IN_SECOND:
    AFFINE.setdefault(_op, []).append((1,))
