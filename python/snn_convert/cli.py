"""The command ``snn-convert``: ``demo``, ``eval`` and ``info``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import snn_kernels

from . import environment
from .model import SpikingModel

if TYPE_CHECKING:
    from .evaluate import Counts

__all__ = ["main"]

DEMO_PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
USAGE_ERROR = 2
INTERRUPTED = 130


class CommandError(Exception):
    """Something the user can put right; the message says how."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 2 for what the user can put right, 130 when interrupted."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except CommandError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return USAGE_ERROR
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; networks that were trained are kept")
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snn-convert", description="Turn trained PyTorch networks into spiking ones.")
    parser.add_argument("--version", action="version", version=f"snn-kernels {snn_kernels.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="train small networks, convert them, write a report")
    demo.add_argument("--out", type=Path, default=Path("demo-report"), metavar="DIR", help="default: %(default)s")
    demo.add_argument("--quick", action="store_true", help="one network, few time-steps: see that it works")
    demo.set_defaults(run=_demo)
    evaluation = commands.add_parser("eval", help="accuracy of a saved network over a data set; also under torchrun")
    evaluation.add_argument("model", type=Path, metavar="MODEL", help="a file written by SpikingModel.save")
    evaluation.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help=".npz or .pt with the arrays x and y"
    )
    evaluation.add_argument("--batch", type=int, default=64, metavar="N", help="default: %(default)s")
    evaluation.add_argument("--timesteps", type=int, nargs="+", metavar="T", help="read out after these; default: all")
    evaluation.add_argument("--json", type=Path, metavar="OUT", help="write the counts to this file too")
    evaluation.set_defaults(run=_evaluate)
    info = commands.add_parser("info", help="what can run here, and why the rest cannot; versions")
    info.set_defaults(run=_info)
    return parser


def _demo(chosen: argparse.Namespace) -> None:
    missing = [package for module, package in DEMO_PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise CommandError(f'the demo needs {" and ".join(missing)}: pip install "snn-kernels[demo]"')
    from . import demo

    try:
        demo.run(chosen.out, demo.QUICK if chosen.quick else demo.FULL)
    except demo.OutputError as error:
        raise CommandError(str(error)) from error


def _evaluate(chosen: argparse.Namespace) -> None:
    from . import evaluate

    try:
        if chosen.json is not None and not chosen.json.parent.is_dir():  # said before the work is done
            raise CommandError(f"--json: expected a file in a folder that is there, got {chosen.json}")
        with evaluate.processes() as (rank, world, device):
            snn = SpikingModel.load(chosen.model).to(device)
            inputs, labels = evaluate.load_data(chosen.data)
            steps = chosen.timesteps or [snn.latency]
            console = Console(quiet=rank > 0)
            shown = partial(track, description="evaluating", console=console, transient=True)
            counts = evaluate.count_correct(snn, inputs, labels, steps, chosen.batch, rank, world, shown)
        console.print(_accuracies(chosen.model.name, counts))
        if rank == 0 and chosen.json is not None:
            about = {"model": str(chosen.model), "data": str(chosen.data), "batch": chosen.batch}
            evaluate.write_json(chosen.json, counts, **about, processes=world)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from error


def _accuracies(name: str, counts: Counts) -> Table:
    table = Table("T", "right", "accuracy", title=f"{name}: {counts.samples} samples")
    for step, correct in counts.correct.items():
        table.add_row(str(step), str(correct), f"{counts.accuracy[step]:.2%}")
    return table


def _info(chosen: argparse.Namespace) -> None:
    console = Console()
    table = Table("backend", "runs here", "why not", title="Backends")
    for backend in snn_kernels.backends().values():
        table.add_row(backend.name, "[green]yes[/]" if backend.available else "[red]no[/]", escape(backend.reason))
    console.print(table)
    sections = {"Versions": environment.versions(), "Build": environment.build(), "Machine": environment.machine()}
    for title, facts in sections.items():
        console.print(_facts(title, facts))


def _facts(title: str, facts: Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


if __name__ == "__main__":
    sys.exit(main())
