"""Operations that are a few lines of others: gates, norms, variances, sums of products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from .errors import UnsupportedOperation
from .folding import scaled
from .rewrites_attention import matmul
from .rules import argument, power

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["SMALL", "in_pairs", "values_alone"]

aten = torch.ops.aten


def product(lowering: Lowering, like: fx.Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """``a * b``: a population if both vary."""
    if lowering.varies(a) and lowering.varies(b):
        return lowering.population(like, "multiply", a, b)
    return lowering.call(like, aten.mul.Tensor, a, b)


def _scaled(lowering: Lowering, like: fx.Node, x: fx.Node, factor: float) -> fx.Node:
    return x if factor == 1 else scaled(lowering, like, x, factor)


def addcmul(lowering: Lowering, node: fx.Node) -> None:
    """``x + value * a * b``."""
    x, a, b = node.args[:3]
    term = _scaled(lowering, node, product(lowering, node, a, b), node.kwargs.get("value", 1))
    return lowering.replace(node, lowering.call(node, aten.add.Tensor, x, term))


def addmm(lowering: Lowering, node: fx.Node) -> None:
    """``beta * x + alpha * (a @ b)``; ``addmm`` and ``baddbmm``."""
    x, a, b = node.args[:3]
    term = _scaled(lowering, node, matmul(lowering, node, a, b), node.kwargs.get("alpha", 1))
    x = _scaled(lowering, node, x, node.kwargs.get("beta", 1))
    return lowering.replace(node, lowering.call(node, aten.add.Tensor, term, x))


def vector_norm(lowering: Lowering, node: fx.Node) -> None:
    """``sqrt(sum(x**2))`` or ``sum(|x|)``."""
    x, order = node.args[0], float(argument(node, 1, "ord", 2))
    dims, keepdim = argument(node, 2, "dim"), argument(node, 3, "keepdim", False)
    if order not in (1.0, 2.0) or dims is None:
        raise UnsupportedOperation(node, "norms of order 1 and 2 over named dimensions are supported")
    terms = lowering.population(node, "square" if order == 2.0 else "abs", x)
    total = lowering.call(node, aten.sum.dim_IntList, terms, list(dims), keepdim)
    return lowering.replace(node, total if order == 1.0 else lowering.population(node, "sqrt_abs", total))


def values_alone(node: fx.Node) -> fx.Node:
    """The extrema of an operation that also gives their places, which nobody may use."""
    values = next((user for user in node.users if user.args[1] == 0), node)
    if len(node.users) != 1 or values is node:
        raise UnsupportedOperation(node, "the places of the maxima or minima are no activations: use the values alone")
    return values


def extremum(lowering: Lowering, node: fx.Node) -> None:
    """The largest or smallest along dimensions: levels of pairs, as in max pooling."""
    function = "maximum" if node.target in (aten.amax.default, aten.max.dim) else "minimum"
    values = values_alone(node) if node.target in (aten.max.dim, aten.min.dim) else node
    dims = argument(node, 1, "dim", [])
    dims, keepdim = [dims] if isinstance(dims, int) else dims, argument(node, 2, "keepdim", False)
    lowering.replace(values, in_pairs(lowering, node, function, dims, keepdim))


def in_pairs(lowering: Lowering, node: fx.Node, function: str, dims: Sequence[int], keepdim: bool) -> fx.Node:
    """``node``'s first argument folded along ``dims``, all if there are none, by a function of two."""
    x = node.args[0]
    sizes = x.meta["val"].shape
    dims = [dim % len(sizes) for dim in dims] or list(range(len(sizes)))
    if not all(isinstance(sizes[dim], int) for dim in dims):
        raise UnsupportedOperation(node, "it reaches across samples: name the other dimensions")
    for dim in dims:
        size = sizes[dim]
        while size > 1:
            half = size // 2
            parts = (lowering.call(node, aten.slice.Tensor, x, dim, at, at + half) for at in (0, half))
            winners, rest = lowering.population(node, function, *parts), size - 2 * half
            last = lowering.call(node, aten.slice.Tensor, x, dim, 2 * half, size) if rest else None
            x = lowering.call(node, aten.cat.default, [winners, last], dim) if rest else winners
            size = half + rest
    return x if keepdim else lowering.call(node, aten.squeeze.dims, x, dims)


def prod(lowering: Lowering, node: fx.Node) -> None:
    """A product along one dimension."""
    keepdim = argument(node, 2, "keepdim", False)
    lowering.replace(node, in_pairs(lowering, node, "multiply", [node.args[1]], keepdim))


