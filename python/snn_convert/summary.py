"""A converted network in words: what ``print`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .population import Population

if TYPE_CHECKING:
    from .model import SpikingModel

__all__ = ["summary"]

HEAD = ("population", "function", "scale", "initial estimate", "onset")


def summary(snn: SpikingModel) -> str:
    """One line on the run, then a line a population: its name, what it chases, its scales and initial estimates."""
    precision = str(snn.engine.precision).removeprefix("torch.")
    weights = f", weights of {snn.engine.weight_bits} bits" if snn.engine.weight_bits else ""
    kind = f"{snn.dynamics} neurons, {snn.encoder} encoder, {precision}{weights} on {snn.eta.device}"
    run = f"{snn.timesteps} steps of {snn.schedule}, latency {snn.latency}, {kind}"
    onsets = snn.onsets
    lines = [HEAD, *((*_line(name, population), str(onsets[name])) for name, population in snn.populations())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n  ".join([f"{type(snn).__name__}({run})", *table])


def _line(name: str, population: Population) -> tuple[str, ...]:
    parameters = ", ".join(_range(value) for value in population.parameter_values())
    function = population.activation + (f"({parameters})" if parameters else "")
    scales = population.scale.numel()
    shared = f", {scales} values" if scales > 1 else ""
    return name, function, _range(population.scale) + shared, _range(population.v0)


def _range(values: Tensor) -> str:
    low, high = values.min().item(), values.max().item()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
