"""Runs a lowered network, layer by layer: as the decoded values it has reached, or over a few time-steps at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from snn_kernels import QuantizedWeight
from snn_kernels.ops.spike_gemm.checks import is_by_neuron

from .amplitudes import plan_amplitudes
from .nodes import attribute, call_node, cast
from .packed import (
    JOINING,
    LAYOUT,
    PRODUCTS,
    SCALING,
    Current,
    Emission,
    Product,
    Ramp,
    as_dense,
    is_sum,
    with_residual,
)
from .population import Population
from .quantized import quantized_of, round_weights
from .rules import AFFINE, SHAPE_ONLY, is_additive

__all__ = ["Engine", "Kind"]


aten = torch.ops.aten

# Operations in which a size is a number that is computed with, not one of a layout.
NUMERIC = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


class Kind:
    """How a node depends on the input."""

    FIXED = "fixed"  # on no input: a parameter, a size
    STATIC = "static"  # on the input, through no neuron: computed once a sample
    CURRENT = "current"  # affine in what neurons send
    NEURON = "neuron"


class Engine:
    """Evaluates the nodes of a lowered network.

    An input that is not encoded is a constant current, so whatever depends on it through no neuron is *static*: it
    enters the decoded inputs once, at the start, and contributes nothing to the currents. An ``encoded`` floating-point
    input is a feeding population like any other.
    """

    def __init__(self, network: fx.GraphModule, encoded: bool):
        self.network, self.encoded = network, encoded
        self.nodes = list(network.graph.nodes)
        self.output = self.nodes[-1]
        self.inputs = [node for node in self.nodes if node.op == "placeholder"]
        self.kinds: dict[fx.Node, str] = {}
        for node in self.nodes:
            self.kinds[node] = self._kind(node)
        self.neurons = [node for node in self.nodes if self.kinds[node] == Kind.NEURON]
        self.of_output = self._ancestors([self.output])
        self._of_neurons = self._ancestors(self.neurons) | set(self.neurons)
        self.chunk_nodes = [
            node for node in self.nodes if node in self._of_neurons and self.kinds[node] in (Kind.CURRENT, Kind.NEURON)
        ]
        self.last_use = self._last_uses(self.chunk_nodes)
        self.depths = self._depths()
        methods = {self.population(node).product_method for node in self.neurons if node.op == "call_module"}
        self.product_method = "auto" if "auto" in methods else "dense"
        self.amplitudes: dict[fx.Node, str] = {}  # readers of packed trains, and the buffer of what a spike is worth
        self.quantized: dict[fx.Node, tuple[str, str]] = {}  # those with weights of 8 bits, and the buffers of these
        self.weight_bits: int | None = None  # of the maps that read trains
        self.precision = torch.float32  # what weights are stored in and currents computed in

    def population(self, node: fx.Node) -> Population:
        return self.network.get_submodule(node.target)

    def _kind(self, node: fx.Node) -> str:
        if node.op == "placeholder":
            value = node.meta.get("val")
            encoded = self.encoded and isinstance(value, Tensor) and value.is_floating_point()
            return Kind.NEURON if encoded else Kind.STATIC
        if node.op == "call_module":
            return Kind.NEURON
        kinds = {self.kinds[source] for source in node.all_input_nodes}
        if node.target in SHAPE_ONLY or not kinds - {Kind.FIXED}:
            return Kind.FIXED
        return Kind.CURRENT if kinds & {Kind.NEURON, Kind.CURRENT} else Kind.STATIC

    def _ancestors(self, nodes: Sequence[fx.Node]) -> set[fx.Node]:
        """Everything that ``nodes`` are computed from, as far back as the neurons."""
        found: set[fx.Node] = set()
        pending = list(nodes)
        while pending:
            for source in pending.pop().all_input_nodes:
                if source not in found:
                    found.add(source)
                    if self.kinds[source] not in (Kind.NEURON, Kind.FIXED):
                        pending.append(source)
        return found

    def _depths(self) -> dict[fx.Node, int]:
        """How many populations, one after the other, lie at most between each population and the input."""
        behind: dict[fx.Node, int] = {}
        for node in self.nodes:
            found = max((behind[source] for source in node.all_input_nodes), default=0)
            behind[node] = found + (self.kinds[node] == Kind.NEURON)
        return {node: behind[node] - 1 for node in self.neurons}

    @staticmethod
    def _last_uses(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
        last = {source: node for node in nodes for source in node.all_input_nodes}
        uses: dict[fx.Node, list[fx.Node]] = {}
        for source, node in last.items():
            uses.setdefault(node, []).append(source)
        return uses

    # Values

    def start(
        self,
        inputs: Sequence[Any],
        estimate: Callable[[Population, tuple[Tensor, ...]], Tensor],
        known: Mapping[fx.Node, Tensor] | None = None,
    ) -> dict:
        """Every node's value while each neuron holds ``estimate(population, decoded inputs)``, encoded inputs 0.

        In float32 whatever the precision: it happens once a run, and every step builds on it. Values that are ``known``
        are not computed.
        """
        values: dict[fx.Node, Any] = {}
        for node in self.nodes:
            if known and node in known:
                values[node] = known[node]
            elif node.op == "placeholder":
                value = cast(inputs[self.inputs.index(node)], torch.float32)
                values[node] = torch.zeros_like(value) if self.kinds[node] == Kind.NEURON else value
            elif node.op == "get_attr":
                value, operand = attribute(self.network, node.target), any(u.op == "call_module" for u in node.users)
                values[node] = cast(value, torch.float32) if operand else value
            elif node.op == "call_module":
                arguments = tuple(values[source] for source in node.args)
                values[node] = estimate(self.population(node), arguments)
            elif node.op == "call_function":
                values[node] = call_node(node, values)
            elif node.op == "output":
                values[node] = fx.node.map_arg(node.args[0], values.__getitem__)
        return values

    def at_rest(self, inputs: Sequence[Any], known: Mapping[fx.Node, Tensor] | None = None) -> dict:
        """:meth:`start` with every neuron at its initial estimate, before the first step."""
        return self.start(inputs, lambda population, x: population.initial_state(x).v, known)

    def read_out(self, values: Mapping[fx.Node, Any], estimates: Mapping[fx.Node, Tensor]) -> Any:
        """The network's output while the neurons hold ``estimates``; the rest of ``values`` is from :meth:`start`.

        Computed in float32, given in the network's precision.
        """
        values = {**values, **estimates}
        for node in self.nodes:
            if node in self.of_output and self.kinds[node] == Kind.CURRENT:
                values[node] = call_node(node, values)
        return fx.node.map_arg(self.output.args[0], lambda node: cast(values[node], self.precision))

    def example_inputs(self, device: torch.device, samples: int = 1) -> list[Any]:
        """Inputs of zeros, for what depends on the shapes alone."""
        expected = [node.meta["val"] for node in self.inputs]
        return [
            torch.zeros(
                [size if isinstance(size, int) else samples for size in value.shape], dtype=value.dtype, device=device
            )
            if isinstance(value, Tensor)
            else value
            for value in expected
        ]

    def move(self, device: torch.device) -> None:
        """Let the operations that name a device name this one."""
        for node in self.nodes:
            if isinstance(node.kwargs.get("device"), torch.device):
                node.update_kwarg("device", device)

    # Time-steps

    def run_steps(
        self,
        values: Mapping[fx.Node, Any],
        advance: Callable[[fx.Node, list[Current]], Emission | Ramp | Tensor],
        steps: int,
        precision: torch.dtype | None = None,
    ) -> None:
        """Carry ``steps`` time-steps through the network, layer by layer.

        ``advance(node, currents)`` runs a population on its currents ``[steps, B, *]`` (an encoded input on none), some
        of which may be what a population sends or a product yet to be taken, and returns what it sends. ``values`` are
        those of :meth:`start`; static ones contribute no current. Currents are computed in ``precision``, by default
        the network's.
        """
        precision = precision or self.precision
        env: dict[fx.Node, Any] = {}

        def current(node: fx.Node) -> Any:
            if self.kinds[node] in (Kind.STATIC, Kind.FIXED):
                silence = torch.zeros_like(values[node], dtype=precision)
                return silence.unsqueeze(0).expand(steps, *values[node].shape)
            value = env[node]
            if isinstance(value, (Emission, Ramp)) or (isinstance(value, Product) and len(node.users) == 1):
                return value
            return cast(as_dense(value), precision)

        for node in self.chunk_nodes:
            if self.kinds[node] == Kind.NEURON:
                env[node] = advance(node, [current(source) for source in node.args])
            else:
                env[node] = self._steps_of(node, env, values, precision)
            for source in self.last_use.get(node, ()):
                env.pop(source, None)

    def _steps_of(
        self, node: fx.Node, env: Mapping[fx.Node, Any], values: Mapping[fx.Node, Any], precision: torch.dtype
    ) -> Any:
        """An affine node over all steps: time is a dimension that the operation does not see."""
        moving = [source for source in node.all_input_nodes if source in env]
        still = {source: self._still(node, source, values) for source in node.all_input_nodes if source not in env}

        def one_step(*parts: Any) -> Any:
            return call_node(node, {**still, **dict(zip(moving, parts))}, precision)

        first = env[moving[0]]
        if all(isinstance(env[source], Ramp) for source in moving):
            return Ramp(torch.vmap(one_step)(*(env[source].ends for source in moving)), first.position)
        if isinstance(first, Emission) and node.target in LAYOUT:
            return first.moved(one_step)
        kept = None
        if node.target in JOINING and not still:
            kept = Emission.joined([env[source] for source in moving], one_step)
        elif isinstance(first, Emission) and len(moving) == 1 and node.target in SCALING:
            kept = first.times(one_step)
        elif len(moving) == 1 and is_sum(node) and _is_unmoved(first, *still.values()):
            kept = first if isinstance(first, Emission) or len(moving[0].users) == 1 else as_dense(first)
        if kept is not None:
            return kept
        amplitude = getattr(self.network, self.amplitudes[node]) if node in self.amplitudes else None
        if isinstance(first, Emission) and node.target in PRODUCTS and amplitude is not None:
            operands = still
            if node in self.quantized:
                weight = QuantizedWeight(*(getattr(self.network, name) for name in self.quantized[node]))
                operands = {**still, node.args[1]: weight}
            product = Product.of(node, first.train, amplitude, operands.__getitem__, self.product_method)
            if product is not None:
                return product
        if is_sum(node):
            product = with_residual({source: env[source] for source in moving}, amplitude)
            if product is not None:
                return product
        dense = [as_dense(env[source]) for source in moving]
        if _has_large_windows(node, still) and dense[0].device.type == "cpu":
            # Copied so, 7x7 windows take PyTorch's kernels a quarter to a third of the time on planes of 4 x 4, 8 x 8,
            # 16 x 16 and 56 x 56, as long on 7 x 7 and 14 x 14, and an eightieth on 2 x 2 (Xeon, two threads).
            dense[0] = dense[0].movedim(2, -1).contiguous().movedim(-1, 2)
        return torch.vmap(one_step)(*dense)

    def _still(self, node: fx.Node, source: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """What a value that no neuron carries contributes to the currents of ``node``: a coefficient itself, a
        summand nothing, since the decoded inputs hold it from the start."""
        value = values[source]
        if not isinstance(value, Tensor) or not self.adds(node, source):
            return value
        return torch.zeros((), dtype=value.dtype, device=value.device).expand_as(value)

    @staticmethod
    def adds(node: fx.Node, source: fx.Node) -> bool:
        """Whether ``source`` is a summand of the affine ``node`` beside what neurons send, not a coefficient of it."""
        if is_additive(node):
            return True
        summands = [position for group in AFFINE[node.target] if len(group) > 1 for position in group]
        return any(node.args[position] is source for position in summands if position < len(node.args))

    def has_coefficients(self, values: Mapping[fx.Node, Any]) -> bool:
        """Whether some of the affine maps depend on the sample, through masks, or on the number of samples."""
        return any(
            (self.kinds[source] == Kind.STATIC and not self.adds(node, source))
            or (node.target in NUMERIC and not isinstance(values[source], Tensor))
            for node in self.chunk_nodes
            if self.kinds[node] == Kind.CURRENT
            for source in node.all_input_nodes
        )

    def offsets(self, values: Mapping[fx.Node, Any]) -> dict[fx.Node, list[Tensor]]:
        """What every population's inputs deliver with all feeding neurons firing plus with none, from two probes.

        ``values`` are those of :meth:`start`. The probes are in float32 whatever the precision: an error of an offset
        acts at every step in the same direction, one of a current does not.
        """
        found: dict[fx.Node, list[Tensor]] = {}

        def probe(node: fx.Node, currents: list[Tensor]) -> Tensor:
            value = values[node]
            if node.op == "call_module":
                found[node] = [self.population(node).offset_of(*current) for current in currents]
            firing = self.population(node).scale if node.op == "call_module" else torch.ones_like(value)
            return torch.stack([firing.expand_as(value), torch.zeros_like(value)])

        self.run_steps(values, probe, steps=2, precision=torch.float32)
        return found

    # Packed products

    def plan_products(self, values: Mapping[fx.Node, Any]) -> None:
        """Find the operations that read packed trains, and keep what a spike is worth to them in buffers of the
        network. ``values`` are those of :meth:`start` on one sample."""
        for name in self.derived:
            delattr(self.network, name)
        found = plan_amplitudes(self.chunk_nodes, self._scales(), values)
        self.amplitudes, self.quantized = {node: f"amplitude_{node.name}" for node in found}, {}
        for node, amplitude in found.items():
            self.network.register_buffer(self.amplitudes[node], amplitude, persistent=False)
            if self.weight_bits and node.target in PRODUCTS and not is_by_neuron(amplitude, PRODUCTS[node.target]):
                self._plan_weights(node, quantized_of(node, values[node.args[1]], amplitude))

    def _plan_weights(self, node: fx.Node, weight: QuantizedWeight | None) -> None:
        if weight is None:
            return
        self.quantized[node] = (f"weight_{node.name}", f"weight_scale_{node.name}")
        for name, value in zip(self.quantized[node], weight):
            self.network.register_buffer(name, value, persistent=False)

    @property
    def derived(self) -> list[str]:
        """The buffers of the network that :meth:`plan_products` makes of the others."""
        return [*self.amplitudes.values(), *(name for names in self.quantized.values() for name in names)]

    def _scales(self) -> dict[fx.Node, Tensor]:
        return {node: self.population(node).scale for node in self.neurons if node.op == "call_module"}

    def round_weights(self, values: Mapping[fx.Node, Any]) -> None:
        """Bring the weights of the maps that read trains to 8 bits. ``values`` are of :meth:`start` on one sample."""
        amplitudes = plan_amplitudes(self.chunk_nodes, self._scales(), values, anywhere=True)
        round_weights(self.network, self.chunk_nodes, amplitudes)
        self.weight_bits = 8


def _is_unmoved(value: Any, constant: Any) -> bool:
    """Whether a constant leaves ``[T, B, *]`` as they are: decoded inputs hold it from the start, it is no current."""
    return isinstance(constant, Tensor) and torch.broadcast_shapes(value.shape[1:], constant.shape) == value.shape[1:]


def _has_large_windows(node: fx.Node, still: Mapping[fx.Node, Any]) -> bool:
    """Whether the operation convolves each channel alone with windows of 5 x 5 or more."""
    if node.target is not aten.conv2d.default or node.args[1] not in still:
        return False
    _, channels, *window = still[node.args[1]].shape
    return channels == 1 and math.prod(window) >= 25
