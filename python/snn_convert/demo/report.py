"""The report of a run: report.html with everything inside, report.json with the rows, the figures as PNG."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

from .. import environment
from . import page
from .costs import COST_HEAD, COUNTED_SAMPLES, cost_cells
from .evaluation import CALIBRATION_SAMPLES, ROUNDS, ROUNDS_BEGIN_WITHIN, TIMED_SAMPLES
from .files import write_bytes, write_text
from .plots import accuracy_figure, cost_figure, png, raster_figure
from .results import HEAD, NetworkResult, Results, cells, findings

__all__ = ["write_report"]

TITLE = "Trained networks as spiking networks: handwritten digits"


def write_report(folder: Path, results: Results) -> list[Path]:
    """Writes the report into ``folder`` and returns the files, report.html first.

    Raises:
        OutputError: a file cannot be written.
    """
    accuracy = {
        f"accuracy-{result.network.name}.png": png(accuracy_figure(result.network.name, result.rows))
        for result in results.networks
    }
    costs = png(cost_figure(results.networks))
    raster = png(raster_figure(results.recording))
    for name, content in {**accuracy, "costs.png": costs, "raster.png": raster}.items():
        write_bytes(folder / name, content)
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    write_text(folder / "report.json", json.dumps(_as_json(results, date), indent=1) + "\n")
    write_text(folder / "report.html", _as_html(results, date, list(accuracy.values()), costs, raster))
    return [folder / name for name in ("report.html", "report.json", *accuracy, "costs.png", "raster.png")]


def _as_json(results: Results, date: str) -> dict[str, object]:
    return {
        "rows": results.rows_as_json(),
        "costs": results.costs_as_json(),
        "date": date,
        "machine": environment.machine(),
        "versions": environment.versions(),
        "build": environment.build(),
        "train_samples": results.train_samples,
        "test_samples": results.test_samples,
        "timed_samples": min(TIMED_SAMPLES, results.test_samples),
        "timed_rounds": {"most": ROUNDS, "begun_within_seconds": ROUNDS_BEGIN_WITHIN},
        "firing_rate_samples": min(COUNTED_SAMPLES, results.test_samples),
        "simulator_and_loop_agree": results.loop_agreement,
        "seconds": results.seconds,
    }


def _as_html(results: Results, date: str, accuracy: list[bytes], costs: bytes, raster: bytes) -> str:
    return page.page(
        TITLE,
        page.paragraph(f"snn-convert demo, {date}, {results.seconds:.0f} seconds in all.", "note"),
        *(page.paragraph(sentence) for sentence in findings(results)),
        page.section("What is compared", *_what_is_compared(results)),
        *(_network(result, figure) for result, figure in zip(results.networks, accuracy)),
        page.section("Accuracy against what it takes", *_costs(costs)),
        page.section("Inside the spiking network", _raster(results, raster)),
        page.section(
            "Machine, build and versions",
            page.facts({**environment.machine(), **environment.build(), **environment.versions()}),
            page.facts({"command": " ".join(sys.argv), "date": date}),
        ),
    )


def _what_is_compared(results: Results) -> list[str]:
    texts = (
        f"Each network is an ordinary PyTorch network (the ANN), trained on {results.train_samples} of scikit-learn's "
        f"8x8 digits. It is converted without further training; the converter looks at {CALIBRATION_SAMPLES} training "
        f"images. All accuracies are on the same {results.test_samples} held-out test images, which neither training "
        "nor conversion has seen.",
        "In the spiking network (the SNN) every nonlinearity is a population of signGD neurons (Oh & Lee, ICML 2024) "
        "that send one bit a time-step, for T time-steps. The recipe “paper” follows that publication "
        "exactly; the recipe “default” is this package's own choice of scales, initial outputs and step sizes.",
        "Agreement is the share of test images for which SNN and ANN predict the same class, right or wrong. The "
        "firing rate is the share of neurons and time-steps with a spike, over the first "
        f"{COUNTED_SAMPLES} test images.",
        f"Seconds is the simulator's time for the first {TIMED_SAMPLES} test images; loop seconds is the time, for the "
        "same images, of a plain PyTorch loop over the time-steps of the same spiking network, one pass of the network "
        "a step. Both ran in this process, in turn, on these images as one batch, with the same number of threads, "
        "after a warm-up; "
        f"each figure is the median of {ROUNDS} rounds, fewer where those begun within {ROUNDS_BEGIN_WITHIN:g} seconds "
        "were fewer. The time to convert is in neither.",
        "The simulator and the loop predicted the same class for at least "
        f"{results.loop_agreement:.1%} of these images in every row.",
    )
    return [page.paragraph(text) for text in texts]


def _network(result: NetworkResult, figure: bytes) -> str:
    groups = [[cells(row) for row in evaluation.rows] for evaluation in result.evaluations]
    return page.section(
        result.network.name,
        page.paragraph(f"{result.network.description}; {result.parameters:,} parameters."),
        page.figure(figure, f"{result.network.name}: test accuracy of the SNN against T; the dashed line is the ANN."),
        page.table(HEAD, groups),
        page.paragraph("The same and the other systems, with what they take:"),
        page.table(COST_HEAD, _by_system(result)),
    )


def _by_system(result: NetworkResult) -> list[list[list[str]]]:
    systems = dict.fromkeys(cost.system for cost in result.costs)
    return [[cost_cells(cost) for cost in result.costs if cost.system == system] for system in systems]


def _costs(figure: bytes) -> list[str]:
    texts = (
        "A synaptic operation (AC) is the addition of one weight for one spike; a MAC is a multiplication as in the "
        "ANN. Energies take 0.9 pJ for an AC and 4.6 pJ for a MAC (32-bit floating point in 45 nm; Horowitz, ISSCC "
        f"2014), for the first {COUNTED_SAMPLES} test images; above 1 the spiking network costs more than the ANN. "
        "signGD neurons fire in half of all steps however many there are: what saves operations is fewer steps.",
        "“default, staggered” opens each population's window when its input is complete: T steps a population, latency "
        "steps to the output. “subgradient”, “integrate_and_fire” (rate coding) and “parallel” (Hao et al., ICML 2025, "
        "with calibrated corrections) know ReLUs alone, so networks beyond ReLU have no rows of theirs.",
    )
    caption = "Agreement with the ANN against synaptic operations a sample, a panel a network, a curve a system."
    return [*(page.paragraph(text) for text in texts), page.figure(figure, caption)]


def _raster(results: Results, raster: bytes) -> str:
    recording = results.recording
    return page.figure(
        raster,
        f"One test image in {recording.network}, {recording.recipe} recipe, population {recording.population}. Above: "
        "the spikes of a few of its neurons, ordered by the value they should end at. Below, for some of them: the "
        "target h(x), computed from what the neuron has decoded of its input so far, and the neuron's own estimate v "
        "of its output. A spike is sent when v has reached the target, and lowers v by one step size; silence raises "
        "it by as much.",
    )
