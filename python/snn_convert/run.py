"""One run of a converted network on one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from snn_kernels import SpikeTrain

from .checks import whole
from .encoders import encode, float_ramp
from .engine import Kind
from .nodes import apart
from .packed import Current, Emission, Ramp
from .samples import count_samples

if TYPE_CHECKING:
    from .model import SpikingModel

__all__ = ["CHUNK", "Run", "Watch"]

Watch = Callable[[fx.Node, SpikeTrain], None]

CHUNK = 8  # steps that are carried through the network together, at least: one byte of every neuron's train
SAMPLE_STEPS = 256  # and what a small batch may come to with more of them


def steps_together(samples: int) -> int:
    """How many steps of a batch are carried through the network together, layer by layer: whole bytes of trains.

    More than eight where the batch is small: what a layer prepares for a call (a product its weights) then serves as
    many samples and steps as in a larger one, and takes no more memory than 32 samples do.
    """
    return max(CHUNK, SAMPLE_STEPS // max(samples, 1) // CHUNK * CHUNK)


class Run:
    """A run of a :class:`SpikingModel` on one batch, with all populations starting together (synchronous onset).

    Attributes:
        done: the steps made so far.
        watch: called with every population and its train of some steps, in their order.
    """

    def __init__(self, model: SpikingModel, inputs: Sequence[Any], watch: Watch | None = None):
        self.model, self.engine, self.inputs = model, model.engine, inputs
        self.done, self.watch = 0, watch
        self._begin()

    def _begin(self) -> None:
        self.state: dict[fx.Node, Any] = {}
        values = self.engine.at_rest(self.inputs, self.model.rest.values(self.inputs, self.model.eta.device))
        self.offsets = self.engine.offsets(values) if self.model.measures_each_run else {}
        for node in self.engine.neurons:
            if node.op == "placeholder":
                self.state[node] = values[node]
            else:
                x, population = [values[source] for source in node.args], self.engine.population(node)
                self.state[node] = population.begin(x, self.offsets.get(node, population.offsets))
        self.values = {node: v for node, v in values.items() if self.engine.kinds[node] in (Kind.FIXED, Kind.STATIC)}

    def __repr__(self) -> str:
        samples = count_samples(self.inputs)
        return f"{type(self).__name__}({self.done} of {self.model.latency} steps, samples: {samples})"

    def step(self) -> None:
        """Make one time-step.

        Raises:
            ValueError: all have been made.
        """
        self.advance_to(self.done + 1)

    @apart()
    def advance_to(self, step: int) -> None:
        """Make the steps up to ``step``.

        Raises:
            ValueError: ``step`` is no integer, lies before those made or beyond the latency.
        """
        step = whole("step", step, self.done, self.model.latency, "latency")
        while self.done < step:
            self.done = self._advance_towards(step)

    def output(self) -> Any:
        """What the network has come to: the ANN's output structure, decoded from the neurons' present estimates."""
        with apart():
            return pytree.tree_unflatten(self.read_out(), self.model.output_spec)

    def _advance_towards(self, step: int) -> int:
        """Carry some steps through the network, up to ``step`` at most; returns the step they end with."""
        eta = self.model.eta[self.done : min(step, self.done + steps_together(count_samples(self.inputs)))]
        self.engine.run_steps(self.values, partial(self._advance, eta), len(eta))
        return self.done + len(eta)

    def read_out(self) -> list[Any]:
        """The network's output for the neurons' present estimates, without its structure."""
        estimates = {node: state if node.op == "placeholder" else state.v for node, state in self.state.items()}
        outputs = self.engine.read_out(self.values, estimates)
        if self.model.dynamics != "subgradient":
            return outputs
        # y <- y + eta (current - y) from 0: what has not been forgotten of the start is missing from L(v).
        missing = torch.prod(1 - self.model.eta[: self.done])
        silent = self.engine.read_out(self.values, {node: torch.zeros_like(v) for node, v in estimates.items()})
        return pytree.tree_map(lambda output, rest: output - missing * rest, outputs, silent)

    @property
    def can_select(self) -> bool:
        """Whether samples can leave the batch: no population has them merged with another dimension."""
        return self.model.samples.separable

    @apart()
    def select(self, samples: Tensor) -> Run:
        """A run of the samples with these indices (int64) that goes on from here.

        Raises:
            ValueError: samples cannot leave the batch, see :attr:`can_select`.
        """
        if not self.can_select:
            raise ValueError("select: a population has the samples merged with another dimension")
        where = self.model.samples
        leaves = [where.take(samples, node, leaf) for node, leaf in zip(self.engine.inputs, self.inputs)]
        rest = type(self)(self.model, leaves, self.watch)
        rest.done = self.done
        rest._take_state(self, partial(where.take, samples), partial(where.take_state, samples))
        return rest

    def _take_state(self, other: Run, take: Callable, take_state: Callable) -> None:
        for node, state in other.state.items():
            self.state[node] = (take if node.op == "placeholder" else take_state)(node, state)

    def _advance(self, eta: Tensor, node: fx.Node, currents: list[Current]) -> Emission | Ramp | Tensor:
        if node.op == "placeholder":
            return self._encode(node, eta)
        population = self.engine.population(node)
        offsets = self.offsets.get(node, population.offsets)
        emission, self.state[node] = population.advance(currents, eta, self.state[node], offsets)
        self._sent(node, emission.train)
        return emission

    def _encode(self, node: fx.Node, eta: Tensor) -> Ramp | Tensor:
        x = self.inputs[self.engine.inputs.index(node)]
        if self.model.encoder == "float":
            sent, self.state[node] = float_ramp(x, self.model.eta, slice(self.done, self.done + len(eta)))
        else:
            sent, self.state[node] = encode(self.model.encoder, x, self.state[node], eta)
        return sent

    def _sent(self, node: fx.Node, train: SpikeTrain) -> None:
        if self.watch is not None:
            self.watch(node, train)
