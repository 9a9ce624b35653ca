"""Activations that a model writes out as a formula, such as ``0.5 * x * (1 + erf(x / sqrt(2)))``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from .nodes import call_node
from .rules import TRANSPARENT, passes_on

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["name_formulas"]

aten = torch.ops.aten

# What a formula ends with, and what it is made of besides numbers.
LAST = {
    aten.mul.Tensor, aten.div.Tensor, aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.where.self,
    aten.where.ScalarSelf, aten.where.ScalarOther, aten.index_put.default, aten.maximum.default, aten.max.other,
}  # fmt: skip
NAMES = "neg abs square reciprocal exp expm1 erf log1p tanh sigmoid softplus relu6 hardtanh hardsigmoid clamp "
NAMES += "clamp_min clamp_max zeros_like ones_like logical_not bitwise_not"
ELEMENTWISE = LAST | {getattr(aten, name).default for name in NAMES.split()}
ELEMENTWISE |= {getattr(aten, name).Scalar for name in ("gt", "ge", "lt", "le")}
ELEMENTWISE |= {aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar, aten.pow.Tensor_Scalar, aten.where.Scalar}
MOST_NODES = 24  # of a formula
FAR = 500.0  # where the activations below are 0 on one side, or a line, and the identity on the other
PLACES = torch.tensor([*(n / 40 for n in range(-480, 481)), -FAR, FAR], dtype=torch.float64)
TOLERANCE = 1e-6  # of the constants that models round


def name_formulas(lowering: Lowering) -> None:
    """Replace formulas by the one operation that computes the same, which is then one population of neurons.

    What a formula computes is found out by evaluating it: neither its form nor its order matters, nor a factor. The
    models of ``transformers`` write out gelu (ESM), its approximation by tanh (GPT-2, BLOOM) and by sigmoid (CLIP);
    others choose between branches, ``where(x > 0, x, 0.1 * x)``.
    """
    order = {node: place for place, node in enumerate(lowering.graph.nodes)}
    for node in reversed(order):  # the last operation of a formula comes before its parts
        if node.target in LAST and node.meta["val"].is_floating_point() and not _is_scaled(lowering, node):
            _name(lowering, node, order)


def _is_scaled(lowering: Lowering, node: fx.Node) -> bool:
    """A number times a node, which may have a name of its own and be used elsewhere."""
    values = [source for source in node.all_input_nodes if not _is_number(lowering, source)]
    return node.target in (aten.mul.Tensor, aten.div.Tensor) and len(values) < 2


def _name(lowering: Lowering, node: fx.Node, order: dict[fx.Node, int]) -> None:
    for x, formula in _sources(lowering, node, order):
        named = _named(lowering, node, x, _values(lowering, x, formula))
        if named is not None:
            lowering.replace(node, named)
            for part in reversed(formula[:-1]):
                if not part.users and part.op != "get_attr":
                    lowering.graph.erase_node(part)
            return


def _sources(lowering: Lowering, node: fx.Node, order: dict[fx.Node, int]) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """The nodes that ``node`` is an elementwise function of, the nearest first, with the nodes that compute it."""
    formula, ends, numbers = [], {node}, []
    while ends and len(formula) < MOST_NODES:
        last = max(ends, key=order.__getitem__)
        if len(ends) == 1 and formula and last.meta["val"].is_floating_point():
            yield last, numbers + formula[::-1]
        if last.target not in ELEMENTWISE and not _is_passing(last):
            return
        formula.append(last)
        numbers += [source for source in last.all_input_nodes if _is_number(lowering, source)]
        ends = (ends - {last}) | {source for source in last.all_input_nodes if source not in numbers}


def _is_passing(node: fx.Node) -> bool:
    return node.op == "call_function" and (node.target in TRANSPARENT or passes_on(node))


def _is_number(lowering: Lowering, node: fx.Node) -> bool:
    return node.op == "get_attr" and lowering.tensor(node).ndim == 0


def _values(lowering: Lowering, x: fx.Node, formula: list[fx.Node]) -> Tensor:
    """What the formula gives at ``PLACES``, in float64."""
    values = {x: PLACES}
    for node in formula:
        if node.op == "get_attr":
            values[node] = lowering.tensor(node).to(PLACES)
        else:
            values[node] = call_node(node, values) if node.target in ELEMENTWISE else values[node.args[0]]
    return values[formula[-1]]


def _candidates(values: Tensor) -> Iterator[tuple[Callable, tuple, dict, float]]:
    """Operations ``h`` with ``h(x) / x`` from 0 to 1, their parameters, and the factors ``c`` in ``h(c x) / c``, as the
    values let one think."""
    at_one, left = values[PLACES == 1.0], values[PLACES == -FAR].item()
    yield aten.relu.default, (), {}, 1.0
    if left < 0 and not math.isclose(left, -FAR, rel_tol=TOLERANCE):  # which is the identity
        yield aten.leaky_relu.default, (-left / FAR,), {}, 1.0
        yield aten.elu.default, (-left,), {}, 1.0
    yield aten.gelu.default, (), {}, torch.special.ndtri(at_one).item()
    yield aten.gelu.default, (), {"approximate": "tanh"}, 1.0
    yield aten.silu.default, (), {}, torch.logit(at_one).item()
    yield aten.mish.default, (), {}, 1.0
    yield aten.hardswish.default, (), {}, 1.0


def _named(lowering: Lowering, node: fx.Node, x: fx.Node, values: Tensor) -> fx.Node | None:
    """``slope / c * h(c x)`` before ``node``, if a known ``h`` gives the values."""
    if values.shape != PLACES.shape:
        return None
    slope = (values[-1] / FAR).item()
    if slope == 0.0 or not math.isfinite(slope):
        return None
    values = values / slope
    for operation, args, options, c in _candidates(values):
        if not 0 < c < math.inf:
            continue
        error = (values - operation(c * PLACES, *args, **options) / c).abs()
        if (error <= TOLERANCE * PLACES.abs().clamp(min=1.0)).all():
            scaled = _scaled(lowering, node, x, c)
            return _scaled(lowering, node, lowering.call(node, operation, scaled, *args, **options), slope / c)
    return None


def _scaled(lowering: Lowering, like: fx.Node, x: fx.Node, factor: float) -> fx.Node:
    return x if abs(factor - 1.0) <= TOLERANCE else lowering.call(like, aten.mul.Tensor, x, factor)
