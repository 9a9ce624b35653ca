"""The figures of the report, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from .evaluation import Row
from .raster import Recording
from .results import NetworkResult

__all__ = ["accuracy_figure", "cost_figure", "png", "raster_figure"]

COLOURS = {"default": "#0b6e99", "paper": "#d9730d"}
MARKERS = {"default": "o", "paper": "s"}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def accuracy_figure(title: str, rows: Sequence[Row]) -> Figure:
    """Test accuracy of one network against the number of time-steps: a curve a recipe, the ANN as a dashed line."""
    figure = Figure(figsize=(6.4, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    ann = rows[0].ann_accuracy
    axes.axhline(ann, color="#444444", linestyle="--", linewidth=1.2, label=f"ANN ({ann:.1%})")
    for recipe in dict.fromkeys(row.recipe for row in rows):
        points = [(row.timesteps, row.snn_accuracy) for row in rows if row.recipe == recipe]
        style = {"color": COLOURS.get(recipe), "marker": MARKERS.get(recipe, "^"), "linewidth": 1.8}
        axes.plot(*zip(*points), label=f"SNN, {recipe} recipe", **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({row.timesteps for row in rows}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0.0, 1.03)
    axes.set_title(title)
    axes.set_xlabel("time-steps T")
    axes.set_ylabel("accuracy on the test set")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", framealpha=1.0)
    return figure


def cost_figure(networks: Sequence[NetworkResult], columns: int = 3) -> Figure:
    """Agreement with the ANN against synaptic operations: a panel a network, a curve a system."""
    lines = -(-len(networks) // columns)
    figure = Figure(figsize=(10.5, 3.4 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, min(columns, len(networks)), sharey=True, squeeze=False).flatten()
    systems = list(dict.fromkeys(cost.system for result in networks for cost in result.costs))
    for axes, result in zip(panels, networks):
        for place, system in enumerate(systems):
            points = [(cost.synaptic_operations, cost.agreement) for cost in result.costs if cost.system == system]
            if points:
                axes.plot(*zip(*points), marker="o", markersize=4, color=f"C{place}", label=system)
        axes.set_xscale("log")
        axes.set_title(result.network.name)
        axes.set_xlabel("synaptic operations a sample")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
    for axes in panels[len(networks) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("agreement with the ANN")
    panels[0].legend(fontsize="small", loc="lower right")
    return figure


def raster_figure(recording: Recording, traced: int = 3) -> Figure:
    """Spikes of a few neurons above; below, estimate and target of some of them, each with its own spikes."""
    steps, neurons = recording.spikes.shape
    figure = Figure(figsize=(9.0, 3.0 + 1.7 * traced), dpi=120, layout="constrained")
    top, *below = figure.subplots(1 + traced, 1, sharex=True, height_ratios=[1.6, *[1.0] * traced])
    chosen = [round(i * (neurons - 1) / max(traced - 1, 1)) for i in range(traced)]
    colours = {neuron: f"C{i}" for i, neuron in enumerate(chosen)}
    when = [recording.spikes[:, n].nonzero().flatten().tolist() for n in range(neurons)]
    top.eventplot(when, colors=[colours.get(n, "#333333") for n in range(neurons)], linelengths=0.8, linewidths=1.4)
    top.set_ylabel("neuron")
    top.set_yticks(range(neurons))
    top.set_title(f"{recording.network}, {recording.recipe} recipe, population {recording.population}: spikes")
    for axes, neuron in zip(below, chosen):
        axes.plot(recording.target[:, neuron], color="#222222", linestyle="--", linewidth=1.2, label="target h(x)")
        axes.step(range(steps), recording.estimate[:, neuron], where="post", color=colours[neuron], label="estimate v")
        axes.set_ylabel(f"neuron {neuron}")
        axes.grid(alpha=0.3)
    below[0].legend(loc="best", ncols=2)
    below[-1].set_xlabel("time-step t")
    below[-1].set_xlim(-0.5, steps - 0.5)
    return figure
