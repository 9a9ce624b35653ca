"""Which operations of a network read packed trains, and what a spike is worth to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from snn_kernels.backends import C, choose
from snn_kernels.ops.spike_gemm.checks import GPU_BACKENDS, is_by_neuron

from .nodes import call_node
from .packed import JOINING, LAYOUT, PRODUCTS, SCALING, is_sum, on_gpu

__all__ = ["common_amplitude", "plan_amplitudes"]

aten = torch.ops.aten


def plan_amplitudes(
    nodes: Sequence[fx.Node],
    population_scales: Mapping[fx.Node, Tensor],
    values: Mapping[fx.Node, Any],
    anywhere: bool = False,
) -> dict[fx.Node, Tensor]:
    """The operations among ``nodes`` that read packed trains, and what a spike of each feature is worth to them.

    They are the affine maps of a population, whose scale may be one number an input channel, which folds into the
    weights, one a row of a linear map, as where tokens are mixed, or one a neuron; and the sums of such a map and a
    train whose scale is one number a feature of the map. ``values`` are those of one sample.
    With ``anywhere`` the maps are those that read trains on whatever device, and not on this one alone.
    """
    scales: dict[fx.Node, Tensor] = {}
    found: dict[fx.Node, Tensor | None] = {}
    moving = set(nodes)
    for node in nodes:
        source, *others = [source for source in node.all_input_nodes if source in moving] or [None]
        if node in population_scales:
            scales[node] = population_scales[node].expand_as(values[node])
        elif source in scales and node.target in LAYOUT:
            scales[node] = call_node(node, {**values, source: scales[source]})
        elif node.target in JOINING and all(source in scales for source in node.all_input_nodes):
            joined = {source: scales[source].expand_as(values[source]) for source in node.all_input_nodes}
            scales[node] = call_node(node, {**values, **joined})
        elif source in scales and not others and node.target in SCALING and _by_parameters(node, source):
            scales[node] = call_node(node, {**values, source: scales[source]}).expand_as(values[node])
        elif source in scales and not others and is_sum(node):
            scales[node] = scales[source].expand_as(values[node])
        elif source in scales and node.target in PRODUCTS and (anywhere or _takes_trains(node, values)):
            found[node] = _amplitude_of_product(node, scales[source])
        elif is_sum(node):
            found[node] = _amplitude_in_sum(node, found, scales, values)
    return {node: amplitude for node, amplitude in found.items() if amplitude is not None}


def _by_parameters(node: fx.Node, source: fx.Node) -> bool:
    """Whether what ``node`` combines ``source`` with is the network's own, not a sample's."""
    return all(other is source or other.op == "get_attr" for other in node.all_input_nodes)


def _takes_trains(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    """Whether the packed product is the one to take here."""
    backend = choose(None, values[node.args[1]].device)
    return backend in GPU_BACKENDS or (backend == "cpu" and C.isa != "portable")


def _amplitude_of_product(node: fx.Node, scale: Tensor) -> Tensor | None:
    """What a spike of each input is worth, or else of each row of a linear map, or else of each neuron.

    The last two where the sample that ``scale`` is of still has the first dimension to itself; the last not on a GPU.
    """
    of_input = common_amplitude(scale, PRODUCTS[node.target])
    if of_input is not None or len(scale) != 1:
        return of_input
    low, high = scale.aminmax(dim=-1, keepdim=True)
    if node.target is aten.linear.default and torch.equal(low, high):
        return low.contiguous()
    return None if on_gpu(scale) else scale.contiguous()


def _amplitude_in_sum(
    node: fx.Node,
    found: Mapping[fx.Node, Tensor | None],
    scales: Mapping[fx.Node, Tensor],
    values: Mapping[fx.Node, Any],
) -> Tensor | None:
    """What a spike of the train is worth that is added to a packed product."""
    products = [
        source for source in node.all_input_nodes if found.get(source) is not None and source.target in PRODUCTS
    ]
    trains = [source for source in node.all_input_nodes if source in scales]
    if len(products) != 1 or len(trains) != 1 or scales[trains[0]].shape != values[products[0]].shape:
        return None
    scale, feature_dim = scales[trains[0]], PRODUCTS[products[0].target]
    by_feature = common_amplitude(scale, feature_dim)
    if by_feature is None and is_by_neuron(found[products[0]], feature_dim) and len(scale) == 1:
        return scale.contiguous()
    return by_feature


def common_amplitude(scale: Tensor, dim: int) -> Tensor | None:
    """The amplitude along ``dim`` if ``scale`` varies along that dimension alone, else ``None``."""
    others = [d for d in range(scale.ndim) if d != dim % scale.ndim]
    low, high = (scale.amin(others), scale.amax(others)) if others else (scale, scale)
    return low.contiguous() if torch.equal(low, high) else None