def logsumexp(lowering: Lowering, node: fx.Node) -> None:
    """``log(sum(exp(x)))``, whose exponentials may be of any size: it is what ``x`` has more than its log softmax."""
    x, dims, keepdim = node.args[0], list(node.args[1]), argument(node, 2, "keepdim", False)
    if lowering.normalisation == "vector" and len(dims) == 1 and lowering.dynamics == "signgd":
        channels = lowering.channel_dims(x)
        less = lowering.vector_population(node, "log_softmax", x, channel_dim=channels, dim=dims[0])
        more = lowering.call(node, aten.sub.Tensor, x, less)
        return lowering.replace(node, lowering.call(node, aten.mean.dim, more, dims, keepdim))
    total = lowering.call(node, aten.sum.dim_IntList, lowering.population(node, "exp", x), dims, keepdim)
    return lowering.replace(node, lowering.population(node, "log", total))


def exponential(lowering: Lowering, node: fx.Node) -> None:
    """``exp(x) - 1``, ``2**x`` and ``base**x``."""
    if node.target is aten.expm1.default:
        h = lowering.population(node, "exp", node.args[0])
        return lowering.replace(node, lowering.call(node, aten.sub.Tensor, h, 1.0))
    base, x = (2.0, node.args[0]) if node.target is aten.exp2.default else node.args
    if not base > 0:
        raise UnsupportedOperation(node, "the base has to be positive")
    return lowering.replace(node, lowering.population(node, "exp", _scaled(lowering, node, x, math.log(base))))


def learned_power(lowering: Lowering, node: fx.Node) -> None:
    """``x**p`` with a parameter ``p``, as in generalised-mean pooling."""
    exponent = lowering.fixed_value(node.args[1])
    if exponent is None:
        raise UnsupportedOperation(node, "its exponent has to be a parameter of the model")
    exponent = exponent.detach().squeeze() if exponent.numel() == 1 else exponent.detach()
    return lowering.replace(node, lowering.population(node, power(exponent), node.args[0]))


def logarithm(lowering: Lowering, node: fx.Node) -> None:
    """``log(1 + x)``, and logarithms to the bases 2 and 10."""
    x, base = node.args[0], {aten.log2.default: 2.0, aten.log10.default: 10.0}.get(node.target, math.e)
    if node.target is aten.log1p.default:
        x = lowering.call(node, aten.add.Tensor, x, 1.0)
    return lowering.replace(node, _scaled(lowering, node, lowering.population(node, "log", x), 1 / math.log(base)))


def clamp(lowering: Lowering, node: fx.Node) -> None:
    """Between bounds that are tensors."""
    x = node.args[0]
    for bound, function in ((argument(node, 1, "min"), "maximum"), (argument(node, 2, "max"), "minimum")):
        x = x if bound is None else lowering.population(node, function, x, bound)
    return lowering.replace(node, x)


def variance(lowering: Lowering, node: fx.Node) -> None:
    """``sum((x - mean)**2) / (n - correction)`` or its root, alone or with the mean."""
    x, dims = node.args[0], argument(node, 1, "dim")
    if node.target in (aten.var.dim, aten.std.dim, aten.var_mean.dim):
        correction, keepdim = int(argument(node, 2, "unbiased", True)), argument(node, 3, "keepdim", False)
    else:
        correction, keepdim = node.kwargs.get("correction", 1), node.kwargs.get("keepdim", False)
    if dims is None:
        raise UnsupportedOperation(node, "name the dimensions of the variance")
    mean = lowering.call(node, aten.mean.dim, x, list(dims), True)
    squares = lowering.population(node, "square", lowering.call(node, aten.sub.Tensor, x, mean))
    total = lowering.call(node, aten.sum.dim_IntList, squares, list(dims), keepdim)
    sizes, correction = [x.meta["val"].shape[d] for d in dims], 1 if correction is None else correction
    if all(isinstance(size, int) for size in sizes):
        result = lowering.call(node, aten.mul.Tensor, total, 1 / (math.prod(sizes) - correction))
    else:  # samples among them, as many as there will be
        ones = lowering.call(node, aten.ones_like.default, x)
        count = lowering.call(node, aten.sum.dim_IntList, ones, list(dims), keepdim)
        result = lowering.call(node, aten.div.Tensor, total, lowering.call(node, aten.sub.Tensor, count, correction))
    if node.target in ROOTS:
        result = lowering.population(node, "sqrt_abs", result)
    if node.target not in WITH_MEAN:
        return lowering.replace(node, result)
    mean = mean if keepdim else lowering.call(node, aten.squeeze.dims, mean, list(dims))
    for user in list(node.users):
        lowering.replace(user, mean if user.args[1] else result)
    return lowering.graph.erase_node(node)


