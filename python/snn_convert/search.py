"""Choose step sizes for a given number of time-steps from calibration data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from snn_kernels.schedules import Exponential

from .model import SpikingModel
from .samples import count_samples
from .trace import as_arguments

__all__ = ["candidates", "search_schedule"]

SAMPLES = 16  # calibration samples a candidate is tried on, at most
# Multiplications that the first comparison may spend: some ten seconds of two free cores. A count and not a clock, so
# that the same model gets the same step sizes on every machine.
BUDGET = 1.5e11
# What few samples found best is tried on so many times as many.
FINALISTS, MORE = 4, 4
NEURON_STEP = 64  # what a neuron costs a step, in multiplications


@dataclass(frozen=True)
class Grid:
    """Exponential tables to try.

    Attributes:
        travels: how far an estimate can go in all steps, in units of its scale.
        decays: the last step over the first.
        likely: the travel and the decay that most networks come close to, to try first.
        least_gamma: below 1/2 the steps that are left add up to less than the one before, and there are values
            that no sequence of spikes comes to.
        enough: a relative error of the output that is good enough to prefer a longer travel to a smaller error. The
            calibration data cannot show what is gained by it: new data go beyond the range they span.
    """

    travels: tuple[float, ...]
    decays: tuple[float, ...]
    likely: tuple[float, float]
    least_gamma: float = 0.0
    enough: float = 0.0


# All start together: slow decay follows deep networks, whose inputs settle late; fast decay ends on fine steps. The
# likely table is what a pretrained 6-layer transformer chooses at T = 64.
SYNCHRONOUS = Grid((1.5, 2.5, 4.0), (0.3, 0.1, 0.03, 0.01, 0.003, 0.001), (2.5, 0.03))
# Windows that overlap: inputs settle a few steps after a population starts. Likely is what the transformer comes
# closest with at T = 16 and 32.
OVERLAPPING = Grid((1.2, 1.6, 2.5), (0.03, 0.01, 0.003, 0.001, 0.0003), (1.2, 0.01), least_gamma=0.5, enough=3e-3)
# Windows one after the other: the input is there from the start, and halving the step each time comes closest whatever
# the travel (on small BERT, ConvNeXt, ViT and MobileNetV2 at T = 8 to 24).
CONSECUTIVE = Grid((1.2, 1.6, 2.5, 4.0), (0.0,), (1.6, 0.0), least_gamma=0.5, enough=3e-3)
FEWEST = 1  # candidates however large the model


def affordable(cost: float, timesteps: int, wanted: int) -> tuple[int, int]:
    """How many samples and candidates fit :data:`BUDGET`, when one sample costs ``cost`` multiplications a step.

    Samples are given up first, then candidates; at least one of each is left.
    """
    runs = BUDGET / max(cost * timesteps, 1.0)
    samples = max(1, min(SAMPLES, int(runs / wanted)))
    return samples, max(min(FEWEST, wanted), min(wanted, int(runs / samples)))


def grid_of(timesteps: int, onset_delay: int) -> Grid:
    """The tables that fit how the populations' windows lie."""
    if onset_delay == 0:
        return SYNCHRONOUS
    return OVERLAPPING if onset_delay < timesteps else CONSECUTIVE


def candidates(timesteps: int, onset_delay: int = 0) -> list[Exponential]:
    """The tables of a grid, the nearest to the likely one first, so that a small budget is spent on those."""
    grid = grid_of(timesteps, onset_delay)
    places = itertools.product(range(len(grid.decays)), range(len(grid.travels)))
    travel, decay = grid.travels.index(grid.likely[0]), grid.decays.index(grid.likely[1])
    tables = []
    for i, j in sorted(places, key=lambda place: abs(place[0] - decay) + abs(place[1] - travel)):
        gamma = max(grid.decays[i] ** (1 / (timesteps - 1)), grid.least_gamma) if timesteps > 1 else 1.0
        reach = sum(gamma**t for t in range(timesteps))
        tables.append(Exponential(round(grid.travels[j] / reach, 4), round(gamma, 4)))
    return list(dict.fromkeys(tables))


def squared_error(output: Any, target: Any, mask: Tensor | None = None) -> Tensor:
    """``||output - target||^2`` and ``||target||^2`` over all floating-point leaves, float64 [2].

    What belongs to tokens that the mask ``[B, tokens]`` has as 0 does not count: nobody reads it, and it can be
    anything.
    """

    def counted(leaf: Tensor) -> Tensor:
        of_tokens = mask is not None and leaf.ndim > 2 and leaf.shape[:2] == mask.shape
        return leaf.double() * mask.reshape(*mask.shape, *(1,) * (leaf.ndim - 2)) if of_tokens else leaf.double()

    squares = [
        torch.stack((counted(a - b).square().sum(), counted(b).square().sum()))
        for a, b in zip(pytree.tree_leaves(output), pytree.tree_leaves(target))
        if isinstance(b, Tensor) and b.is_floating_point()
    ]
    return torch.stack(squares).sum(0)


