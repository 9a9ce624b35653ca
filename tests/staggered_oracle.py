"""The value-domain oracle on staggered windows: every unit chases its target during its own window alone.

How deep a unit lies is found by marks that tensors carry through the user's own model, not from the converted graph.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from oracle import ChaseMode


def depth_of(values) -> int:
    """The most units that lie one behind the other before any of these tensors."""
    return max((getattr(value, "units_before", 0) for value in pytree.tree_leaves(values)), default=0)


class MarkDepth(TorchFunctionMode):
    """What a function returns lies as deep as the deepest of its arguments."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                leaf.units_before = depth_of((args, kwargs))
        return out


class StaggeredChase(ChaseMode):
    """Units that work for ``len(eta)`` steps each, from ``delay`` steps after the deepest unit before them."""

    def __init__(self, *args, delay, **kwargs):
        super().__init__(*args, **kwargs)
        self.delay, self.last = delay, 0

    def chase(self, target):
        unit = self.units[self.next_unit]
        self.next_unit += 1
        depth = depth_of(target)
        onset = self.delay * depth
        self.last = max(self.last, onset + len(self.eta))
        if onset <= self.t < onset + len(self.eta):
            value = unit.chase(target, self.eta[self.t - onset])
        else:
            value = unit.v0.expand_as(target) if unit.v is None else unit.v
        value = value.clone()
        value.units_before = depth + 1
        return value


def staggered_outputs(model, x, snn, steps, delay, **forms):
    """The outputs that ``snn`` has to show after each of ``steps``, and its latency, from ``model`` itself."""
    units = [(p.scale, p.v0) for _, p in snn.populations()]
    mode, outputs = StaggeredChase(units, snn.eta, delay=delay, **forms), {}
    f = torch.zeros_like(x)
    for t in range(max(steps)):
        if snn.encoder == "float" and t < len(snn.eta):
            f = f - snn.eta[t] * (f - x)
        given = (x if snn.encoder == "direct" else f).clone()
        given.units_before = int(snn.encoder != "direct")  # an encoded input is chased by units of its own
        with torch.no_grad(), MarkDepth(), mode:
            mode.step(t)
            outputs[t + 1] = model(given)
        assert mode.next_unit == len(mode.units)
    return [outputs[step] for step in steps], mode.last
