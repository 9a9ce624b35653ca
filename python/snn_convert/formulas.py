"""Activations that a model writes out as a formula, such as ``0.5 * x * (1 + erf(x / sqrt(2)))``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .nodes import call_node
from .rules import TRANSPARENT, passes_on

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["name_formulas"]

aten = torch.ops.aten

# What formulas are made of, besides numbers.
NAMES = "neg square reciprocal exp erf log1p tanh sigmoid softplus relu6 hardtanh hardsigmoid clamp clamp_min clamp_max"
ELEMENTWISE = {getattr(aten, name).default for name in NAMES.split()} | {aten.rsub.Scalar, aten.pow.Tensor_Scalar}
ELEMENTWISE |= {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
MOST_NODES = 24  # of a formula
FAR = 500.0  # where the activations below are 0 on one side and the identity on the other
PLACES = torch.tensor([*(n / 40 for n in range(-480, 481)), -FAR, FAR], dtype=torch.float64)
TOLERANCE = 1e-6  # of the constants that models round
# The activations h with h(x) / x from 0 to 1, the operation that computes each, and the factor c in
# h(c x) / c that h(c) / c tells, where the formula may have one.
KNOWN: list[tuple[Callable, dict, Callable, Callable | None]] = [
    (aten.gelu.default, {}, F.gelu, torch.special.ndtri),
    (aten.gelu.default, {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh"), None),
    (aten.silu.default, {}, F.silu, torch.logit),
    (aten.mish.default, {}, F.mish, None),
    (aten.hardswish.default, {}, F.hardswish, None),
]


def name_formulas(lowering: Lowering) -> None:
    """Replace formulas by the one operation that computes the same, which is then one population of neurons.

    What a formula computes is found out by evaluating it: neither its form nor its order matters, nor a factor. The
    models of ``transformers`` write out gelu (ESM), its approximation by tanh (GPT-2, BLOOM) and by sigmoid (CLIP).
    """
    order = {node: place for place, node in enumerate(lowering.graph.nodes)}
    for node in reversed(order):  # the last operation of a formula comes before its parts
        if node.target in (aten.mul.Tensor, aten.div.Tensor) and node.meta["val"].is_floating_point():
            _name(lowering, node, order)


def _name(lowering: Lowering, node: fx.Node, order: dict[fx.Node, int]) -> None:
    for x, formula in _sources(node, order):
        named = _named(lowering, node, x, _values(x, formula))
        if named is not None:
            lowering.replace(node, named)
            for part in reversed(formula[:-1]):
                if not part.users:
                    lowering.graph.erase_node(part)
            return


def _sources(node: fx.Node, order: dict[fx.Node, int]) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """The nodes that ``node`` is an elementwise function of, the nearest first, with the nodes that compute it."""
    formula, ends = [], {node}
    while ends and len(formula) < MOST_NODES:
        last = max(ends, key=order.__getitem__)
        if len(ends) == 1 and formula:
            yield last, formula[::-1]
        if last.target not in ELEMENTWISE and not _is_passing(last):
            return
        formula.append(last)
        ends = (ends - {last}) | set(last.all_input_nodes)


def _is_passing(node: fx.Node) -> bool:
    return node.op == "call_function" and (node.target in TRANSPARENT or passes_on(node))


def _values(x: fx.Node, formula: list[fx.Node]) -> Tensor:
    """What the formula gives at ``PLACES``, in float64."""
    values = {x: PLACES}
    for node in formula:
        values[node] = call_node(node, values) if node.target in ELEMENTWISE else values[node.args[0]]
    return values[formula[-1]]


def _named(lowering: Lowering, node: fx.Node, x: fx.Node, values: Tensor) -> fx.Node | None:
    """``slope / c * h(c x)`` before ``node``, if a known ``h`` gives the values."""
    slope = (values[-1] / FAR).item()
    if slope == 0.0 or not math.isfinite(slope):
        return None
    share = values[PLACES == 1.0] / slope
    for operation, options, function, factor in KNOWN:
        c = 1.0 if factor is None else factor(share).item()
        if not 0 < c < math.inf:
            continue
        error = (values - slope / c * function(c * PLACES)).abs()
        if (error <= TOLERANCE * abs(slope) * PLACES.abs().clamp(min=1.0)).all():
            return _scaled(
                lowering, node, lowering.call(node, operation, _scaled(lowering, node, x, c), **options), slope / c
            )
    return None


def _scaled(lowering: Lowering, like: fx.Node, x: fx.Node, factor: float) -> fx.Node:
    return x if abs(factor - 1.0) <= TOLERANCE else lowering.call(like, aten.mul.Tensor, x, factor)
