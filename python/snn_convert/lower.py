"""Turn an exported graph into affine operations and calls of populations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from snn_kernels.activations import ActivationSpec

from . import rewrites
from .channels import batch_dims, channel_dims
from .errors import UnsupportedOperation, WithoutRule
from .folding import fold_factor
from .formulas import name_formulas
from .population import Population
from .rectifiers import DYNAMICS
from .rewrites_rectifiers import HINT, rectified
from .rules import AFFINE, ASSERTIONS, BINARY, LEARNED, SHAPE_ONLY, TRANSPARENT, UNARY, draws, passes_on
from .trace import Traced
from .vector_population import VECTOR_FUNCTIONS, VectorPopulation

__all__ = ["Lowering", "lower"]

VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)

SUPPORTED_FORMS = (
    "supported are affine operations, the activations in snn_kernels.ACTIVATIONS, and products, quotients and maxima "
    "of two activations; rewrite this place with these, or add a rule to snn_convert/rules.py"
)

MASKS = "a mask that is computed from activations; masks follow from integer or boolean inputs and from constants"


def lower(
    program: torch.export.ExportedProgram, substitutes: dict[str, str], normalisation: str, dynamics: str
) -> Traced:
    """The network of ``program`` in which every node that depends on an input is affine or a :class:`Population`.

    An operation without a rule is written out as PyTorch defines it by others, where it does, and these are tried.

    Args:
        substitutes: activations to use in place of others, such as ``{"gelu": "gelu_sigmoid"}``.
        normalisation: softmax and normalisations as chains of elementwise populations (``decomposed``, Oh & Lee) or
            as one population each whose target is the whole function (``vector``).
        dynamics: the neurons' model, a name in :data:`~snn_convert.rectifiers.DYNAMICS`.

    Raises:
        UnsupportedOperation: an operation has no rule, or its rule refuses it.
    """
    written_out: dict[Callable, Callable] = {}
    while True:
        traced = Traced.of(program, written_out)
        try:
            Lowering(traced.network, substitutes, normalisation, dynamics).run()
            return traced
        except WithoutRule as error:
            definitions = torch.export.default_decompositions()
            if error.operation not in definitions or error.operation in written_out:
                raise
            written_out[error.operation] = definitions[error.operation]


class Lowering:
    """The state of one pass over the graph, and what rules need of it."""

    def __init__(self, network: fx.GraphModule, substitutes: dict[str, str], normalisation: str, dynamics: str):
        self.network, self.graph, self.substitutes = network, network.graph, substitutes
        self.normalisation, self.dynamics = normalisation, dynamics
        self.varying: set[fx.Node] = set()  # analog values: they depend on an input, and neurons may carry them
        # What follows from integer and boolean inputs by arithmetic alone, such as masks: exact, and never spikes. A
        # learned map of it (an embedding) is analog.
        self.static: set[fx.Node] = set()
        self._channels: dict[fx.Node, tuple[int, ...]] = {}
        self._fixed: dict[fx.Node, Any] = {}
        self.names: set[str] = set()
        network.add_submodule("populations", torch.nn.Module())

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node.target in ASSERTIONS:
                self.graph.erase_node(node)
        name_formulas(self)
        for node in list(self.graph.nodes):
            if node.op == "placeholder":
                self._classify_input(node)
            elif node.op in ("call_function", "call_module"):
                self._lower(node)
        self.graph.eliminate_dead_code()
        self.network.delete_all_unused_submodules()
        self.graph.lint()
        self.network.recompile()

    def varies(self, value: object) -> bool:
        return isinstance(value, fx.Node) and value in self.varying

    def _classify_input(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            (self.varying if value.is_floating_point() else self.static).add(node)

    def _lower(self, node: fx.Node) -> None:
        target = node.target
        if draws(node):
            raise UnsupportedOperation(node, "it draws random numbers, other ones at every call")
        if target is torch.ops.aten.copy_.default:
            changed = f"it is written to {node.args[0].target!r}, an input or a buffer; a converted network leaves them"
            raise UnsupportedOperation(node.args[1], changed)
        if target in SHAPE_ONLY:
            return None
        if not any(map(self.varies, node.all_input_nodes)):
            if any(source in self.static for source in node.all_input_nodes):
                (self.varying if target in LEARNED else self.static).add(node)
            return None
        if target in TRANSPARENT or passes_on(node):
            return self.replace(node, node.args[0])
        if target in rewrites.REWRITES:
            return rewrites.REWRITES[target](self, node)
        if target in UNARY:
            try:
                activation = UNARY[target](node)
            except ValueError as error:
                raise UnsupportedOperation(node, str(error)) from None
            return self.replace(node, self.population(node, activation, node.args[0]))
        if target in BINARY and (self.varies(node.args[1]) or BINARY[target] in ("maximum", "minimum")):
            return rewrites.binary(self, node, BINARY[target])
        if target in VIEWS:  # spikes and estimates need not lie in memory as the ANN's values do
            node.target = target = torch.ops.aten.reshape.default
        if target in AFFINE and self._fits(node, AFFINE[target]):
            return self.affine(node)
        value = node.meta.get("val")
        masks = isinstance(value, torch.Tensor) and not (value.is_floating_point() or value.is_complex())
        raise WithoutRule(node, MASKS if masks else SUPPORTED_FORMS)

    def _fits(self, node: fx.Node, groups: list[tuple[int, ...] | None]) -> bool:
        """Whether the arguments that depend on an input are ones the operation is affine in together."""
        varying = {i for i, arg in enumerate(node.args) if any(map(self.varies, pytree.tree_leaves(arg)))}
        return None in groups or any(varying <= set(group) for group in groups if group is not None)

    def affine(self, node: fx.Node) -> None:
        """An operation that is affine in the analog values among its arguments."""
        if node.target is not torch.ops.aten.mul.Tensor or not fold_factor(self, node):
            self.varying.add(node)

    # What rewritings are made of.

    def call(self, like: fx.Node, target: Callable, *args, **kwargs) -> fx.Node:
        """A new node before ``like``, from the same place in the user's model: affine in analog values, or of none."""
        with self.graph.inserting_before(like):
            node = self.graph.call_function(target, args, kwargs)
        return self._adopt(node, like, target, *args, **kwargs)

    def population(self, like: fx.Node, activation: ActivationSpec, *inputs: fx.Node, channel_dim: int | None = None):
        """A new population before ``like``, or what stands for it where the neurons follow ReLUs alone."""
        name, *constants = (activation,) if isinstance(activation, str) else activation
        activation = (self.substitutes.get(name, name), *constants)
        make = self.plain_population if self.dynamics == "signgd" else partial(rectified, self)
        return make(like, activation, *inputs, channel_dim=channel_dim)

    def plain_population(self, like: fx.Node, activation: tuple, *inputs: fx.Node, channel_dim: int | None) -> fx.Node:
        """A new population before ``like``."""
        if channel_dim is None:
            channel_dim = self.channel_dims(max(inputs, key=lambda x: x.meta["val"].ndim))
        ndim = max(x.meta["val"].ndim for x in inputs)
        inputs = tuple(self._with_dimensions(like, x, ndim) for x in inputs)
        population = DYNAMICS[self.dynamics](activation, len(inputs), channel_dim)
        return self.insert(like, population, inputs, lambda *x: torch.broadcast_tensors(*x)[0])

    def _with_dimensions(self, like: fx.Node, x: fx.Node, ndim: int) -> fx.Node:
        """``x`` with leading dimensions of size 1, which broadcasting means but time stands before."""
        missing = ndim - x.meta["val"].ndim
        if not missing:
            return x
        sizes = [size if isinstance(size, int) else -1 for size in x.meta["val"].shape]
        return self.call(like, torch.ops.aten.reshape.default, x, [1] * missing + sizes)

    def vector_population(self, like: fx.Node, function: str, *inputs: fx.Node, channel_dim, **parameters) -> fx.Node:
        """A new population before ``like`` whose target is one of :data:`VECTOR_FUNCTIONS`."""
        if self.dynamics != "signgd":
            raise UnsupportedOperation(like, HINT.format(dynamics=self.dynamics))
        population = VectorPopulation(function, len(inputs), channel_dim, **parameters)
        whole = function in ("matmul", "einsum")
        value = partial(VECTOR_FUNCTIONS[function], **parameters) if whole else lambda x, *_: x
        return self.insert(like, population, inputs, value)

    def insert(self, like: fx.Node, population: Population, inputs: tuple[fx.Node, ...], value: Callable) -> fx.Node:
        """``population`` of ``inputs`` before ``like``; ``value`` gives the shape of its output from theirs."""
        if any(x.meta["val"].is_complex() for x in inputs):
            raise UnsupportedOperation(like, "complex values are no activations: take their real and imaginary parts")
        path = f"populations.{self._unused_name(like)}"
        self.network.add_submodule(path, population)
        with self.graph.inserting_before(like):
            node = self.graph.call_module(path, inputs)
        self._adopt(node, like, value, *inputs)
        samples, ndim = batch_dims(node), node.meta["val"].ndim
        population.batch_dim = min(samples, default=0)
        population.channel_dims = tuple(sorted({d % ndim for d in population.channel_dims} - samples))
        return node

    def constant(self, like: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
        """A new tensor of the network."""
        name = f"{name}_{len(dict(self.network.named_buffers()))}"
        self.network.register_buffer(name, value)
        with self.graph.inserting_before(like):
            node = self.graph.get_attr(name)
        return self._adopt(node, like, lambda: self._fake_mode().from_tensor(value))

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

    def fixed_value(self, node: fx.Node) -> torch.Tensor | None:
        """The value of a node that depends on no input, with the traced batch size in it; ``None`` if it does."""
        pending = [node]
        while pending:  # no recursion: chains may be long
            last = pending.pop()
            if last in self._fixed:
                continue
            if last in self.varying or last in self.static or last.op == "placeholder":
                self._fixed[last] = None
            elif last.op == "get_attr":
                self._fixed[last] = self.tensor(last)
            elif isinstance(value := last.meta.get("val"), torch.SymInt):
                self._fixed[last] = value.node.hint
            elif value is None or isinstance(value, (bool, int, float)):
                self._fixed[last] = value
            elif missing := [source for source in last.all_input_nodes if source not in self._fixed]:
                pending += [last, *missing]
            elif any(self._fixed[source] is None for source in last.all_input_nodes):
                self._fixed[last] = None
            else:
                args, kwargs = fx.node.map_arg((last.args, last.kwargs), self._fixed.__getitem__)
                self._fixed[last] = last.target(*args, **kwargs)
        return self._fixed[node]

    def input_of(self, node: object, activation: str) -> fx.Node | None:
        """What the neurons of ``node`` receive, if it is a population with that function of one input."""
        is_population = isinstance(node, fx.Node) and node.op == "call_module"
        found = is_population and self.network.get_submodule(node.target).activation == activation
        return node.args[0] if found and len(node.args) == 1 else None

    def channel_dims(self, node: fx.Node) -> tuple[int, ...]:
        """The dimensions along which the map that feeds ``node`` has a row of weights for each index."""
        return channel_dims(node, lambda found: self.network.get_submodule(found.target).channel_dims, self._channels)

    def _adopt(self, node: fx.Node, like: fx.Node, function: Callable, *args, **kwargs) -> fx.Node:
        """A new node's place in the user's model, its value's shape and whether it varies."""
        node.meta = {key: like.meta[key] for key in ("nn_module_stack", "stack_trace") if key in like.meta}
        fakes, fake_kwargs = fx.node.map_arg((args, kwargs), lambda source: source.meta["val"])
        with self._fake_mode(), enable_python_dispatcher():  # without which some operations fix the batch's size
            node.meta["val"] = function(*fakes, **fake_kwargs)
        if any(map(self.varies, node.all_input_nodes)):
            self.varying.add(node)
        elif any(source in self.static for source in node.all_input_nodes):
            self.static.add(node)
        return node

    def _fake_mode(self) -> FakeTensorMode:
        values = (node.meta.get("val") for node in self.graph.nodes if node.op == "placeholder")
        return next(value.fake_mode for value in values if isinstance(value, FakeTensor))

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
