"""The demo: train, convert, measure, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

from .checkpoints import CheckpointError, checkpoint_path, load, save
from .data import Split, load_split
from .evaluation import RECIPES, TIMED_SAMPLES, evaluate
from .files import OutputError, prepare_folder
from .networks import NETWORKS, Network
from .raster import record
from .report import write_report
from .results import NetworkResult, Results, cells, findings
from .systems import SYSTEMS, other_systems
from .training import train, training_steps

__all__ = ["FULL", "QUICK", "OutputError", "Plan", "obtain", "run"]


@dataclass(frozen=True)
class Plan:
    """What a run covers: networks, numbers of steps (ascending), and the length of the recorded run of the raster."""

    networks: Sequence[Network]
    timesteps: tuple[int, ...]
    raster_timesteps: int


FULL = Plan(tuple(NETWORKS.values()), (4, 8, 16, 32, 64, 128), 64)
QUICK = Plan((replace(NETWORKS["resnet"], epochs=4),), (4, 8), 16)
# The columns of results.HEAD, short enough for a terminal of 80 characters.
TERMINAL_HEAD = ("recipe", "T", "ANN", "SNN", "agree", "firing", "seconds", "loop", "ratio")


def obtain(
    network: Network, split: Split, folder: Path, console: Console, on_step: Callable[[], None] = lambda: None
) -> nn.Module:
    """The trained network: from its checkpoint in ``folder``, or trained and saved there."""
    path = checkpoint_path(folder, network, split)
    if path.exists():
        try:
            return load(path, network, split)
        except CheckpointError as error:
            console.print(f"[yellow]checkpoint {escape(str(path))}: {error}; training {network.name} again[/]")
    model = train(network, split, on_step)
    save(path, network, model, split)
    return model


def _train_all(plan: Plan, split: Split, folder: Path, console: Console, progress: Progress) -> list[nn.Module]:
    models = []
    for network in plan.networks:
        steps = training_steps(network, split)
        task = progress.add_task(f"train {network.name}", total=steps)
        models.append(obtain(network, split, folder, console, on_step=lambda task=task: progress.advance(task)))
        progress.update(task, completed=steps)
    return models


def _measure_all(plan: Plan, split: Split, models: list[nn.Module], progress: Progress) -> list[NetworkResult]:
    results = []
    for network, model in zip(plan.networks, models):
        evaluations = []
        for recipe in RECIPES:
            task = progress.add_task(f"convert and run {network.name}, {recipe}", total=len(plan.timesteps))
            advance = lambda task=task: progress.advance(task)  # noqa: E731
            evaluations.append(evaluate(network, model, split, recipe, plan.timesteps, advance))
        task = progress.add_task(f"convert and run {network.name}, other systems", total=len(SYSTEMS))
        others = other_systems(network, model, split, lambda task=task: progress.advance(task))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        results.append(NetworkResult(network, parameters, tuple(evaluations), tuple(others)))
    return results


def run(folder: Path, plan: Plan = FULL, console: Console | None = None) -> Results:
    """Runs the demo and writes its report and checkpoints into ``folder``.

    Raises:
        OutputError: the folder or a file in it cannot be written.
    """
    console = console or Console()
    prepare_folder(folder)
    checkpoints = prepare_folder(folder / "checkpoints")
    start = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks and images this small take longer on several, which wait for each other
    try:
        return _run(folder, checkpoints, plan, console, start)
    finally:
        torch.set_num_threads(threads)


def _run(folder: Path, checkpoints: Path, plan: Plan, console: Console, start: float) -> Results:
    split = load_split()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        models = _train_all(plan, split, checkpoints, console, progress)
        networks = _measure_all(plan, split, models, progress)
        task = progress.add_task("record spikes and write the report", total=1)
        recording = record(plan.networks[0], models[0], split, plan.raster_timesteps)
        counts = len(split.train_labels), len(split.test_labels)
        results = Results(tuple(networks), recording, *counts, time.perf_counter() - start)
        files = write_report(folder, results)
        progress.advance(task)
    _show(results, files, console)
    return results


def _show(results: Results, files: list[Path], console: Console) -> None:
    console.print(
        f"{results.test_samples} test images. agree: share with the ANN's prediction; firing: share of neurons and "
        f"steps with a spike; seconds: {TIMED_SAMPLES} of the test images in the simulator; loop: the same images in a "
        "plain PyTorch loop over the steps.",
        highlight=False,
    )
    for result in results.networks:
        table = Table(title=result.network.name, box=box.SIMPLE_HEAD)
        for name in TERMINAL_HEAD:
            table.add_column(name, justify="left" if name == "recipe" else "right")
        for evaluation in result.evaluations:
            for row in evaluation.rows:
                table.add_row(*cells(row))
            table.add_section()
        console.print(table)
    for sentence in findings(results):
        console.print(sentence, markup=False, highlight=False)
    console.print(f"{results.seconds:.0f} seconds in all; written:")
    for file in files:
        console.print(f"  {file}", markup=False, highlight=False, soft_wrap=True)
