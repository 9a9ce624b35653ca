"""How many multiplications and accumulations the affine maps of a network take, with spikes and without."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from .engine import Engine, Kind
from .nodes import call_node
from .packed import LAYOUT, SCALING
from .rules import CONVOLUTIONS, argument, einsum_of_two

__all__ = ["Work", "feeders", "work_of_synapses"]

aten = torch.ops.aten

# Maps with weights; their bias is at 2.
WITH_BIAS = CONVOLUTIONS | {aten.linear.default}
PRODUCTS = {aten.matmul.default, aten.mm.default, aten.bmm.default, einsum_of_two}
# A spike reaches an output of these or not: they do with numbers of spikes what they do with values.
COPYING = LAYOUT | {
    aten.t.default, aten.squeeze.default, aten.expand.default, aten.repeat.default, aten.roll.default,
    aten.flip.default, aten.repeat_interleave.self_int, aten.cat.default, aten.stack.default,
    aten.sum.dim_IntList, aten.sum.default,
    aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int, aten.index.Tensor,
    aten.index_select.default, aten.gather.default, aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default,
    aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.channel_shuffle.default, aten.where.self,
    operator.getitem,
}  # fmt: skip
ADDING = {aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.rsub.Scalar}


@dataclass
class Work:
    """Operations on a batch: of the ANN, and of the spiking network in all its steps."""

    ann_macs: int = 0
    macs: int = 0
    accumulates: int = 0

    def __iadd__(self, other: Work) -> Work:
        self.ann_macs += other.ann_macs
        self.macs += other.macs
        self.accumulates += other.accumulates
        return self


def feeders(node: fx.Node) -> set[fx.Node]:
    """The nodes between ``node`` and the neurons, inputs and parameters that it is computed from."""
    found, pending = set(), [node]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source.op == "call_function" and source not in found:
                found.add(source)
                pending.append(source)
    return found


@torch.no_grad()
def work_of_synapses(
    engine: Engine, values: Mapping[fx.Node, Any], spikes: Mapping[fx.Node, Tensor], steps: int
) -> dict[fx.Node, Work]:
    """The work of every map with weights and every product of two activations.

    Args:
        values: those of :meth:`Engine.start`.
        spikes: the number of spikes of every neuron, ``[B, *]`` float32, by population; of an input that is encoded
            as spikes too.
        steps: how often a map is evaluated that no spikes reach, only analog currents.
    """
    moving = set(engine.chunk_nodes)
    read_out = feeders(engine.output)
    arriving: dict[fx.Node, Any] = {}  # spikes on their way, by what they have reached; None: analog currents
    found: dict[fx.Node, Work] = {}
    for node in engine.nodes:
        weighted = node.target in WITH_BIAS | PRODUCTS
        if engine.kinds[node] == Kind.NEURON:
            arriving[node] = spikes.get(node)
            if node.op == "call_module" and engine.population(node).activation in ("matmul", "einsum"):
                macs = _products(engine, node, values)
                found[node] = Work(macs, steps * macs)
        elif weighted and engine.kinds[node] == Kind.STATIC:
            macs = _connections(node, values, {})
            found[node] = Work(macs, macs)
        elif engine.kinds[node] == Kind.CURRENT:
            if weighted:
                found[node] = _of_map(node, values, arriving, steps, node in moving, node in read_out)
            arriving[node] = None if weighted else _passed(node, values, arriving)
    return found


def _of_map(node: fx.Node, values: Mapping, arriving: Mapping, steps: int, every_step: bool, in_read_out: bool) -> Work:
    macs = _connections(node, values, {})
    work = Work(macs, macs if in_read_out else 0)
    if every_step:
        counts = {source: arriving[source] for source in node.all_input_nodes if source in arriving}
        if any(count is None for count in counts.values()):
            work.macs += steps * macs
        else:
            work.accumulates = _connections(node, values, counts)
    return work


def _connections(node: fx.Node, values: Mapping[fx.Node, Any], counts: Mapping[fx.Node, Tensor]) -> int:
    """``sum_i counts_i * fan_out_i`` over the operand's elements, each counted once where ``counts`` has none.

    It is the map itself with all weights 1: products with padding are not among them.
    """
    floats = [source for source in node.all_input_nodes if _is_float(values[source])]
    ones = {source: torch.ones_like(values[source], dtype=torch.float32) for source in floats}
    args = list(node.args)
    if node.target in WITH_BIAS and len(args) > 2:
        args[2] = None
    kwargs = {key: value for key, value in node.kwargs.items() if key != "bias"}
    filled, kwargs = fx.node.map_arg((tuple(args), kwargs), {**values, **ones, **counts}.__getitem__)
    return round(node.target(*filled, **kwargs).sum(dtype=torch.float64).item())


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _products(engine: Engine, node: fx.Node, values: Mapping[fx.Node, Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        engine.population(node)(*(values[source] for source in node.args))
    return counter.get_total_flops() // 2


def _passed(node: fx.Node, values: Mapping[fx.Node, Any], arriving: Mapping[fx.Node, Any]) -> Any:
    """How many spikes reach each element of ``node``, or ``None`` where its operation blends them."""
    moving = {source: arriving[source] for source in node.all_input_nodes if source in arriving}
    if any(count is None for count in moving.values()):
        return None
    if node.target in ADDING:
        return sum(count.expand_as(values[node]) for count in moving.values())
    (first, *_) = moving.values()
    if node.target in SCALING:
        other = [values[arg] for arg in node.args if isinstance(arg, fx.Node) and arg not in moving]
        return first.expand_as(values[node]) * (other[0] != 0) if other else first
    if node.target in COPYING:
        still = {
            s: torch.zeros_like(values[s]) for s in node.all_input_nodes if s not in moving and _is_float(values[s])
        }
        return call_node(node, {**values, **still, **moving})
    return _summed(node, first, values[node])


def _summed(node: fx.Node, count: Tensor, value: Tensor) -> Tensor | None:
    """A mean delivers every spike of its window; padding delivers none."""
    args = node.args
    if node.target is aten.mean.dim:
        return count.sum(args[1], keepdim=bool(argument(node, 2, "keepdim", False)))
    if node.target is aten.mean.default:
        return count.sum()
    if node.target is aten.avg_pool2d.default:
        stride, padding = argument(node, 2, "stride") or args[1], argument(node, 3, "padding", 0)
        return F.avg_pool2d(count, args[1], stride, padding, bool(argument(node, 4, "ceil_mode", False)), True, 1)
    if node.target is aten.adaptive_avg_pool2d.default:
        windows = [before / after for before, after in zip(count.shape[-2:], value.shape[-2:])]
        equal = all(window.is_integer() for window in windows)
        return aten.adaptive_avg_pool2d.default(count, args[1]) * windows[0] * windows[1] if equal else None
    if node.target in (aten.pad.default, aten.constant_pad_nd.default):
        return node.target(count, *args[1:3]) if node.target is aten.pad.default else node.target(count, args[1])
    return None
