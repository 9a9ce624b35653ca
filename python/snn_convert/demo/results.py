"""What one run of the demo found, and how it is put into numbers and words. Terminal and report both read it."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

from .costs import Cost
from .evaluation import Evaluation, Row
from .networks import Network
from .raster import Recording

__all__ = ["HEAD", "NetworkResult", "Results", "cells", "findings"]

HEAD = (
    "recipe",
    "T",
    "ANN accuracy",
    "SNN accuracy",
    "agreement",
    "firing rate",
    "seconds",
    "loop seconds",
    "loop / simulator",
)


@dataclass(frozen=True)
class NetworkResult:
    """A network, its size, and what its conversions measured."""

    network: Network
    parameters: int
    evaluations: tuple[Evaluation, ...]
    family: tuple[Cost, ...]

    @property
    def costs(self) -> list[Cost]:
        """Of every system, those with rows first."""
        return [*(cost for evaluation in self.evaluations for cost in evaluation.costs), *self.family]

    @property
    def rows(self) -> list[Row]:
        return [row for evaluation in self.evaluations for row in evaluation.rows]


@dataclass(frozen=True)
class Results:
    """Everything the report shows. ``train_samples`` and ``test_samples`` count images."""

    networks: tuple[NetworkResult, ...]
    recording: Recording
    train_samples: int
    test_samples: int
    seconds: float

    @property
    def rows(self) -> list[Row]:
        return [row for result in self.networks for row in result.rows]

    @property
    def loop_agreement(self) -> float:
        """The least share of timed samples on which simulator and loop predicted the same, over all rows."""
        return min(evaluation.loop_agreement for result in self.networks for evaluation in result.evaluations)

    def costs_as_json(self) -> list[dict[str, object]]:
        return [asdict(cost) for result in self.networks for cost in result.costs]

    def rows_as_json(self) -> list[dict[str, object]]:
        return [asdict(row) for row in self.rows]


def cells(row: Row) -> list[str]:
    """A row as text, in the order of ``HEAD``."""
    return [
        row.recipe,
        str(row.timesteps),
        f"{row.ann_accuracy:.1%}",
        f"{row.snn_accuracy:.1%}",
        f"{row.agreement:.1%}",
        f"{row.firing_rate:.1%}",
        f"{row.seconds:.3f}",
        f"{row.loop_seconds:.3f}",
        f"{row.loop_seconds / row.seconds:.1f}x",
    ]


def _gap(row: Row) -> str:
    # Adding 0.0 turns a -0.0 that would read as a loss into 0.0.
    return f"{row.network} {round(100 * (row.snn_accuracy - row.ann_accuracy), 1) + 0.0:+.1f}"


def findings(results: Results, shown_at: int = 64) -> list[str]:
    """What the numbers say, a sentence a finding, computed from the rows."""
    rows = results.rows
    shown = max((row.timesteps for row in rows if row.timesteps <= shown_at), default=rows[-1].timesteps)
    sentences = []
    for recipe in dict.fromkeys(row.recipe for row in rows):
        gaps = ", ".join(_gap(row) for row in rows if row.recipe == recipe and row.timesteps == shown)
        sentences.append(
            f"Test accuracy of the SNN less that of the ANN at T = {shown}, {recipe} recipe, in points: {gaps}."
        )
    for system in dict.fromkeys(cost.system for result in results.networks for cost in result.family):
        costs = [cost for result in results.networks for cost in result.family if cost.system == system]
        last = max(cost.timesteps for cost in costs if cost.timesteps <= 8)
        shares = ", ".join(f"{cost.network} {cost.agreement:.1%}" for cost in costs if cost.timesteps == last)
        sentences.append(f"Agreement with the ANN at T = {last}, {system}: {shares}.")
    ratio = statistics.median(row.loop_seconds / row.seconds for row in rows)
    sentences.append(
        f"The plain PyTorch loop of the same spiking network took {ratio:.1f} times as long as the simulator (median "
        f"of {len(rows)} rows)."
    )
    if results.loop_agreement < 0.99:
        sentences.append(
            f"Simulator and loop predicted the same class for only {results.loop_agreement:.1%} of the timed images "
            "in the worst row: their times are not comparable there."
        )
    return sentences
