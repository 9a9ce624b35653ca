"""When every population of a network works, if each opens its window some steps after the ones that feed it."""

from __future__ import annotations

from bisect import bisect_right

from torch import fx

from .engine import Engine, Kind

__all__ = ["Timeline"]


class Timeline:
    """The windows of a network's populations on one clock.

    A population ``depth`` populations behind the input works at the steps ``depth * delay`` up to
    ``depth * delay + timesteps``, where the depth is one more than that of the deepest population that feeds it.

    Attributes:
        onsets: a population's first step.
    """

    def __init__(self, engine: Engine, timesteps: int, delay: int):
        self.timesteps = timesteps
        self.onsets = {node: delay * depth for node, depth in engine.depths.items()}
        self._turns = sorted({onset + edge for onset in (0, *self.onsets.values()) for edge in (0, timesteps)})
        self._served = self._onsets_served(engine)
        self._of_output = engine.of_output

    def _onsets_served(self, engine: Engine) -> dict[fx.Node, set[int]]:
        """The onsets of the populations that a node enters, directly or through affine operations."""
        served: dict[fx.Node, set[int]] = {}
        for node in reversed(engine.nodes):
            served[node] = set()
            for user in node.users:
                neuron = engine.kinds.get(user) == Kind.NEURON
                served[node] |= {self.onsets[user]} if neuron else served[user]
        return served

    def next_turn(self, step: int) -> int:
        """The first step after ``step`` at which a window opens or closes."""
        return self._turns[bisect_right(self._turns, step)]

    def is_open(self, population: fx.Node, step: int) -> bool:
        """Whether ``population`` makes the step that follows ``step`` steps of the network."""
        return self.onsets[population] <= step < self.onsets[population] + self.timesteps

    def feeds_open(self, node: fx.Node, step: int) -> bool:
        """Whether a population that works at ``step`` reads ``node``, directly or through affine operations."""
        return any(onset <= step < onset + self.timesteps for onset in self._served[node])

    def is_spent(self, node: fx.Node, step: int) -> bool:
        """Whether nothing after ``step`` needs the value of ``node``."""
        last = max(self._served[node] | {self.onsets.get(node, 0)})
        return node not in self._of_output and last + self.timesteps <= step
