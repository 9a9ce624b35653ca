"""A run in which every population opens its own window after the ones that feed it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from snn_kernels import SpikeTrain

from .encoders import encode
from .engine import Kind
from .nodes import attribute, call_node, cast
from .packed import Emission, as_dense
from .population import Population
from .run import CHUNK, Run
from .timeline import Timeline

__all__ = ["StaggeredRun"]


class StaggeredRun(Run):
    """A run on staggered windows, as :class:`Timeline` has them.

    Populations that feed one sum may be on different steps of their tables, so no one step size weighs the sum's
    current. What travels here is therefore decoded: a population sends its estimate ``v`` after each step, an affine
    operation acts on that, and what arrives is the decoded input ``x = L(v)`` that weighing every current with its
    sender's own step size adds up to.

    The clock is cut where a window opens or closes. In such a piece an operation is evaluated for all steps at once
    where it moves, and once where it does not: if windows do not overlap, an affine map runs once a window.
    """

    def _begin(self) -> None:
        self.timeline = Timeline(self.engine, self.model.timesteps, self.model.onset_delay)
        kinds = self.engine.kinds
        self._reached = [node for node in self.engine.nodes if kinds[node] in (Kind.NEURON, Kind.CURRENT)]
        overlap = self.model.onset_delay < self.model.timesteps
        self._longest = CHUNK if overlap else self.model.timesteps  # without overlap only packed bytes grow with it
        self.values: dict[fx.Node, Any] = {}  # what nodes are worth after `done` steps, if it has been asked for

    def _advance_towards(self, step: int) -> int:
        end = min(step, self.timeline.next_turn(self.done), self.done + self._longest)
        self._make_steps(end)
        for node in [node for node in self.values if self.timeline.is_spent(node, end)]:
            del self.values[node]
        return end

    def read_out(self) -> list[Any]:
        precision = self.engine.precision
        return fx.node.map_arg(self.engine.output.args[0], lambda node: cast(self.value(node), precision))

    def _take_state(self, other: StaggeredRun, take: Callable, take_state: Callable) -> None:
        neurons = {node: v for node, v in other.values.items() if self.engine.kinds[node] == Kind.NEURON}
        self.values = {node: take(node, v) for node, v in neurons.items()}

    def value(self, node: fx.Node) -> Any:
        """What ``node`` is worth while the populations hold their present estimates; computed when first asked for."""
        pending = [node]
        while pending:
            node = pending[-1]
            missing = [source for source in node.all_input_nodes if source not in self.values]
            if node not in self.values and missing:
                pending += missing
                continue
            pending.pop()
            if node not in self.values:
                self.values[node] = self._compute(node)
        return self.values[node]

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            value = cast(self.inputs[self.engine.inputs.index(node)], torch.float32)
            return torch.zeros_like(value) if self.engine.kinds[node] == Kind.NEURON else value
        if node.op == "get_attr":
            return cast(attribute(self.engine.network, node.target), torch.float32)
        if node.op == "call_module":  # its window has not opened yet
            return self.engine.population(node).initial_state([self.values[source] for source in node.args]).v
        return call_node(node, self.values)

    def _make_steps(self, end: int) -> None:
        """Make the steps up to ``end``, during which no window opens or closes."""
        moving: dict[fx.Node, Emission | Tensor] = {}  # [steps, B, *]: what changes, for those that need it
        arrived: dict[fx.Node, Tensor] = {}
        stale: set[fx.Node] = set()
        for node in self._reached:
            if self.engine.kinds[node] == Kind.NEURON:
                if self.timeline.is_open(node, self.done):
                    local = slice(*(step - self.timeline.onsets[node] for step in (self.done, end)))
                    moving[node], arrived[node] = self._chase(node, self.model.eta[local], moving)
                    stale.add(node)
            elif not stale.isdisjoint(node.all_input_nodes):
                self.values.pop(node, None)
                stale.add(node)
                if self.timeline.feeds_open(node, self.done):
                    moving[node] = self._moved(node, moving)
            for source in self.engine.last_use.get(node, ()):
                moving.pop(source, None)
        self.values |= arrived

    def _moved(self, node: fx.Node, moving: dict) -> Tensor:
        """An affine operation over the piece's steps: time is a dimension that it does not see."""
        sources = [source for source in node.all_input_nodes if source in moving]
        still = {source: self.value(source) for source in node.all_input_nodes if source not in moving}

        def one_step(*parts: Tensor) -> Any:
            return call_node(node, {**still, **dict(zip(sources, parts))})

        return torch.vmap(one_step)(*(as_dense(moving[source]) for source in sources))

    def _chase(self, node: fx.Node, eta: Tensor, moving: dict) -> tuple[Emission | Tensor, Tensor]:
        """What a population sends at each of the steps ``eta``, and where its estimate arrives."""
        if node.op == "placeholder":
            return self._encode(node, eta)
        population, v = self.engine.population(node), self.values.get(node)
        v = population.v0 if v is None else v
        if not any(source in moving for source in node.args):
            x = [self.value(source) for source in node.args]
            train, arrived = population.chase(x, eta, v, self.model.timesteps)
            self._sent(node, train)
            return Emission(train, partial(_estimates, population, train, eta, v)), arrived
        estimates, trains = [], []
        for t, step in enumerate(eta.split(1)):
            x = [as_dense(moving[s])[t] if s in moving else self.value(s) for s in node.args]
            train, v = population.chase(x, step, v, self.model.timesteps)
            estimates.append(v)
            trains.append(train)
        train = SpikeTrain(sum(train.bytes << t for t, train in enumerate(trains)), len(trains))
        self._sent(node, train)
        return Emission(train, partial(torch.stack, estimates)), v

    def _encode(self, node: fx.Node, eta: Tensor) -> tuple[Tensor, Tensor]:
        x, f, estimates = self.inputs[self.engine.inputs.index(node)], self.value(node), []
        for step in eta.split(1):
            _, f = encode(self.model.encoder, x, f, step)
            estimates.append(f)
        return torch.stack(estimates), f


def _estimates(population: Population, train: SpikeTrain, eta: Tensor, v: Tensor) -> Tensor:
    """``v`` after each step: the neuron's own update, from its spikes."""
    estimates = []
    for step, spike in zip(eta, train.unpack()):
        v = population.estimate_after(v, step, spike)
        estimates.append(v)
    return torch.stack(estimates)
