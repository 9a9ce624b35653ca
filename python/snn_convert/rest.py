"""A network at rest, every neuron at its initial estimate: what no input moves is computed once, not in every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from .engine import Engine, Kind
from .samples import at_both, holds, sample_dims

__all__ = ["Rest"]


class Rest:
    """The values of the nodes that depend on no input before the first step, from one sample.

    Between two populations a decoded input starts at ``L(v0)``, whatever the input is; behind an input that is not
    encoded it does not. The values of a sample hold for every batch, up to the rounding of products of another size.
    They are computed when they are first asked for, and again after :meth:`forget` or if an initial estimate changes.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._found: dict[fx.Node, tuple[Tensor, list[int]]] | None = None
        self._estimates: list[tuple[Tensor, Any]] = []  # that they were found with

    def forget(self) -> None:
        self._found = None

    def values(self, inputs: Sequence[Any], device: torch.device) -> dict[fx.Node, Tensor]:
        """The values for a batch of these inputs, as views."""
        batches = {len(leaf) for leaf in inputs if isinstance(leaf, Tensor) and leaf.ndim}
        if len(batches) != 1:  # whose samples a node holds is not known
            return {}
        estimates = self._initial_estimates()
        if self._found is None or any(a is not b or m != n for (a, m), (b, n) in zip(estimates, self._estimates)):
            self._found, self._estimates = self._measure(device), estimates
        (batch,) = batches
        return {
            node: value.expand([batch if d in dims else size for d, size in enumerate(value.shape)])
            for node, (value, dims) in self._found.items()
        }

    def _initial_estimates(self) -> list[tuple[Tensor, Any]]:
        """The initial estimates and how often each was written to, which a tensor of inference mode cannot tell."""
        modules = (self.engine.population(node) for node in self.engine.neurons if node.op == "call_module")
        return [(m.v0, object() if m.v0.is_inference() else m.v0._version) for m in modules]

    def _measure(self, device: torch.device) -> dict[fx.Node, tuple[Tensor, list[int]]]:
        one, more = at_both(self.engine, device)
        found: dict[fx.Node, tuple[Tensor, list[int]]] = {}
        for node in self.engine.nodes:
            kind = self.engine.kinds[node]
            still = (source in found or self.engine.kinds[source] == Kind.FIXED for source in node.all_input_nodes)
            if kind == Kind.NEURON or (kind == Kind.CURRENT and all(still)):
                dims = _dims_of(one[node], more[node])
                if dims is not None:
                    found[node] = (one[node], dims)
        return found


def _dims_of(one: Any, more: Any) -> list[int] | None:
    """The dimensions along which a value has one element a sample; ``None`` if the batch changes it otherwise."""
    dims = sample_dims(one.shape, more.shape) if isinstance(one, Tensor) else None
    return dims if dims is not None and holds(one, more) else None
