"""``python -m bench``: run experiments, print their tables, keep the results as data."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import networks, neuron, products
from .runner import Row, machine, measure, store

EXPERIMENTS = {
    "neuron": neuron.neuron,
    "functions": neuron.functions,
    "growth": neuron.growth,
    "linear": products.linear,
    "density": products.density,
    "convolution": products.convolution,
    "fused": products.fused,
    "networks": networks.networks,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--experiment", action="append", choices=EXPERIMENTS, help="one of them; repeat for more")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads torch and kernels use")
    parser.add_argument("--json", type=Path, help="where results go (default bench/results/<machine>.json)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=None if Console().is_terminal else 120)
    where = machine()
    name = re.sub(r"[^a-z0-9]+", "-", f"{where['cpu']} {where['threads']} threads".lower()).strip("-")
    path = options.json or Path(__file__).parent / "results" / f"{name}.json"
    for experiment in options.experiment or EXPERIMENTS:
        rows: list[Row] = []
        for comparison in track(list(EXPERIMENTS[experiment]()), experiment, console=console, transient=True):
            rows += measure(experiment, comparison, options.rounds)
        console.print(table(experiment, rows))
        store(path, rows)
    console.print(f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}: {path}")


def table(experiment: str, rows: Iterable[Row]) -> Table:
    """One experiment's rows."""
    view = Table(title=experiment)
    for column in ("case", "variant", "p20 ms", "p50 ms", "p80 ms", "against", "times as fast"):
        view.add_column(column, justify="left" if column in ("case", "variant", "against") else "right")
    for row in rows:
        if row.error:
            view.add_row(row.case, row.variant, row.error)
            continue
        numbers = [f"{value:.2f}" for value in (row.p20, row.p50, row.p80)]
        view.add_row(row.case, row.variant, *numbers, row.baseline, f"{row.speedup:.2f}" if row.speedup else "")
    return view


if __name__ == "__main__":
    main()
