"""What calibration data tells about every population, and the scales and initial values chosen from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .errors import CalibrationError
from .model import SpikingModel
from .population import Population
from .trace import as_arguments, refusal

__all__ = ["Statistics", "calibrate", "set_scales"]

SILENT = 1e-5  # a ReLU whose calibrated maximum is below this keeps scale 1 (Oh & Lee)


class Statistics:
    """Range and mean of one population's outputs over the calibration data."""

    def __init__(self, population: Population):
        self.channel_dims, self.batch_dim = population.channel_dims, population.batch_dim
        self.neuron_max: Tensor | None = None  # per neuron, with one sample
        self.low: Tensor | None = None  # per channel, shaped to broadcast
        self.high: Tensor | None = None
        self.total: Tensor | None = None
        self.count = 0

    def update(self, h: Tensor) -> None:
        channels = {d % h.ndim for d in self.channel_dims}
        others = [d for d in range(h.ndim) if d not in channels]
        low, high, total = h.amin(others, keepdim=True), h.amax(others, keepdim=True), h.sum(others, keepdim=True)
        neuron_max = h.amax(self.batch_dim, keepdim=True)
        if self.low is None:
            self.neuron_max, self.low, self.high, self.total = neuron_max, low, high, total
        else:
            self.neuron_max = torch.maximum(self.neuron_max, neuron_max)
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
            self.total = self.total + total
        self.count += h.numel() // total.numel()

    @property
    def mean(self) -> Tensor:
        return self.total / self.count


@torch.no_grad()
def calibrate(
    snn: SpikingModel, data: Iterable[Any], progress: Callable[[Iterable], Iterable] = iter
) -> dict[str, Statistics]:
    """Run the ANN over ``data`` and record every population's outputs.

    Raises:
        CalibrationError: an item the model refuses, NaN or infinity in an item or in an activation.
    """
    statistics = {name: Statistics(population) for name, population in snn.populations()}
    current_item = 0

    def record(name: str) -> Callable:
        def hook(module: Population, x: tuple[Tensor, ...], h: Tensor) -> None:
            if not torch.isfinite(h).all():
                raise CalibrationError(f"calibration: item {current_item} gives NaN or infinity at population {name!r}")
            statistics[name].update(h)

        return hook

    hooks = [population.register_forward_hook(record(name)) for name, population in snn.populations()]
    try:
        for current_item, item in enumerate(progress(data)):
            try:
                leaves = snn.flat_inputs(*as_arguments(item))
                for leaf in leaves:
                    if isinstance(leaf, Tensor) and leaf.is_floating_point() and not torch.isfinite(leaf).all():
                        raise CalibrationError(f"calibration: item {current_item} holds NaN or infinity")
                snn.network(*leaves)
            except CalibrationError:
                raise
            except Exception as error:
                why = refusal(item, error)
                raise CalibrationError(f"calibration: the model refuses item {current_item}: {why}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return statistics


def widening(count: int) -> float:
    """How much further than the farthest of ``count`` values a range goes that one in a thousand new values leaves, if
    they are normally distributed: 1 from a thousand values on, 1.3 for a hundred, 1.9 for ten.

    A value beyond the reach of a neuron's estimate costs more than a coarser last step.
    """
    farthest, rare = torch.special.ndtri(1 - torch.tensor([1 / (count + 1), 1e-3], dtype=torch.float64) / 2)
    return max(1.0, float(rare / farthest))


def set_scales(snn: SpikingModel, statistics: dict[str, Statistics], scale: str | float, v0: str) -> list[str]:
    """Give every population its scale and initial value (see :class:`~snn_convert.recipes.Recipe`).

    Returns:
        The populations whose calibrated range is zero.
    """
    silent = []
    for name, population in snn.populations():
        stats = statistics[name]
        if population.rectifies and population.learned:
            continue
        population.v0 = stats.mean if v0 == "mean" else torch.zeros_like(stats.mean)
        reach = torch.maximum(stats.high - population.v0, population.v0 - stats.low)
        if not reach.max() > SILENT:
            silent.append(name)
        if scale == "paper":
            relu = population.rectifies or population.activation == "relu"
            quiet = stats.neuron_max <= SILENT
            population.scale = torch.where(quiet, 1.0, stats.neuron_max) if relu else torch.ones_like(population.v0)
        elif scale == "channel":
            # A channel that never moved in the calibration data gets a small share of the population's range.
            floor = 0.01 * reach.max() if name not in silent else reach.new_ones(())
            # A threshold is the largest value itself (Hao et al.).
            wider = 1.0 if population.rectifies else widening(stats.count)
            population.scale = torch.maximum(reach, floor) * wider
        else:
            population.scale = torch.full_like(population.v0, float(scale))
    return silent
