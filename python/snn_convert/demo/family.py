"""Every system of the two papers on one network: accuracy beside synaptic operations, energy and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_convert import SpikingModel, UnsupportedOperation, convert
from snn_convert.search import search_schedule

from .data import Split
from .evaluation import CALIBRATION_SAMPLES, FIRING_SAMPLES, TIMED_SAMPLES, share_equal
from .networks import Network
from .training import accuracy

__all__ = ["COST_HEAD", "SYSTEMS", "Cost", "System", "cost_cells", "family"]


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
    "default": System("default", (8, 16, 32, 64)),
    "default, staggered": System("default", (4, 8, 12), staggered=True),
    "paper": System("paper", (16, 32, 64, 128), anytime=True),
    "subgradient": System("subgradient", (16, 32, 64, 128), anytime=True),
    "integrate_and_fire": System("integrate_and_fire", (8, 16, 32, 64), anytime=True),
    "parallel": System("parallel", (2, 4, 8)),
}
COST_HEAD = (
    "system",
    "T",
    "latency",
    "SNN accuracy",
    "agreement",
    "firing rate",
    "AC",
    "MAC",
    "energy / ANN",
    "seconds",
)


@dataclass(frozen=True)
class Cost:
    """A system at ``timesteps`` steps: what it gets right and what it takes.

    ``latency`` is the number of steps until the output is complete. ``synaptic_operations`` (additions of a weight for a
    spike), ``macs`` and the energies (picojoules) are a sample's, means of ``FIRING_SAMPLES`` test samples, counted as
    :meth:`snn_convert.SpikingModel.profile` counts. ``seconds`` is the simulator's time for ``TIMED_SAMPLES``.
    """

    network: str
    system: str
    timesteps: int
    latency: int
    snn_accuracy: float
    agreement: float
    firing_rate: float
    synaptic_operations: float
    macs: float
    energy: float
    ann_energy: float
    seconds: float


def cost_cells(cost: Cost) -> list[str]:
    """A row as text, in the order of ``COST_HEAD``."""
    return [
        cost.system,
        str(cost.timesteps),
        str(cost.latency),
        f"{cost.snn_accuracy:.1%}",
        f"{cost.agreement:.1%}",
        f"{cost.firing_rate:.1%}",
        f"{cost.synaptic_operations / 1e6:.3g} M",
        f"{cost.macs / 1e6:.3g} M",
        f"{cost.energy / cost.ann_energy:.2f}",
        f"{cost.seconds:.3f}",
    ]


def family(
    network: Network, model: nn.Module, split: Split, on_system: Callable[[], None] = lambda: None
) -> list[Cost]:
    """Every system that the network converts to: some of them know ReLUs alone.

    Args:
        on_system: called whenever one system is done.
    """
    with torch.inference_mode():
        ann = model(split.test_images)
    costs = []
    # Small batches: the corrections of parallel neurons are moving averages over many.
    calibration = list(split.train_images[:CALIBRATION_SAMPLES].split(64))
    for name, system in SYSTEMS.items():
        try:
            costs += _costs(network.name, name, system, model, split, calibration, ann)
        except UnsupportedOperation:
            pass  # of a network beyond ReLU; the report says so
        on_system()
    return costs


def _costs(
    network: str, name: str, system: System, model: nn.Module, split: Split, calibration: list[Tensor], ann: Tensor
) -> list[Cost]:
    outputs: list[Tensor] | None = None
    costs, snn = [], None
    for place, steps in enumerate(system.timesteps):
        if system.anytime and snn is None:
            snn = convert(model, calibration, timesteps=system.timesteps[-1], recipe=system.recipe)
            outputs = snn.outputs_at(split.test_images, steps=system.timesteps)
        elif not system.anytime:
            delay = steps if system.staggered else None
            snn = _converted(snn, model, calibration, steps, system.recipe, delay)
        if system.anytime:
            snn.set_schedule(snn.schedule, steps)
        output = outputs[place] if outputs else snn(split.test_images)
        costs.append(_cost(network, name, snn, split, output, ann))
    return costs


def _converted(
    snn: SpikingModel | None, model: nn.Module, calibration: list[Tensor], steps: int, recipe: str, delay: int | None
) -> SpikingModel:
    """The network for this number of steps; scales and offsets are measured once, step sizes searched each time."""
    if snn is None or recipe == "parallel":
        return convert(model, calibration, timesteps=steps, recipe=recipe, onset_delay=delay)
    snn.set_schedule(snn.schedule, steps, delay)
    search_schedule(snn, (calibration[0],), {})
    return snn


def _cost(network: str, name: str, snn: SpikingModel, split: Split, output: Tensor, ann: Tensor) -> Cost:
    start = time.perf_counter()
    snn(split.test_images[:TIMED_SAMPLES])
    seconds = time.perf_counter() - start
    total = snn.profile(split.test_images[:FIRING_SAMPLES]).total
    return Cost(
        network=network,
        system=name,
        timesteps=snn.timesteps,
        latency=snn.latency,
        snn_accuracy=accuracy(output, split.test_labels),
        agreement=share_equal(output, ann),
        firing_rate=total.firing_rate,
        synaptic_operations=total.synaptic_operations,
        macs=total.macs,
        energy=total.energy,
        ann_energy=total.ann_energy,
        seconds=seconds,
    )
