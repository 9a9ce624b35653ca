"""Where the values of a network hold the samples of a batch, and taking samples out of a running one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from snn_kernels import NeuronState

from .engine import Engine
from .nodes import apart
from .vector_population import VectorPopulation

__all__ = ["BATCHES", "Samples", "at_both", "count_samples", "holds", "sample_dims"]

BATCHES = (1, 3)  # two numbers of samples, to see which dimensions hold them


def sample_dims(one: Sequence[int], more: Sequence[int]) -> list[int] | None:
    """The dimensions with one element a sample, from the shapes of a value for each of ``BATCHES``; ``None`` if the
    number of samples changes the shape otherwise."""
    if len(one) != len(more):
        return None
    dims = [d for d, sizes in enumerate(zip(one, more)) if sizes == BATCHES]
    return dims if all(d in dims or one[d] == more[d] for d in range(len(one))) else None


def holds(one: Tensor, more: Tensor) -> bool:
    """Whether the value for one sample is, by broadcasting, that for more of them."""
    fits = one.ndim == more.ndim and all(a in (1, b) for a, b in zip(one.shape, more.shape))
    # Rounding is far below this, and a coefficient that the number of samples enters far above.
    return fits and bool((more - one).norm() <= 1e-3 * more.norm())


def count_samples(leaves: Iterable[Any]) -> int:
    """How many samples the tensors among ``leaves`` hold; 1 if none has dimensions."""
    return max((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim), default=1)


def at_both(engine: Engine, device: torch.device) -> tuple[dict[fx.Node, Any], dict[fx.Node, Any]]:
    """Every node's value at rest, for inputs of zeros with each of ``BATCHES``."""
    one, more = (engine.at_rest(engine.example_inputs(device, samples)) for samples in BATCHES)
    return one, more


class Samples:
    """Takes samples out of the values of a network.

    Which dimension holds them is found by running the network with one sample and with three.
    """

    def __init__(self, engine: Engine):
        self.engine = engine

    @cached_property
    def _dims(self) -> dict[fx.Node, list[int] | None]:
        """For the inputs, the populations and what these receive."""
        owned = (*self.engine.network.parameters(), *self.engine.network.buffers())
        with apart():
            one, more = at_both(self.engine, owned[0].device if owned else torch.device("cpu"))
        neurons = self.engine.neurons
        nodes = {*self.engine.inputs, *neurons, *(x for node in neurons for x in node.args)}
        tensors = [node for node in nodes if isinstance(one[node], Tensor)]
        return {node: sample_dims(one[node].shape, more[node].shape) for node in tensors}

    @property
    def separable(self) -> bool:
        """Whether every population has the samples along one dimension of their own, or none."""
        return all(dims is not None and len(dims) <= 1 for dims in self._dims.values())

    def take(self, samples: Tensor, node: fx.Node, value: Any) -> Any:
        """The value of ``node`` for the samples with these indices."""
        dims = self._dims.get(node)
        return value.index_select(dims[0], samples) if dims else value

    def take_state(self, samples: Tensor, node: fx.Node, state: tuple) -> tuple:
        """The state of a population for these samples: operands of a function of the whole keep their own shapes."""
        if not isinstance(state, NeuronState):  # of rectifiers: tensors of the population's own shape
            return type(state)(*(self.take(samples, node, part) for part in state))
        whole = isinstance(self.engine.population(node), VectorPopulation)
        x = (self.take(samples, source if whole else node, xi) for source, xi in zip(node.args, state.x))
        return NeuronState(tuple(x), self.take(samples, node, state.v))