def _batch(item: Any) -> int:
    return count_samples(pytree.tree_leaves(as_arguments(item)))


def _cut(arguments: tuple[tuple, dict], samples: int) -> tuple[tuple, dict]:
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[:samples] if leaf.ndim else leaf, arguments)


def leading_items(items: Iterable[Any], samples: int = SAMPLES) -> list[Any]:
    """The first items, as many as it takes to hold so many samples."""
    taken = []
    for item in items:
        taken.append(item)
        samples -= _batch(item)
        if samples <= 0:
            break
    return taken


def leading_samples(items: Iterable[Any], samples: int) -> list[tuple[tuple, dict]]:
    """The arguments of the first items that hold so many samples, those of the last item cut to the number."""
    arguments = []
    for item in leading_items(items, samples):
        arguments.append(_cut(as_arguments(item), samples))
        samples -= _batch(item)
    return arguments


def _mask_of_tokens(snn: SpikingModel, leaves: list[Any]) -> Tensor | None:
    """The input ``attention_mask`` of Hugging Face's models, where it says of each token whether it counts."""
    for node, leaf in zip(snn.engine.inputs, leaves):
        if node.name == "attention_mask" and isinstance(leaf, Tensor) and leaf.ndim == 2:
            return leaf
    return None


def _cost(snn: SpikingModel, item: Any) -> float:
    """Multiplications that one sample costs in one of the populations' steps."""
    neurons = 0

    def count(_module, _inputs, h: Tensor) -> None:
        nonlocal neurons
        neurons += h.numel()

    hooks = [population.register_forward_hook(count) for _, population in snn.populations()]
    try:
        with FlopCounterMode(display=False) as counter:
            snn.network(*snn.flat_inputs(*leading_samples([item], 1)[0]))
    finally:
        for hook in hooks:
            hook.remove()
    once_a_window = snn.onset_delay >= snn.timesteps
    return counter.get_total_flops() / 2 / (snn.timesteps if once_a_window else 1) + NEURON_STEP * neurons


@torch.no_grad()
def search_schedule(
    snn: SpikingModel, calibration: Iterable[Any], progress: Callable[[Iterable], Iterable] = iter
) -> float:
    """Set the candidate whose output after all steps is nearest to the ANN's on the first samples of the calibration
    data; returns its relative error ``||output - target|| / ||target||``.

    Tokens that the input ``attention_mask`` leaves out do not count.

    Of several that are near enough for their :class:`Grid`, the one that reaches furthest. What few samples say of a
    candidate is not much, so the best of a large model are compared once more, on more of them.

    What is tried fits a budget of multiplications: a large model is tried on fewer samples and candidates. Where one
    candidate is all that fits, it is set without a run, and the error is NaN.
    """
    tables = candidates(snn.timesteps, snn.onset_delay)
    items = leading_items(calibration)
    samples, tried = affordable(_cost(snn, items[0]), snn.timesteps, len(tables))
    if tried == 1:
        snn.set_schedule(tables[0], snn.timesteps)
        return float("nan")
    found = _tried(snn, leading_samples(items, samples), tables[:tried], progress)
    if samples < min(SAMPLES, sum(map(_batch, items))):
        best = [schedule for _, _, schedule in found[:FINALISTS]]
        found = _tried(snn, leading_samples(items, min(SAMPLES, MORE * samples)), best, progress)
    _, error, schedule = found[0]
    if math.isnan(error):
        raise ValueError("schedule: every candidate gives NaN on the calibration data; name one yourself")
    snn.set_schedule(schedule, snn.timesteps)
    return error


def _tried(
    snn: SpikingModel,
    arguments: list[tuple[tuple, dict]],
    tables: list[Exponential],
    progress: Callable[[Iterable], Iterable],
) -> list[tuple[tuple, float, Exponential]]:
    """The candidates, the best first, each with its rank and its error on these samples."""
    inputs = [snn.flat_inputs(*pair) for pair in arguments]
    wanted = [(snn.network(*leaves), _mask_of_tokens(snn, leaves)) for leaves in inputs]
    enough, found = grid_of(snn.timesteps, snn.onset_delay).enough, []
    for schedule in progress(tables):
        snn.set_schedule(schedule, snn.timesteps)
        outputs = (snn(*args, **kwargs) for args, kwargs in arguments)
        error, size = sum(squared_error(output, *known) for output, known in zip(outputs, wanted))
        error = float((error / size.clamp_min(1e-300)).sqrt())
        rank = (False, -float(snn.eta.sum())) if error < enough else (True, math.inf if math.isnan(error) else error)
        found.append((rank, error, schedule))
    return sorted(found, key=lambda one: one[0])
