"""Accuracy, agreement, firing rate and time of a converted network against the network it came from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_convert import SpikingModel, convert
from snn_convert.loop import single_step_loop
from snn_convert.search import search_schedule

from .costs import Cost, cost_of, share_equal
from .data import Split
from .networks import Network
from .training import accuracy

__all__ = [
    "CALIBRATION_SAMPLES",
    "RECIPES",
    "ROUNDS",
    "ROUNDS_BEGIN_WITHIN",
    "TIMED_SAMPLES",
    "Evaluation",
    "Row",
    "evaluate",
]

RECIPES = ("default", "paper")
CALIBRATION_SAMPLES = 512
TIMED_SAMPLES = 64
ROUNDS, ROUNDS_BEGIN_WITHIN = 3, 0.25


@dataclass(frozen=True)
class Row:
    """One line of the report: a network converted with a recipe, run for ``timesteps`` steps.

    ``agreement`` is the share of test samples that get the ANN's prediction; ``firing_rate`` the share of neurons
    and steps with a spike, over the first ``COUNTED_SAMPLES`` test samples; ``seconds`` and ``loop_seconds`` the time
    for the first ``TIMED_SAMPLES`` in the simulator and in the plain PyTorch loop of the same network.
    """

    network: str
    recipe: str
    timesteps: int
    ann_accuracy: float
    snn_accuracy: float
    agreement: float
    firing_rate: float
    seconds: float
    loop_seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Rows of one network and recipe, the costs beside them, and the least share of timed samples that simulator and
    loop predict alike."""

    rows: list[Row]
    costs: list[Cost]
    loop_agreement: float


def calibration_batches(split: Split) -> list[Tensor]:
    """The training images that the converter measures; the test images are not among them."""
    return list(split.train_images[:CALIBRATION_SAMPLES].split(128))


def interleaved(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> tuple[float, float, Tensor, Tensor]:
    """Median seconds of both, run in turn, and what they returned last.

    Long runs are steadier and repeating them would make the demo slow: a round is only begun while less than
    ``ROUNDS_BEGIN_WITHIN`` seconds are spent.
    """
    seconds = ([], [])
    while len(seconds[0]) < ROUNDS and sum(map(sum, seconds)) < ROUNDS_BEGIN_WITHIN:
        outputs = []
        for run, spent in zip((first, second), seconds):
            start = time.perf_counter()
            outputs.append(run())
            spent.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1]), *outputs


def measure(snn: SpikingModel, images: Tensor) -> tuple[float, float, Tensor, Tensor]:
    """Seconds and outputs of the simulator and of the loop on the same images, both warmed up on a few of them."""
    snn.outputs_at(images[:8], steps=[1])
    single_step_loop(snn, images[:8], timesteps=1)
    return interleaved(lambda: snn(images), lambda: single_step_loop(snn, images))


def choose_steps(snn: SpikingModel, recipe: str, split: Split, timesteps: int) -> None:
    """Give ``snn`` the step sizes that ``convert`` gives it for this number of steps.

    The paper's do not depend on how many steps follow; those of the default recipe are searched for each.
    """
    snn.set_schedule(snn.schedule, timesteps)
    if recipe == "default":
        search_schedule(snn, calibration_batches(split))


def evaluate(
    network: Network,
    model: nn.Module,
    split: Split,
    recipe: str,
    timesteps: tuple[int, ...],
    on_row: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Converts ``model`` with ``recipe`` and measures it at each number of steps, ascending.

    Args:
        on_row: called whenever one number of steps is done.
    """
    images, labels = split.test_images, split.test_labels
    timed = images[:TIMED_SAMPLES]
    with torch.inference_mode():
        ann = model(images)
    rows, costs, loop_agreement = [], [], 1.0
    first = timesteps[-1 if recipe == "paper" else 0]
    snn = convert(model, calibration_batches(split), timesteps=first, recipe=recipe, progress=False)
    # One run reads out the outputs of all shorter ones, if their step sizes are the same.
    outputs = snn.outputs_at(images, steps=timesteps) if recipe == "paper" else None
    for place, steps in enumerate(timesteps):
        if steps != snn.timesteps:
            choose_steps(snn, recipe, split, steps)
        output = outputs[place] if outputs else snn(images)
        seconds, loop_seconds, simulated, looped = measure(snn, timed)
        loop_agreement = min(loop_agreement, share_equal(simulated, looped))
        costs.append(cost_of(network.name, recipe, snn, split, output, ann, seconds))
        rows.append(
            Row(
                network=network.name,
                recipe=recipe,
                timesteps=steps,
                ann_accuracy=accuracy(ann, labels),
                snn_accuracy=accuracy(output, labels),
                agreement=share_equal(output, ann),
                firing_rate=costs[-1].firing_rate,
                seconds=seconds,
                loop_seconds=loop_seconds,
            )
        )
        on_row()
    return Evaluation(rows, costs, loop_agreement)
