"""Turn an exported graph into affine operations and calls of populations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from snn_kernels.activations import ActivationSpec

from . import rewrites
from .errors import UnsupportedOperation
from .population import Population
from .rules import AFFINE, BINARY, TRANSPARENT, UNARY

__all__ = ["Lowering", "lower"]

VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)

SUPPORTED_FORMS = (
    "supported are affine operations, the activations in snn_kernels.ACTIVATIONS, and products, quotients and maxima "
    "of two activations; rewrite this place with these, or add a rule to snn_convert/rules.py"
)


def lower(network: fx.GraphModule, substitutes: dict[str, str] | None = None) -> fx.GraphModule:
    """Rewrite ``network`` in place until every node that depends on an input is affine or a :class:`Population`.

    Args:
        substitutes: activations to use in place of others, such as ``{"gelu": "gelu_sigmoid"}``.

    Raises:
        UnsupportedOperation: an operation has no rule.
    """
    Lowering(network, substitutes or {}).run()
    return network


class Lowering:
    """The state of one pass over the graph, and what rules need of it."""

    def __init__(self, network: fx.GraphModule, substitutes: dict[str, str]):
        self.network, self.graph, self.substitutes = network, network.graph, substitutes
        self.varying: set[fx.Node] = set()  # tensors that depend on an input
        self.names: set[str] = set()
        network.add_submodule("populations", torch.nn.Module())

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node.op == "placeholder":
                self.varying.add(node)
            elif node.op in ("call_function", "call_module"):
                self._lower(node)
        self.graph.eliminate_dead_code()
        self.network.delete_all_unused_submodules()
        self.graph.lint()
        self.network.recompile()

    def varies(self, value: object) -> bool:
        return isinstance(value, fx.Node) and value in self.varying

    def _lower(self, node: fx.Node) -> None:
        target = node.target
        if target is torch.ops.aten.sym_size.int or not any(map(self.varies, node.all_input_nodes)):
            return
        if target in TRANSPARENT:
            return self.replace(node, node.args[0])
        if target in rewrites.REWRITES:
            return rewrites.REWRITES[target](self, node)
        if target in UNARY:
            try:
                activation = UNARY[target](node)
            except ValueError as error:
                raise UnsupportedOperation(node, str(error)) from None
            return self.replace(node, self.population(node, activation, node.args[0]))
        if target in BINARY and self.varies(node.args[1]):
            return rewrites.binary(self, node, BINARY[target])
        if target in VIEWS:  # spikes and estimates need not lie in memory as the ANN's values do
            node.target = target = torch.ops.aten.reshape.default
        if target in AFFINE and self._fits(node, AFFINE[target]):
            self.varying.add(node)
            return None
        raise UnsupportedOperation(node, SUPPORTED_FORMS)

    def _fits(self, node: fx.Node, groups: list[tuple[int, ...] | None]) -> bool:
        """Whether the arguments that depend on an input are ones the operation is affine in together."""
        varying = {i for i, arg in enumerate(node.args) if self.varies(arg)}
        return None in groups or any(varying <= set(group) for group in groups if group is not None)

    # What rewritings are made of.

    def call(self, like: fx.Node, target: Callable, *args, **kwargs) -> fx.Node:
        """A new affine node before ``like``, from the same place in the user's model."""
        with self.graph.inserting_before(like):
            node = self.graph.call_function(target, args, kwargs)
        return self._adopt(node, like)

    def population(self, like: fx.Node, activation: ActivationSpec, *inputs: fx.Node, channel_dim: int | None = None):
        """A new population before ``like``."""
        name, *constants = (activation,) if isinstance(activation, str) else activation
        activation = (self.substitutes.get(name, name), *constants)
        if channel_dim is None:
            channel_dim = self.channel_dim(inputs[0])
        path = f"populations.{self._unused_name(like)}"
        self.network.add_submodule(path, Population(activation, len(inputs), channel_dim))
        with self.graph.inserting_before(like):
            node = self.graph.call_module(path, inputs)
        return self._adopt(node, like)

    def constant(self, like: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
        """A new tensor of the network."""
        name = f"{name}_{len(dict(self.network.named_buffers()))}"
        self.network.register_buffer(name, value)
        with self.graph.inserting_before(like):
            node = self.graph.get_attr(name)
        node.meta.update(like.meta)
        return node

    def replace(self, node: fx.Node, by: fx.Node) -> None:
        if "val" in node.meta:
            by.meta.setdefault("val", node.meta["val"])
        node.replace_all_uses_with(by)
        self.graph.erase_node(node)

    def tensor(self, node: fx.Node) -> torch.Tensor:
        """The value of a parameter or buffer node.

        Raises:
            UnsupportedOperation: it is computed.
        """
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            raise UnsupportedOperation(node, "it has to be a parameter or a buffer of the model")
        value = self.network
        for part in node.target.split("."):
            value = getattr(value, part)
        return value

    def channel_dim(self, node: fx.Node) -> int:
        """The dimension along which the map that feeds ``node`` has a row of weights for each index."""
        aten = torch.ops.aten
        while node.op == "call_function" and node.all_input_nodes:
            if node.target in (aten.conv1d.default, aten.conv2d.default):
                return 1
            if node.target is aten.linear.default:
                return -1
            node = node.all_input_nodes[0]
        if node.op == "call_module":
            return self.network.get_submodule(node.target).channel_dim
        return 1

    def _adopt(self, node: fx.Node, like: fx.Node) -> fx.Node:
        node.meta = {key: like.meta[key] for key in ("nn_module_stack", "stack_trace") if key in like.meta}
        self.varying.add(node)
        return node

    def _unused_name(self, node: fx.Node) -> str:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple) and entry[0]]
        base = paths[-1].replace(".", "_") if paths else node.name
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name)
        return name
