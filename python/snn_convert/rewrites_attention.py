"""Attention: products of two activations, softmax, and the masks between them.

A mask is a coefficient. Minus infinity before a softmax has no decoded input that could hold it, so masks are taken
out of its argument and multiply its exponentials by 0 or 1, which is the same number. They multiply its value too:
neurons only approach 0, and what is masked is to have no influence at any step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from .errors import UnsupportedOperation
from .folding import scaled
from .rules import argument, einsum_of_two

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["ATTENTION", "matmul", "softmax"]

aten = torch.ops.aten

# A summand of a softmax's argument at or below this is a mask: exp(-1e4) is 0 in any floating-point type.
MASKED = -1e4


def matmul(lowering: Lowering, like: fx.Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """``a @ b``: affine in the one that varies, or a neuron an element whose target is the product of both."""
    if not (lowering.varies(a) and lowering.varies(b)):
        return lowering.call(like, aten.matmul.default, a, b)
    of_a, of_b = lowering.channel_dims(a), lowering.channel_dims(b)
    a_ndim, b_ndim = a.meta["val"].ndim, b.meta["val"].ndim
    if min(a_ndim, b_ndim) < 2:
        raise UnsupportedOperation(like, "a product with a vector of activations: give it two dimensions")
    ndim = max(a_ndim, b_ndim)
    # Rows come from a, columns from b; what is summed over is neither's.
    channels = {d + ndim - a_ndim for d in of_a if d != a_ndim - 1} | {
        d + ndim - b_ndim for d in of_b if d != b_ndim - 2
    }
    return lowering.vector_population(like, "matmul", a, b, channel_dim=tuple(channels))


def einsum(lowering: Lowering, node: fx.Node) -> None:
    equation, operands = node.args[:2]
    if len(operands) != 2:
        raise UnsupportedOperation(node, "einsum of two tensors is supported: split it")
    if all(map(lowering.varies, operands)):
        ndim = node.meta["val"].ndim
        product = lowering.vector_population(node, "einsum", *operands, channel_dim=(ndim - 1,), equation=equation)
        return lowering.replace(node, product)
    return lowering.replace(node, lowering.call(node, einsum_of_two, equation, *operands))


def softmax(lowering: Lowering, like: fx.Node, x: fx.Node, dim: int, keep: fx.Node | None = None) -> fx.Node:
    """Softmax of ``x + masks`` along ``dim``; ``keep`` is 0 where another mask leaves nothing, else 1."""
    x, keep = _without_masks(lowering, like, x, keep)
    ndim = x.meta["val"].ndim
    channels = tuple(d for d in lowering.channel_dims(x) if d != dim % ndim)
    if lowering.normalisation == "vector":
        if keep is None:
            return lowering.vector_population(like, "softmax", x, channel_dim=channels, dim=dim)
        weights = lowering.vector_population(like, "masked_softmax", x, keep, channel_dim=channels, dim=dim)
        return lowering.call(like, aten.mul.Tensor, weights, keep)
    e = lowering.population(like, "exp", x, channel_dim=channels)
    if keep is not None:
        e = lowering.call(like, aten.mul.Tensor, e, keep)
    total = lowering.call(like, aten.sum.dim_IntList, e, [dim], True)
    if keep is not None:  # a row that keeps nothing is 0 / 1
        some = lowering.call(like, aten.amax.default, keep, [dim], True)
        total = lowering.call(like, aten.add.Tensor, total, lowering.call(like, aten.rsub.Scalar, some, 1.0))
    weights = lowering.population(like, "divide", e, total, channel_dim=channels)
    return weights if keep is None else lowering.call(like, aten.mul.Tensor, weights, keep)


SUMS = (aten.add.Tensor, aten.sub.Tensor)


def _without_masks(
    lowering: Lowering, like: fx.Node, x: fx.Node, keep: fx.Node | None
) -> tuple[fx.Node, fx.Node | None]:
    """``x`` with the masks among its summands taken out and multiplied into ``keep``."""
    summands = []
    while x.target in SUMS and not x.kwargs and all(isinstance(arg, fx.Node) for arg in x.args):
        a, b = x.args if lowering.varies(x.args[0]) else x.args[::-1]
        negated = x.target is aten.sub.Tensor
        if lowering.varies(b) or (negated and b is x.args[0]):
            break
        x = a
        summands.append(lowering.call(like, aten.neg.default, b) if negated else b)
    for summand in reversed(summands):
        if _may_mask(lowering, summand):
            masked = lowering.call(like, aten.le.Scalar, summand, MASKED)
            keep = _both(lowering, like, keep, _as_keep(lowering, like, masked, inverted=True))
            summand = lowering.call(like, aten.masked_fill.Scalar, summand, masked, 0.0)
        x = lowering.call(like, aten.add.Tensor, x, summand)
    return x, keep


def _may_mask(lowering: Lowering, summand: fx.Node) -> bool:
    """Whether a summand holds a mask: of one that comes with the input nobody knows beforehand."""
    value = None if summand in lowering.static else lowering.fixed_value(summand)
    return value is None or bool((value <= MASKED).any())


def _keeps_all(lowering: Lowering, mask: fx.Node) -> bool:
    """Whether a boolean mask is known beforehand to mask nothing: encoders of images are given such."""
    value = None if mask in lowering.static else lowering.fixed_value(mask)
    return value is not None and bool(value.all())


def _as_keep(lowering: Lowering, like: fx.Node, mask: fx.Node, inverted: bool = False) -> fx.Node:
    """A boolean mask as the factors 0 and 1."""
    mask = lowering.call(like, aten.logical_not.default, mask) if inverted else mask
    return lowering.call(like, aten._to_copy.default, mask, dtype=torch.float32)


def _both(lowering: Lowering, like: fx.Node, a: fx.Node | None, b: fx.Node) -> fx.Node:
    return b if a is None else lowering.call(like, aten.mul.Tensor, a, b)


def softmax_node(lowering: Lowering, node: fx.Node) -> None:
    return lowering.replace(node, softmax(lowering, node, node.args[0], node.args[1]))


def log_softmax(lowering: Lowering, node: fx.Node) -> None:
    """``x - log(sum(exp(x)))``."""
    x, dim = node.args[:2]
    if lowering.normalisation == "vector":
        channels = lowering.channel_dims(x)
        return lowering.replace(node, lowering.vector_population(node, "log_softmax", x, channel_dim=channels, dim=dim))
    e = lowering.population(node, "exp", x)
    total = lowering.call(node, aten.sum.dim_IntList, e, [dim], True)
    return lowering.replace(node, lowering.call(node, aten.sub.Tensor, x, lowering.population(node, "log", total)))


def attention(lowering: Lowering, node: fx.Node) -> None:
    """``softmax(q @ k.T * scale + mask) @ v``."""
    q, k, v = node.args[:3]
    mask, causal = argument(node, 3, "attn_mask"), argument(node, 5, "is_causal", False)
    scale, gqa = node.kwargs.get("scale"), node.kwargs.get("enable_gqa", False)
    length, width = (int(size) for size in q.meta["val"].shape[-2:])
    if gqa:
        k, v = (_repeat_heads(lowering, node, x, q.meta["val"].shape[-3]) for x in (k, v))
    q = scaled(lowering, node, q, 1 / math.sqrt(width) if scale is None else float(scale))
    scores = matmul(lowering, node, q, lowering.call(node, aten.transpose.int, k, -2, -1))
    keep = None
    if causal:
        lower = torch.ones(length, int(k.meta["val"].shape[-2]), dtype=torch.float32).tril()
        keep = lowering.constant(node, "causal", lower)
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        if not _keeps_all(lowering, mask):
            keep = _both(lowering, node, keep, _as_keep(lowering, node, mask))
    elif mask is not None:
        scores = lowering.call(node, aten.add.Tensor, scores, mask)
    if not lowering.varies(scores):
        raise UnsupportedOperation(node, "attention whose queries and keys depend on no activation")
    weights = softmax(lowering, node, scores, -1, keep)
    return lowering.replace(node, matmul(lowering, node, weights, v))


def _repeat_heads(lowering: Lowering, like: fx.Node, x: fx.Node, heads: int) -> fx.Node:
    """Grouped keys or values ``[*, G, S, D]`` once for each of the ``heads`` queries."""
    count = int(heads) // int(x.meta["val"].shape[-3])
    return lowering.call(like, aten.repeat_interleave.self_int, x, count, -3)


def masked_fill(lowering: Lowering, node: fx.Node) -> None:
    """``x * keep + filling``, both without neurons."""
    x, mask, value = node.args[:3]
    if lowering.varies(mask):
        raise UnsupportedOperation(node, "a mask that is computed from activations")
    filling = lowering.call(node, aten.zeros_like.default, mask, dtype=torch.float32)
    fill = aten.masked_fill.Tensor if isinstance(value, fx.Node) else aten.masked_fill.Scalar
    filling = lowering.call(node, fill, filling, mask, value)
    keep = _as_keep(lowering, node, mask, inverted=True)
    kept = lowering.call(node, aten.mul.Tensor, x, keep) if lowering.varies(x) else x
    return lowering.replace(node, lowering.call(node, aten.add.Tensor, kept, filling))


def where(lowering: Lowering, node: fx.Node) -> None:
    """A choice by a mask: ``a * keep`` plus what does not vary, or affine in both."""
    mask, a, b = node.args[:3]
    if lowering.varies(mask):
        raise UnsupportedOperation(node, "a choice by a mask that is computed from activations")
    if lowering.varies(a) and lowering.varies(b):
        lowering.varying.add(node)
        return None
    varying, other = (a, b) if lowering.varies(a) else (b, a)
    if not isinstance(other, fx.Node):
        other = lowering.constant(node, "otherwise", torch.tensor(float(other), dtype=torch.float32))
    zero = lowering.constant(node, "zero", torch.zeros((), dtype=torch.float32))
    sides = (zero, other) if varying is a else (other, zero)
    filling = lowering.call(node, aten.where.self, mask, *sides)
    keep = _as_keep(lowering, node, mask, inverted=varying is b)
    kept = lowering.call(node, aten.mul.Tensor, varying, keep)
    return lowering.replace(node, lowering.call(node, aten.add.Tensor, kept, filling))


ATTENTION: dict[Callable, Callable[[Lowering, fx.Node], Tensor | None]] = {
    aten.softmax.int: softmax_node,
    aten._softmax.default: softmax_node,
    aten.log_softmax.int: log_softmax,
    aten._log_softmax.default: log_softmax,
    aten.scaled_dot_product_attention.default: attention,
    aten.einsum.default: einsum,
    aten.masked_fill.Scalar: masked_fill,
    aten.masked_fill.Tensor: masked_fill,
    aten.where.self: where,
    aten.where.ScalarOther: where,
    aten.where.ScalarSelf: where,
}
