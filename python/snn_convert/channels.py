"""Which dimensions of a tensor tell its channels apart: what a per-channel scale runs along."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from .rules import CONVOLUTIONS

__all__ = ["batch_dims", "channel_dims"]

aten = torch.ops.aten

RESHAPES = {
    aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.unflatten.int,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
}  # fmt: skip
REDUCTIONS = {aten.select.int, aten.mean.dim, aten.sum.dim_IntList}


def channel_dims(
    node: fx.Node, of_population: Callable[[fx.Node], tuple[int, ...]], known: dict[fx.Node, tuple[int, ...]]
) -> tuple[int, ...]:
    """The channel dimensions of ``node``, from the map that computes it and what moved its dimensions since.

    A linear map has one weight row an index of its last dimension, a convolution of its second. Dimensions that
    carry samples are never among them, so that a scale fits every batch.

    Args:
        of_population: the channel dimensions of a population's output.
        known: dimensions found before; filled in.
    """
    if node in known:
        return known[node]
    pending = [node]
    while (source := _source(pending[-1])) is not None and source not in known:  # no recursion: chains may be long
        pending.append(source)
    for found in reversed(pending):
        if found.op == "call_module":
            dims = of_population(found)
        else:
            ndim = len(_shape(found))
            dims = (d % ndim for d in _dims(found, ndim, known))
        samples = batch_dims(found)
        known[found] = tuple(sorted({d for d in dims if d not in samples}))
    return known[node]


def _source(node: fx.Node) -> fx.Node | None:
    """The input that ``node`` has its dimensions from: the one with the most."""
    if node.op != "call_function":
        return None
    sources = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor)]
    return max(sources, key=lambda source: len(_shape(source)), default=None)


def batch_dims(node: fx.Node) -> set[int]:
    """The dimensions whose size changes with the batch."""
    return {d for d, size in enumerate(_shape(node)) if not isinstance(size, int)}


def _shape(node: fx.Node) -> tuple:
    return tuple(node.meta["val"].shape)


def _sizes(node: fx.Node) -> list[int]:
    return [size if isinstance(size, int) else size.node.hint for size in _shape(node)]


def _dims(node: fx.Node, ndim: int, known: dict[fx.Node, tuple[int, ...]]) -> tuple[int, ...]:
    target, source = node.target, _source(node)
    if source is None:
        return (1,) if ndim in (2, 4, 5) else (-1,) if ndim else ()
    if target in CONVOLUTIONS:
        return (1,)
    if target in (aten.linear.default, aten.embedding.default):
        return (-1,)
    if target in (aten.matmul.default, aten.mm.default, aten.bmm.default):
        return (-2,) if node.args[0].op == "get_attr" else (-1,)
    before, dims = len(_shape(source)), known[source]
    if target in RESHAPES:
        return _through_reshape(_sizes(source), _sizes(node), dims)
    if target is aten.permute.default:
        order = [d % ndim for d in node.args[1]]
        return tuple(order.index(d) for d in dims)
    if target is aten.transpose.int:
        swap = {node.args[1] % ndim: node.args[2] % ndim, node.args[2] % ndim: node.args[1] % ndim}
        return tuple(swap.get(d, d) for d in dims)
    if target in REDUCTIONS and ndim < before:
        gone = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        gone = {d % before for d in gone}
        return tuple(d - sum(g < d for g in gone) for d in dims if d not in gone)
    if target is aten.stack.default:
        new = (node.args[1] if len(node.args) > 1 else 0) % ndim
        return tuple(d + (d >= new) for d in dims)
    if before <= ndim:  # elementwise, broadcasting, rolls, slices
        return tuple(d + ndim - before for d in dims)
    return (-1,)


def _through_reshape(before: list[int], after: list[int], dims: tuple[int, ...]) -> tuple[int, ...]:
    """Dimensions of ``after`` that index what ``dims`` of ``before`` index: both are cut where their products agree."""
    found, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        first_i, first_j = i, j
        left, right, i, j = before[i], after[j], i + 1, j + 1
        while left != right and (i < len(before) or j < len(after)):
            if (left < right or j == len(after)) and i < len(before):
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        if any(first_i <= d < i for d in dims):
            found += [d for d in range(first_j, j) if after[d] > 1]
    return tuple(found)
