"""The other systems of the two papers on a network of the demo: staggered, subgradient, IF, parallel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_convert import SpikingModel, UnsupportedOperation, convert
from snn_convert.search import search_schedule

from .costs import Cost, cost_of
from .data import Split
from .evaluation import CALIBRATION_SAMPLES, TIMED_SAMPLES
from .networks import Network

__all__ = ["SYSTEMS", "System", "other_systems"]


@dataclass(frozen=True)
class System:
    """A way to convert, and the numbers of steps it is shown at.

    Attributes:
        recipe: of ``convert``.
        timesteps: ascending.
        staggered: each population opens its window when its input is complete.
        anytime: one run reads out all numbers of steps; otherwise each has step sizes or corrections of its own.
    """

    recipe: str
    timesteps: tuple[int, ...]
    staggered: bool = False
    anytime: bool = False


SYSTEMS = {
    "default, staggered": System("default", (4, 8, 12), staggered=True),
    "subgradient": System("subgradient", (8, 16, 32, 64), anytime=True),
    "integrate_and_fire": System("integrate_and_fire", (8, 16, 32, 64), anytime=True),
    "parallel": System("parallel", (4, 8)),
}


def other_systems(
    network: Network, model: nn.Module, split: Split, on_system: Callable[[], None] = lambda: None
) -> list[Cost]:
    """Every system of ``SYSTEMS`` that the network converts to: some know ReLUs alone.

    Args:
        on_system: called whenever one system is done.
    """
    with torch.inference_mode():
        ann = model(split.test_images)
    # Small batches: the corrections of parallel neurons are moving averages over many.
    calibration = list(split.train_images[:CALIBRATION_SAMPLES].split(32))
    costs = []
    for name, system in SYSTEMS.items():
        # Networks beyond ReLU are no reason to stop; the report says what converts.
        with contextlib.suppress(UnsupportedOperation):
            for snn, output in _conversions(system, model, split, calibration):
                start = time.perf_counter()
                snn(split.test_images[:TIMED_SAMPLES])
                seconds = time.perf_counter() - start
                costs.append(cost_of(network.name, name, snn, split, output, ann, seconds))
        on_system()
    return costs


def _conversions(system: System, model: nn.Module, split: Split, calibration: list[Tensor]):
    """The converted network at each number of steps, and its output for the test images."""
    if system.anytime:
        snn = convert(model, calibration, timesteps=system.timesteps[-1], recipe=system.recipe)
        outputs = snn.outputs_at(split.test_images, steps=system.timesteps)
        for steps, output in zip(system.timesteps, outputs):
            snn.set_schedule(snn.schedule, steps)
            yield snn, output
        return
    snn: SpikingModel | None = None
    for steps in system.timesteps:
        delay = steps if system.staggered else None
        if snn is None or not system.staggered:
            snn = convert(model, calibration, timesteps=steps, recipe=system.recipe, onset_delay=delay)
        else:
            snn.set_schedule(snn.schedule, steps, delay)
            search_schedule(snn, calibration)
        yield snn, snn(split.test_images)
