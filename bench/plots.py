"""Plots of results: lines for sweeps, bars for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .results import Row

__all__ = ["plot"]


def plot(title: str, rows: list[Row], quantity: str, path: Path) -> bool:
    """Write a panel for each swept fact and one of bars; whether there was anything to draw."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row.p50 is not None and (quantity == "p50" or quantity in row.facts)]
    sweeps = list(dict.fromkeys(row.sweep for row in rows))
    if not rows:
        return False
    bars = sum(not row.sweep for row in rows)
    size = (6.5 * len(sweeps), max(4.2, 0.22 * bars + 1.2))
    figure, panels = plt.subplots(1, len(sweeps), figsize=size, squeeze=False, layout="constrained")
    for panel, sweep in zip(panels[0], sweeps):
        chosen = [row for row in rows if row.sweep == sweep]
        _lines(panel, chosen, sweep) if sweep else _bars(panel, chosen, quantity)
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return True


def _colours(rows: list[Row]) -> dict[str, str]:
    return {name: f"C{i % 10}" for i, name in enumerate(dict.fromkeys(row.variant for row in rows))}


def _lines(panel: Any, rows: list[Row], sweep: str) -> None:
    """The median against the fact that varies, in a band of the middle 60% of the rounds."""
    for variant, colour in _colours(rows).items():
        chosen = sorted((row for row in rows if row.variant == variant), key=lambda row: row.facts[sweep])
        x = [row.facts[sweep] for row in chosen]
        panel.plot(x, [row.p50 for row in chosen], "o-", markersize=4, color=colour, label=variant)
        panel.fill_between(x, [row.p20 for row in chosen], [row.p80 for row in chosen], alpha=0.2, color=colour)
    panel.set(xscale="log", yscale="log", xlabel=sweep, ylabel="ms")
    panel.legend()


def _bars(panel: Any, rows: list[Row], quantity: str) -> None:
    """A bar a variant, the cases one below the other; whiskers from the 20th to the 80th percentile of times."""
    colours, named = _colours(rows), set()
    for place, row in enumerate(rows):
        value = row.p50 if quantity == "p50" else row.facts[quantity]
        spread = [[row.p50 - row.p20], [row.p80 - row.p50]] if quantity == "p50" else None
        label = None if row.variant in named else row.variant
        named.add(row.variant)
        panel.barh(place, value, xerr=spread, color=colours[row.variant], label=label, error_kw={"lw": 0.8})
    starts = [i for i, row in enumerate(rows) if i == 0 or row.case != rows[i - 1].case]
    panel.set_yticks(starts, [rows[i].case for i in starts], fontsize=7)
    panel.invert_yaxis()
    panel.set(xscale="log", xlabel="ms" if quantity == "p50" else quantity)
    panel.legend(fontsize=7)
