"""Choose step sizes for a given number of time-steps from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from snn_kernels.schedules import Exponential

from .model import SpikingModel

__all__ = ["candidates", "output_error", "search_schedule"]

SAMPLES = 16  # calibration samples a candidate is tried on, at most
# Multiplications that a search may spend: some ten seconds of two free cores. A count and not a clock, so that the
# same model gets the same step sizes on every machine.
BUDGET = 1.5e11
NEURON_STEP = 64  # what a neuron costs a step, in multiplications
# How far an estimate can travel in all steps, in units of its scale, and its last step over its first. Slow decay
# follows deep networks, whose inputs settle late; fast decay ends on fine steps.
TRAVELS = (1.5, 2.5, 4.0)
DECAYS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
FEWEST = 1  # candidates however large the model


def affordable(cost: float, timesteps: int, wanted: int) -> tuple[int, int]:
    """How many samples and candidates fit :data:`BUDGET`, when one sample costs ``cost`` multiplications a step.

    Samples are given up first, then candidates; at least one of each is left.
    """
    runs = BUDGET / max(cost * timesteps, 1.0)
    samples = max(1, min(SAMPLES, int(runs / wanted)))
    return samples, max(min(FEWEST, wanted), min(wanted, int(runs / samples)))


def by_promise(schedules: list[Exponential]) -> list[Exponential]:
    """Those with the middle travel and decay 0.03 first, so that a small budget is spent on likely ones.

    These are what a pretrained 6-layer transformer chooses at T = 64.
    """

    def distance(place: int) -> int:
        decay, travel = divmod(place, len(TRAVELS))
        return abs(decay - 2) + abs(travel - 1)

    return [schedules[place] for place in sorted(range(len(schedules)), key=distance)]


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


def _cost(snn: SpikingModel, args: tuple, kwargs: dict) -> float:
    """Multiplications that one sample costs in one step."""
    neurons = 0

    def count(_module, _inputs, h: Tensor) -> None:
        nonlocal neurons
        neurons += h.numel()

    one = pytree.tree_map_only(Tensor, lambda leaf: leaf[:1] if leaf.ndim else leaf, (args, kwargs))
    hooks = [population.register_forward_hook(count) for _, population in snn.populations()]
    try:
        with FlopCounterMode(display=False) as counter:
            snn.network(*snn.flat_inputs(*one))
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() / 2 + NEURON_STEP * neurons


@torch.no_grad()
def search_schedule(
    snn: SpikingModel, args: tuple, kwargs: dict, progress: Callable[[Iterable], Iterable] = iter
) -> float:
    """Set the candidate whose output after all steps is nearest to the ANN's; returns its relative error.

    What is tried fits a budget of multiplications: a large model is tried on fewer samples and candidates. Where one
    candidate is all that fits, it is set without a run, and the error is NaN.
    """
    tables = by_promise(candidates(snn.timesteps))
    samples, tried = affordable(_cost(snn, args, kwargs), snn.timesteps, len(tables))
    if tried == 1:
        snn.set_schedule(tables[0], snn.timesteps)
        return float("nan")
    args, kwargs = pytree.tree_map_only(Tensor, lambda leaf: leaf[:samples] if leaf.ndim else leaf, (args, kwargs))
    target = snn.network(*snn.flat_inputs(args, kwargs))
    best = (float("inf"), None)
    for schedule in progress(tables[:tried]):
        snn.set_schedule(schedule, snn.timesteps)
        error = output_error(snn(*args, **kwargs), target)
        best = min(best, (error, schedule), key=lambda pair: pair[0])
    if best[1] is None:
        raise ValueError("schedule: every candidate gives NaN on the calibration data; name one yourself")
    snn.set_schedule(best[1], snn.timesteps)
    return best[0]
