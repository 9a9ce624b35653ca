"""The value-domain oracle on staggered windows: every unit chases its target during its own window alone.

How deep a unit lies is found by marks that tensors carry through the user's own model, not from the converted graph.
"""

from __future__ import annotations

from oracle import ChaseMode, Unit, depth_of, run_units


class StaggeredChase(ChaseMode):
    """Units that work for ``len(eta)`` steps each, from ``delay`` steps after the deepest unit before them."""

    def __init__(self, *args, delay, **kwargs):
        super().__init__(*args, **kwargs)
        self.delay, self.last = delay, 0

    def chase(self, target, keep=None):
        unit = self.units[self.next_unit]
        self.next_unit += 1
        depth = depth_of(target)
        onset = self.delay * depth
        self.last = max(self.last, onset + len(self.eta))
        if onset <= self.t < onset + len(self.eta):
            value = unit.chase(target, self.eta[self.t - onset])
        else:
            value = (unit.v0.expand_as(target) if unit.v is None else unit.v).clone()
        value.units_before = depth + 1
        return value


def staggered_outputs(model, given, snn, steps, delay, **forms):
    """The outputs that ``snn`` has to show after each of ``steps``, and its latency, from ``model`` itself."""
    units = [Unit(p.scale, p.v0) for _, p in snn.populations()]
    mode = StaggeredChase(units, snn.eta, delay=delay, **forms)
    return run_units(mode, model, given, snn, steps), mode.last
