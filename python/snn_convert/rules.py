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

__all__ = [
    "AFFINE",
    "ASSERTIONS",
    "BINARY",
    "CONVOLUTIONS",
    "LARGEST",
    "LEARNED",
    "SHAPE_ONLY",
    "TRANSPARENT",
    "UNARY",
    "argument",
    "draws",
    "einsum_of_two",
    "is_additive",
    "passes_on",
    "power",
]

aten = torch.ops.aten


def argument(node: fx.Node, index: int, name: str, default=None):
    """An argument by position or keyword; both occur in exported graphs."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _gelu(node: fx.Node) -> ActivationSpec:
    return "gelu_tanh" if argument(node, 1, "approximate", "none") == "tanh" else "gelu"


def _hardtanh(node: fx.Node) -> ActivationSpec:
    return ("hardtanh", float(argument(node, 1, "min_val", -1.0)), float(argument(node, 2, "max_val", 1.0)))


LARGEST = torch.finfo(torch.float32).max


def _bounds(node: fx.Node) -> tuple[float | None, float | None]:
    """Of a clamp; ``None`` where no activation gets, as at the bounds that models give masked scores."""
    low, high = argument(node, 1, "min"), argument(node, 2, "max")
    return None if low is None or low <= -LARGEST else low, None if high is None or high >= LARGEST else high


def _clamp(node: fx.Node) -> ActivationSpec:
    low, high = _bounds(node)
    if low == 0 and high is None:
        return "relu"
    return ("hardtanh", -math.inf if low is None else float(low), math.inf if high is None else float(high))


def _clamp_max(node: fx.Node) -> ActivationSpec:
    return ("hardtanh", -math.inf, float(node.args[1]))


def _pow(node: fx.Node) -> ActivationSpec:
    return power(torch.tensor(float(node.args[1])))


def power(exponent: torch.Tensor) -> ActivationSpec:
    """``x**exponent``; a fractional one of the magnitude: what is decoded falls below 0 where ``x`` never does."""
    special = {1.0: "identity", 2.0: "square", 0.5: "sqrt_abs", -0.5: "rsqrt", -1.0: "reciprocal"}
    if exponent.numel() == 1 and exponent.item() in special:
        return special[exponent.item()]
    return ("pow" if (exponent == exponent.floor()).all() else "pow_abs", exponent)


def _elu(node: fx.Node) -> ActivationSpec:
    names = ("alpha", "scale", "input_scale")
    alpha, scale, input_scale = (float(argument(node, i, name, 1.0)) for i, name in enumerate(names, 1))
    if (scale, input_scale) == (1.0, 1.0):
        return ("elu", alpha)
    if math.isclose(scale, 1.0507009873554805) and math.isclose(alpha, 1.6732632423543772):
        return "selu"
    raise ValueError("elu with another scale or input_scale is not one of the neuron kernels")


UNARY: dict[Callable, Callable[[fx.Node], ActivationSpec]] = {
    aten.relu.default: lambda node: "relu",
    aten.relu6.default: lambda node: "relu6",
    aten.hardtanh.default: _hardtanh,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp_max,
    aten.leaky_relu.default: lambda node: ("leaky_relu", float(argument(node, 1, "negative_slope", 0.01))),
    aten.hardsigmoid.default: lambda node: "hardsigmoid",
    aten.hardswish.default: lambda node: "hardswish",
    aten.elu.default: _elu,
    aten.celu.default: lambda node: ("celu", float(argument(node, 1, "alpha", 1.0))),
    aten.selu.default: lambda node: "selu",
    aten.gelu.default: _gelu,
    aten.silu.default: lambda node: "silu",
    aten.mish.default: lambda node: "mish",
    aten.sigmoid.default: lambda node: "sigmoid",
    aten.tanh.default: lambda node: "tanh",
    aten.exp.default: lambda node: "exp",
    aten.log.default: lambda node: "log",
    aten.sqrt.default: lambda node: "sqrt_abs",
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
    aten.matmul.default: "matmul",
    aten.mm.default: "matmul",
    aten.bmm.default: "matmul",
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
    aten.native_dropout.default,
    aten.alpha_dropout.default,
}


def draws(node: fx.Node) -> bool:
    """Whether ``node`` gives random numbers: dropout and attention do so in training alone."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    places = enumerate(node.target._schema.arguments)
    found = {known.name: argument(node, i, known.name, known.default_value) for i, known in places}
    chance = found.get("p", found.get("dropout_p", 1.0))
    return chance != 0 and found.get("train", found.get("training", True)) is not False


