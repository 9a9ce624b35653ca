"""Taking samples out of a running batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from snn_kernels import NeuronState

from .engine import Engine
from .vector_population import VectorPopulation

__all__ = ["Samples"]


class Samples:
    """Where the values of a network keep the samples of a batch, by the symbolic shapes of the export."""

    def __init__(self, engine: Engine):
        self.engine = engine
        # The export may give every input a symbol of its own for the number of samples.
        self._batch = {size for node in engine.inputs for size in _symbols(node).values()}

    @property
    def separable(self) -> bool:
        """Whether every population has the samples along one dimension of their own, or none."""
        carriers = {*self.engine.neurons, *(x for node in self.engine.neurons for x in node.args)}
        found = [_symbols(node) for node in carriers]
        return all(len(dims) <= 1 and set(dims.values()) <= self._batch for dims in found)

    def take(self, samples: Tensor, node: fx.Node, value: Any) -> Any:
        """The value of ``node`` for the samples with these indices."""
        dims = list(_symbols(node))
        return value.index_select(dims[0], samples) if dims else value

    def take_state(self, samples: Tensor, node: fx.Node, state: tuple) -> tuple:
        """The state of a population for these samples: operands of a function of the whole keep their own shapes."""
        if not isinstance(state, NeuronState):  # of rectifiers: tensors of the population's own shape
            return type(state)(*(self.take(samples, node, part) for part in state))
        whole = isinstance(self.engine.population(node), VectorPopulation)
        x = (self.take(samples, source if whole else node, xi) for source, xi in zip(node.args, state.x))
        return NeuronState(tuple(x), self.take(samples, node, state.v))


def _symbols(node: fx.Node) -> dict[int, Any]:
    """The sizes that are not fixed, by dimension."""
    value = node.meta.get("val")
    shape = value.shape if isinstance(value, Tensor) else ()
    return {d: size.node.expr for d, size in enumerate(shape) if not isinstance(size, int)}
