"""Corrections of parallel spiking neurons: what quantisation takes from a network is given back on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .model import SpikingModel
from .rectifiers import ParallelPopulation
from .trace import as_arguments

__all__ = ["CORRECTIONS", "calibrate_corrections"]

CORRECTIONS = ("published", "unbiased", "none")
RATE = 0.01  # of the moving averages (Hao et al. 2025)
UPDATES = 300  # after which a moving average has forgotten all but 5% of its start


@torch.no_grad()
def calibrate_corrections(
    snn: SpikingModel,
    data: Sequence[Any],
    correction: str,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Set ``pre`` and ``post`` of every :class:`ParallelPopulation` without training (DA-QCFS, Hao et al., ICML 2025).

    A teacher (ReLUs clipped at the thresholds) and a student (the quantised network, corrected so far) flow through all
    layers together, and for every channel, with means over the samples and places of a batch::

        pre  <- 0.99 pre  + 0.01 mean(teacher - student)        on inputs
        post <- 0.99 post + 0.01 mean(teacher - student)        on outputs

    ``data`` is gone through as often as 300 updates need.

    Args:
        correction: ``published``: the error of ``post`` is measured on outputs that ``post`` is applied to, so that it
            settles at ``error / (1 + mean level)``. ``unbiased``: it settles at ``error / mean level``, which removes
            the mean error.
    """
    populations = [p for _, p in snn.populations() if isinstance(p, ParallelPopulation) and not p.learned]
    for update in progress(range(UPDATES)) if populations else ():
        inputs = snn.flat_inputs(*as_arguments(data[update % len(data)]))
        teachers: dict[ParallelPopulation, tuple[Tensor, Tensor]] = {}

        def teacher(population: ParallelPopulation, x: tuple[Tensor], teachers=teachers) -> Tensor:
            output = torch.minimum(population(*x), population.scale)
            teachers[population] = (x[0], output)
            return output

        def student(population: ParallelPopulation, x: tuple[Tensor], teachers=teachers) -> Tensor:
            if population.learned:
                return population(*x)
            return _corrected(population, x[0], *teachers[population], snn.timesteps, correction)

        snn.engine.start(inputs, teacher)
        snn.engine.start(inputs, student)


def _corrected(
    population: ParallelPopulation, x: Tensor, teacher_x: Tensor, teacher: Tensor, timesteps: int, correction: str
) -> Tensor:
    """One update of a population's corrections; its output after it."""

    def mean(values: Tensor) -> Tensor:
        channels = {d % values.ndim for d in population.channel_dims}
        return values.mean([d for d in range(values.ndim) if d not in channels], keepdim=True)

    population.pre = (1 - RATE) * population.pre + RATE * mean(teacher_x - x)
    output = population.quantised(x, timesteps)
    if correction == "published":
        error = mean(teacher - output)
    else:
        level = output / (population.scale + population.post)
        # A channel that never fires has nothing that could be corrected.
        error = mean(teacher - population.scale * level) / mean(level).clamp(min=0.5 / timesteps)
    population.post = (1 - RATE) * population.post + RATE * error
    return output