def passes_on(node: fx.Node) -> bool:
    """Whether ``node`` gives its first argument as it is: a cast between real types, a slice or padding of nothing."""
    if node.target in CASTS:
        return node.meta["val"].is_floating_point()
    if node.target is aten.slice.Tensor:
        start, end, step = (argument(node, i, name, 0) for i, name in ((2, "start"), (3, "end"), (4, "step")))
        return not start and (end is None or end == WHOLE) and step in (0, 1)
    if node.target in (aten.pad.default, aten.constant_pad_nd.default):
        return not any(node.args[1])
    return node.target in (aten.clamp.default, aten.clamp_min.default) and _bounds(node) == (None, None)


WHOLE = 2**63 - 1  # the end of a slice that takes everything
CASTS = {aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default}

# Checks that the export leaves behind; they compute nothing.
ASSERTIONS = {aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg}

# What depends on the shape of its first argument alone.
SHAPE_ONLY = {
    aten.sym_size.int,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
}

# Learned maps: of integer inputs (tokens, one-hot codes) they give the analog values that enter the network.
LEARNED = {aten.embedding.default, aten.linear.default, aten.conv1d.default, aten.conv2d.default}


def einsum_of_two(equation: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``torch.einsum`` with each operand an argument of its own."""
    return torch.einsum(equation, a, b)


# Affine in every tensor that enters together: L(f) = A f + b.
_JOINTLY = (
    aten.add.Tensor,
    aten.add.Scalar,
    aten.sub.Tensor,
    aten.rsub.Scalar,
    aten.neg.default,
    aten.cat.default,
    aten.stack.default,
    aten.mean.dim,
    aten.mean.default,
    aten.sum.dim_IntList,
    aten.sum.default,
    aten.cumsum.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool3d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest1d.default,
    aten.upsample_linear1d.vec,
    aten.upsample_linear1d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bilinear2d.default,
    aten.upsample_bicubic2d.vec,
    aten.upsample_bicubic2d.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.im2col.default,
    aten.col2im.default,
    aten.diagonal.default,
    aten.index_add.default,
    aten.scatter_add.default,
    aten.unfold.default,
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
    aten.repeat.default,
    aten.repeat_interleave.self_int,
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.roll.default,
    aten.flip.default,
    operator.getitem,
)
# Fourier transforms: complex values are no activations, and only affine maps lie between two of them.
_COMPLEX = (
    *(
        getattr(aten, f"fft_{transform}{dims}").default
        for transform in ("fft", "ifft", "rfft", "irfft")
        for dims in ("", "2", "n")
    ),
    aten.real.default,
    aten.imag.default,
    aten.view_as_real.default,
    aten.view_as_complex.default,
)
# Whose channels are dimension 1, and whose bias is argument 2.
CONVOLUTIONS = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding,
    aten.conv3d.padding, aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
}  # fmt: skip
# Affine in the first argument while the others stay as they are.
_IN_FIRST = (
    aten.linear.default,
    *CONVOLUTIONS,
    aten.index.Tensor,
    aten.index_select.default,
    aten.gather.default,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
)
# Affine in the second argument while the first stays as it is.
_IN_SECOND = (aten.mul.Tensor, aten.matmul.default, aten.mm.default, aten.bmm.default, einsum_of_two)
_IN_THIRD = (einsum_of_two,)

# For each affine operation, the groups of arguments that may depend on the input together.
AFFINE: dict[Callable, list[tuple[int, ...] | None]] = {}
for _op in _JOINTLY + _COMPLEX:
    AFFINE.setdefault(_op, []).append(None)  # None: all of them
for _op in _IN_FIRST:
    AFFINE.setdefault(_op, []).append((0,))
for _op in _IN_SECOND:
    AFFINE.setdefault(_op, []).append((1,))
for _op in _IN_THIRD:
    AFFINE.setdefault(_op, []).append((2,))
AFFINE[aten.where.self] = [(1, 2)]


def is_additive(node: fx.Node) -> bool:
    """Whether all tensors that enter an affine ``node`` are added up; if not, some are its coefficients."""
    return None in AFFINE.get(node.target, ())
