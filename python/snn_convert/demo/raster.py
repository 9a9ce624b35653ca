"""What a few neurons do over time, taken from the plain single-step loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_convert import convert
from snn_convert.loop import single_step_loop

from .data import Split
from .evaluation import calibration_batches
from .networks import Network

__all__ = ["Recording", "record"]


def spread(values: Tensor, count: int) -> Tensor:
    """Indices, ascending in value, of the entries nearest to ``count`` evenly spaced values from least to largest.

    Picking neurons at random would show mostly silent ones: after a ReLU half of a population ends at 0.
    """
    free, chosen = values.clone(), []
    for wanted in torch.linspace(values.min(), values.max(), min(count, len(values))):
        chosen.append(int((free - wanted).abs().argmin()))
        free[chosen[-1]] = torch.inf
    chosen = torch.tensor(chosen)
    return chosen[values[chosen].argsort()]


@dataclass(frozen=True)
class Recording:
    """Spikes, estimates ``v`` and targets ``h(x)`` as ``[T, neurons]``, neurons ordered by their last target."""

    network: str
    recipe: str
    population: str
    spikes: Tensor
    estimate: Tensor
    target: Tensor


def record(network: Network, model: nn.Module, split: Split, timesteps: int, neurons: int = 12) -> Recording:
    """Runs one test image through the paper's recipe and keeps ``neurons`` neurons of the middle population."""
    recipe = "paper"
    snn = convert(model, calibration_batches(split), timesteps=timesteps, recipe=recipe, progress=False)
    traces: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def keep(t: int, population: str, x: Tensor, target: Tensor, v: Tensor, spike: Tensor) -> None:
        step = tuple(tensor.detach().float().flatten().clone() for tensor in (spike, v, target))
        traces.setdefault(population, []).append(step)

    with torch.inference_mode():
        single_step_loop(snn, split.test_images[:1], timesteps=timesteps, record=keep)
    population = list(traces)[len(traces) // 2]
    spikes, estimate, target = (torch.stack(values) for values in zip(*traces[population]))
    kept = spread(target[-1], neurons)
    return Recording(network.name, recipe, population, spikes[:, kept], estimate[:, kept], target[:, kept])
