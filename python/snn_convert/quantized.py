"""Weights of 8 bits in a converted network.

A product of packed trains has what a spike of each input is worth in its weights, so that is what is rounded: the
network gets the weights ``W`` for which ``W * amplitude`` are whole multiples of a scale for each output. Whatever else
reads them (offsets, decoded inputs, a staggered run) computes with the same network, in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from snn_kernels import QuantizedWeight, quantize_weight

from .nodes import attribute
from .packed import PRODUCTS
from .rules import argument

__all__ = ["own_weights", "quantized_of", "round_weights"]

# Of a scale: rounding W * amplitude to float32 and back moves it by 127 * 2**-22 of one.
NEAR = 1e-3


def own_weights(network: fx.GraphModule) -> None:
    """Give every map that may read trains a weight of its own: what spikes are worth differs from map to map."""
    sources = (source for node in network.graph.nodes for source in node.all_input_nodes)
    uses = Counter(source.target for source in sources if source.op == "get_attr")
    for node in _maps(network.graph.nodes):
        shared = node.args[1]
        if uses[shared.target] == 1:
            continue
        name, weight = f"weight_of_{node.name}", attribute(network, shared.target)
        network.register_parameter(name, nn.Parameter(weight.detach().clone(), requires_grad=False))
        with network.graph.inserting_before(node):
            own = network.graph.get_attr(name)
        own.meta = dict(shared.meta)
        node.update_arg(1, own)
        uses[shared.target] -= 1
        if not shared.users:
            network.graph.erase_node(shared)
    network.recompile()


def round_weights(network: fx.GraphModule, nodes: Sequence[fx.Node], amplitudes: Mapping[fx.Node, Tensor]) -> None:
    """Bring the weights of the maps among ``nodes`` to 8 bits; ``amplitudes`` are what spikes are worth to them."""
    for node in _maps(nodes):
        path = node.args[1].target
        weight = attribute(network, path)
        worth = _worth(node, weight, amplitudes.get(node))
        rounded = quantize_weight(weight * worth).dequantize()
        rounded = torch.where(worth == 0, weight, rounded / worth)
        owner, _, name = path.rpartition(".")
        learned = isinstance(weight, nn.Parameter)
        setattr(network.get_submodule(owner), name, nn.Parameter(rounded, requires_grad=False) if learned else rounded)


def quantized_of(node: fx.Node, weight: Tensor, amplitude: Tensor) -> QuantizedWeight | None:
    """What the map ``node`` multiplies spikes with, if :func:`round_weights` made it; half precision undoes that."""
    product = weight.float() * _worth(node, weight, amplitude)
    found = quantize_weight(product)
    near = NEAR * found.scale.reshape(-1, *(1,) * (product.ndim - 1))
    return found if ((found.dequantize() - product).abs() <= near).all() else None


def _maps(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    return [node for node in nodes if node.target in PRODUCTS and node.args[1].op == "get_attr"]


def _worth(node: fx.Node, weight: Tensor, amplitude: Tensor | None) -> Tensor:
    """What a spike of each input is worth, as a factor of the weights; 1 where that is not a matter of the input."""
    if amplitude is None or amplitude.ndim != 1:
        return weight.new_ones(())
    groups = argument(node, 6, "groups", 1) if PRODUCTS[node.target] == 1 else 1
    of_inputs = amplitude.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
    return of_inputs.reshape(*of_inputs.shape, *(1,) * (weight.ndim - 2))
