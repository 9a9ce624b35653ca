"""The converted network as a module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from snn_kernels.checks import kind
from snn_kernels.schedules import Schedule

from .encoders import encode
from .engine import Engine, Kind
from .packed import Emission, Product
from .population import Population
from .trace import Traced

__all__ = ["SpikingModel"]

CHUNK = 8  # steps carried through the network at a time: one byte of every neuron's train


class SpikingModel(nn.Module):
    """A spiking network of signGD neurons that computes what the ANN it was converted from computes.

    Called like the ANN, it runs :attr:`timesteps` time-steps and returns the ANN's output structure. Memory does not
    grow with the time-steps: eight at a time go through the network layer by layer, and every population keeps only
    its state between two rounds.

    Attributes:
        timesteps: the number of steps ``T``.
        schedule: the step sizes.
        encoder: how the input enters (``direct``, ``float``, ``spike`` or ``stochastic``).
        network: affine operations and :class:`Population` modules; called by itself it is the ANN.
    """

    def __init__(self, traced: Traced, timesteps: int, schedule: Schedule, encoder: str):
        super().__init__()
        self.network = traced.network
        self.input_spec, self.output_spec = traced.input_spec, traced.output_spec
        self.encoder = encoder
        self.engine = Engine(self.network, encoded=encoder != "direct")
        self.measures_each_run = False
        self.set_schedule(schedule, timesteps)

    def set_schedule(self, schedule: Schedule, timesteps: int) -> None:
        """Use other step sizes or another number of steps.

        Raises:
            ValueError: ``timesteps`` is not an integer of at least 1.
        """
        if not isinstance(timesteps, int) or timesteps < 1:
            raise ValueError(f"timesteps: expected an integer >= 1, got {timesteps!r}")
        self.schedule, self.timesteps = schedule, timesteps
        table = schedule.table(timesteps)
        self.register_buffer("eta", table.to(self.eta.device) if "eta" in self._buffers else table, persistent=False)

    def populations(self) -> Iterator[tuple[str, Population]]:
        """Every population with its name, in the order of the network."""
        for node in self.engine.neurons:
            if node.op == "call_module":
                yield node.target.removeprefix("populations."), self.engine.population(node)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.outputs_at(*args, steps=[self.timesteps], **kwargs)[0]

    @torch.no_grad()
    def outputs_at(self, *args: Any, steps: Sequence[int], **kwargs: Any) -> list[Any]:
        """The output after each of ``steps``, in their order, from one run of ``max(steps)`` steps.

        Raises:
            ValueError: a step is not between 1 and :attr:`timesteps`.
            TypeError: the inputs are not structured as the ANN's were.
        """
        if not steps or any(not isinstance(step, int) or not 1 <= step <= self.timesteps for step in steps):
            raise ValueError(f"steps: expected integers from 1 to timesteps={self.timesteps}, got {list(steps)}")
        outputs = {}
        run = Run(self, self.flat_inputs(args, kwargs))
        for step in sorted(set(steps)):
            run.advance_to(step)
            outputs[step] = pytree.tree_unflatten(run.read_out(), self.output_spec)
        return [outputs[step] for step in steps]

    @torch.no_grad()
    def firing_rates(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The share of steps at which the neurons of each population fire."""
        run = Run(self, self.flat_inputs(args, kwargs), count_spikes=True)
        run.advance_to(self.timesteps)
        steps = {node: self.timesteps * run.state[node].v.numel() for node in run.spikes}
        return {node.target.removeprefix("populations."): run.spikes[node].item() / steps[node] for node in steps}

    @torch.no_grad()
    def measure_offsets(self, *args: Any, **kwargs: Any) -> None:
        """Measure what every neuron's inputs deliver with all feeding neurons firing plus with none (two probes).

        Where they depend on the sample (masks) or on the batch (windows merged into it), every run measures its own.
        """
        leaves = self.flat_inputs(args, kwargs)
        inputs = [leaf[:1] if isinstance(leaf, Tensor) and leaf.ndim else leaf for leaf in leaves]
        values = self.engine.start(inputs, lambda population, x: population(*x))
        offsets = self.engine.offsets(values)
        for node, measured in offsets.items():
            self.engine.population(node).set_offsets(measured)
        self.measures_each_run = self.engine.has_coefficients or not self.engine.fits_every_batch(offsets)
        self.engine.plan_products(values)

    def flat_inputs(self, args: tuple, kwargs: dict) -> list[Any]:
        """The leaves of the ANN's arguments.

        Raises:
            TypeError: they are not structured as the ANN's were, or of another dtype.
            ValueError: a tensor of another shape, apart from the batch, or on another device.
        """
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.input_spec:
            raise TypeError(f"inputs: expected the structure {self.input_spec}, got {spec}")
        for node, leaf in zip(self.engine.inputs, leaves):
            expected = node.meta["val"]
            if not isinstance(expected, Tensor):
                continue
            if not isinstance(leaf, Tensor) or leaf.dtype != expected.dtype:
                raise TypeError(f"{node.target}: expected a tensor of {expected.dtype}, got {kind(leaf)}")
            sizes = ["any" if not isinstance(size, int) else size for size in expected.shape]
            fits = leaf.ndim == len(sizes) and all(a in ("any", b) for a, b in zip(sizes, leaf.shape))
            if not fits or leaf.device != self.eta.device:
                raise ValueError(f"{node.target}: expected shape {sizes} on {self.eta.device}, got {kind(leaf)}")
        return leaves


class Run:
    """One run of a :class:`SpikingModel` on one batch: the neurons' state and the steps made."""

    def __init__(self, model: SpikingModel, inputs: Sequence[Any], count_spikes: bool = False):
        self.model, self.engine, self.inputs = model, model.engine, inputs
        self.done = 0
        self.state: dict[fx.Node, Any] = {}
        self.spikes: dict[fx.Node, Tensor] | None = {} if count_spikes else None
        values = self.engine.start(inputs, lambda population, x: population.initial_state(x).v)
        for node in self.engine.neurons:
            if node.op == "placeholder":
                self.state[node] = values[node]
            else:
                x = [values[source] for source in node.args]
                self.state[node] = self.engine.population(node).initial_state(x)
        self.offsets = self.engine.offsets(values) if model.measures_each_run else {}
        self.values = {node: v for node, v in values.items() if self.engine.kinds[node] in (Kind.FIXED, Kind.STATIC)}

    def advance_to(self, step: int) -> None:
        """Make the steps up to ``step``."""
        while self.done < step:
            eta = self.model.eta[self.done : min(step, self.done + CHUNK)]
            self.engine.run_steps(self.values, partial(self._advance, eta), len(eta))
            self.done += len(eta)

    def read_out(self) -> list[Any]:
        """The network's output for the neurons' present estimates."""
        estimates = {node: state if node.op == "placeholder" else state.v for node, state in self.state.items()}
        return self.engine.read_out(self.values, estimates)

    def _advance(self, eta: Tensor, node: fx.Node, currents: list[Tensor | Product]) -> Emission | Tensor:
        if node.op == "placeholder":
            x = self.inputs[self.engine.inputs.index(node)]
            emissions, self.state[node] = encode(self.model.encoder, x, self.state[node], eta)
            return emissions
        population = self.engine.population(node)
        offsets = self.offsets.get(node, population.offsets)
        emission, self.state[node] = population.advance(currents, eta, self.state[node], offsets)
        if self.spikes is not None:
            self.spikes[node] = self.spikes.get(node, 0) + emission.train.count()
        return emission