ROOTS = {aten.std.correction, aten.std.dim}
WITH_MEAN = {aten.var_mean.correction, aten.var_mean.dim}


def glu(lowering: Lowering, node: fx.Node) -> None:
    """``a * sigmoid(b)`` of the halves."""
    x, dim = node.args[0], argument(node, 1, "dim", -1)
    half = int(x.meta["val"].shape[dim]) // 2
    a = lowering.call(node, aten.slice.Tensor, x, dim, 0, half)
    b = lowering.call(node, aten.slice.Tensor, x, dim, half, 2 * half)
    return lowering.replace(node, lowering.population(node, "multiply", a, lowering.population(node, "sigmoid", b)))


def prelu(lowering: Lowering, node: fx.Node) -> None:
    """Leaky relu with a slope a channel."""
    x, slope = node.args[0], lowering.fixed_value(node.args[1])
    if slope is None:
        raise UnsupportedOperation(node, "its slope has to be a parameter of the model")
    if slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (x.meta["val"].ndim - 2))
    return lowering.replace(node, lowering.population(node, ("leaky_relu", slope), x))


def log_sigmoid(lowering: Lowering, node: fx.Node) -> None:
    """``-softplus(-x)``."""
    softplus = lowering.population(node, "softplus", lowering.call(node, aten.neg.default, node.args[0]))
    return lowering.replace(node, lowering.call(node, aten.neg.default, softplus))


def softplus(lowering: Lowering, node: fx.Node) -> None:
    """``log(1 + exp(beta x)) / beta``."""
    if argument(node, 2, "threshold", 20) < 15:  # above it PyTorch gives x: with 15 or more that is off by 3e-7 at most
        raise UnsupportedOperation(node, "softplus with a threshold below 15 is not one of the neuron kernels")
    x, beta = node.args[0], float(argument(node, 1, "beta", 1.0))
    h = lowering.population(node, "softplus", _scaled(lowering, node, x, beta))
    return lowering.replace(node, _scaled(lowering, node, h, 1 / beta))


def expand_as(lowering: Lowering, node: fx.Node) -> None:
    """Only the shape of the other tensor is used."""
    return lowering.replace(node, _in_shape_of(lowering, node, *node.args[:2]))


def copy(lowering: Lowering, node: fx.Node) -> None:
    """What an assignment in place writes, in the shape of what it overwrites."""
    return lowering.replace(node, _in_shape_of(lowering, node, *node.args[1::-1]))


def _in_shape_of(lowering: Lowering, like: fx.Node, x: fx.Node, other: fx.Node) -> fx.Node:
    sizes = [
        size if isinstance(size, int) else lowering.call(like, aten.sym_size.int, other, d)
        for d, size in enumerate(other.meta["val"].shape)
    ]
    return lowering.call(like, aten.expand.default, x, sizes)


def slice_scatter(lowering: Lowering, node: fx.Node) -> None:
    """Affine; but under ``vmap``, which the steps are taken in, PyTorch refuses an end beyond the last element."""
    size, end = node.meta["val"].shape[argument(node, 2, "dim", 0)], argument(node, 4, "end")
    if end is not None and not (isinstance(size, int) and end < size):
        node.update_arg(4, None)
    lowering.varying.add(node)


SMALL: dict[Callable, Callable[[Lowering, fx.Node], None]] = {
    aten.addcmul.default: addcmul,
    aten.addmm.default: addmm,
    aten.baddbmm.default: addmm,
    aten.linalg_vector_norm.default: vector_norm,
    aten.amax.default: extremum,
    aten.amin.default: extremum,
    aten.max.dim: extremum,
    aten.min.dim: extremum,
    aten.prod.dim_int: prod,
    aten.logsumexp.default: logsumexp,
    aten.expm1.default: exponential,
    aten.exp2.default: exponential,
    aten.pow.Scalar: exponential,
    aten.pow.Tensor_Tensor: learned_power,
    aten.log1p.default: logarithm,
    aten.log2.default: logarithm,
    aten.log10.default: logarithm,
    aten.clamp.Tensor: clamp,
    aten.var.correction: variance,
    aten.std.correction: variance,
    aten.var.dim: variance,
    aten.std.dim: variance,
    aten.var_mean.correction: variance,
    aten.var_mean.dim: variance,
    aten.glu.default: glu,
    aten.prelu.default: prelu,
    aten.log_sigmoid.default: log_sigmoid,
    aten.softplus.default: softplus,
    aten.expand_as.default: expand_as,
    aten.copy.default: copy,
    aten.fill.Tensor: copy,
    aten.slice_scatter.default: slice_scatter,
}
