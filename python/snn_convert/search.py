"""Choose step sizes for a given number of time-steps from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from snn_kernels.schedules import Exponential

from .model import SpikingModel

__all__ = ["candidates", "output_error", "search_schedule"]

SAMPLES = 16  # calibration samples a candidate is tried on
# How far an estimate can travel in all steps, in units of its scale, and its last step over its first. Slow decay
# follows deep networks, whose inputs settle late; fast decay ends on fine steps.
TRAVELS = (1.5, 2.5, 4.0)
DECAYS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def candidates(timesteps: int) -> list[Exponential]:
    """Exponential tables that cover each travel with each decay."""
    tables = []
    for decay in DECAYS if timesteps > 1 else (1.0,):
        gamma = decay ** (1 / max(timesteps - 1, 1))
        reach = sum(gamma**t for t in range(timesteps))
        tables += [Exponential(round(travel / reach, 4), round(gamma, 4)) for travel in TRAVELS]
    return tables


def output_error(output: Any, target: Any) -> float:
    """``||output - target|| / ||target||`` over all floating-point leaves."""
    squares = [
        ((a - b).double().square().sum(), b.double().square().sum())
        for a, b in zip(pytree.tree_leaves(output), pytree.tree_leaves(target))
        if isinstance(b, Tensor) and b.is_floating_point()
    ]
    error, size = (sum(column) for column in zip(*squares))
    return float((error / size.clamp_min(1e-300)).sqrt())


@torch.no_grad()
def search_schedule(
    snn: SpikingModel, args: tuple, kwargs: dict, progress: Callable[[Iterable], Iterable] = iter
) -> float:
    """Set the candidate whose output after all steps is nearest to the ANN's; returns its relative error."""
    args, kwargs = pytree.tree_map_only(Tensor, lambda leaf: leaf[:SAMPLES] if leaf.ndim else leaf, (args, kwargs))
    target = snn.network(*snn.flat_inputs(args, kwargs))
    best = (float("inf"), None)
    for schedule in progress(candidates(snn.timesteps)):
        snn.set_schedule(schedule, snn.timesteps)
        error = output_error(snn(*args, **kwargs), target)
        best = min(best, (error, schedule), key=lambda pair: pair[0])
    if best[1] is None:
        raise ValueError("schedule: every candidate gives NaN on the calibration data; name one yourself")
    snn.set_schedule(best[1], snn.timesteps)
    return best[0]
