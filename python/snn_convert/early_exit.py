"""Stopping each sample of a batch as soon as the network is sure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from .checks import steps_up_to
from .run import CHUNK

if TYPE_CHECKING:
    from .model import SpikingModel
    from .run import Run

__all__ = ["Decided", "check_classes", "check_steps", "run_until_sure"]


class Decided(NamedTuple):
    """Outputs of samples that stopped at different steps, and the step at which each did (int64 ``[B]``)."""

    output: Any
    steps: Tensor


def check_steps(model: SpikingModel, steps: Sequence[int] | None) -> list[int]:
    """When to look at the output: after ``steps``, or every eight of the last population's, and at the end.

    Raises:
        ValueError: a step is not between 1 and the latency.
    """
    if steps is None:  # what the output is before the last population starts says nothing of the input
        return [*range(model.latency - model.timesteps + CHUNK, model.latency, CHUNK), model.latency]
    return sorted({*steps_up_to(model.latency, "latency", steps), model.latency})


def check_classes(model: SpikingModel) -> None:
    """Whether there are classes to be sure of.

    Raises:
        ValueError: the output is not one tensor ``[B, classes]``.
    """
    leaves = [leaf.meta["val"] for leaf in pytree.tree_leaves(model.engine.output.args[0]) if isinstance(leaf, fx.Node)]
    shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
    if len(shapes) != 1 or len(shapes[0]) != 2 or isinstance(shapes[0][0], int):
        found = ", ".join(str([size if isinstance(size, int) else "B" for size in shape]) for shape in shapes)
        raise ValueError(f"output: expected one tensor ['B', classes], got {found or 'none'}")


@torch.no_grad()
def run_until_sure(run: Run, confidence: float, steps: Sequence[int]) -> Decided:
    """Take ``run`` through ``steps`` and let go of samples whose top class has a probability of ``confidence``."""
    answers = stopped = waiting = None
    for step in steps:
        run.advance_to(step)
        (scores,) = (leaf for leaf in pytree.tree_leaves(run.read_out()) if isinstance(leaf, Tensor))
        if waiting is None:
            waiting = torch.arange(len(scores), device=scores.device)
            answers, stopped = torch.zeros_like(scores), torch.zeros_like(waiting)
        scores = scores if len(scores) == len(waiting) else scores[waiting]  # the whole batch, where it has to go on
        done = scores.float().softmax(1).amax(1) >= confidence if step < steps[-1] else torch.ones_like(waiting).bool()
        answers[waiting[done]], stopped[waiting[done]] = scores[done], step
        waiting = waiting[~done]
        if not len(waiting):
            break
        if done.any() and run.can_select:
            run = run.select((~done).nonzero()[:, 0])
    output = pytree.tree_map(lambda leaf: answers if isinstance(leaf, Tensor) else leaf, run.output())
    return Decided(output, stopped)
