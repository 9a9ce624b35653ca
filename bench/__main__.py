"""``python -m bench``: run experiments, keep the results as data, print and draw them.

``python -m bench compare OLD.json NEW.json`` says what became slower (exit status 1) or faster, and
``python -m bench render FILE.json`` draws a file again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import compare, roofline
from .experiments import EXPERIMENTS
from .machine import file_name, machine
from .memory import keep_memory
from .render import COLUMNS, cells, render
from .results import Row, load, store
from .runner import LEFT, Comparison, Setting, broken_off, measure

RESULTS = Path(__file__).parent / "results"
# For each comparison: how many rounds, and after how many seconds fewer are enough.
EFFORT = {"tiny": (3, 0.0), "quick": (7, 2.0), "full": (11, 30.0)}


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(width=None if Console().is_terminal else 160)
    commands = {"compare": _compare, "render": _render}
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:], console)
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", action="append", choices=EXPERIMENTS, help="one of them; repeat for more")
    parser.add_argument("--full", action="store_true", help="every size and experiment, not the quick ones alone")
    parser.add_argument("--list", action="store_true", help="the experiments, a line each")
    parser.add_argument("--resume", action="store_true", help="leave out what the file has of this source revision")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads torch and kernels use")
    parser.add_argument("--json", type=Path, help="where results go (default bench/results/<machine>.json)")
    options = parser.parse_args(arguments)
    if options.list:
        _list(console)
        return 0
    names = options.experiment or [name for name, e in EXPERIMENTS.items() if options.full or not e.full]
    if not options.full and (only := [name for name in names if EXPERIMENTS[name].full]):
        parser.error(f"--experiment {only[0]}: takes --full")
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = options.json or RESULTS / file_name(machine())
    run(names, Setting("full" if options.full else "quick", device), path, console, options.resume)
    return 0


def run(names: Sequence[str], setting: Setting, path: Path, console: Console, resume: bool = False) -> None:
    """Measure the experiments, each case stored as soon as it is measured; then draw the file."""
    before = _measured(path, setting.size) if resume else []
    unfinished = {row.experiment for row in before if row.machine.get("unfinished")}
    names = [name for name in names if name in unfinished or name not in {row.experiment for row in before}]
    kept = keep_memory()
    ceiling = roofline.measured(setting.device, setting.size == "tiny")
    rounds, seconds = EFFORT[setting.size]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    where = {**machine(), "memory": "kept" if kept else "given back", "size": setting.size, **asdict(ceiling)}
    with Progress(*columns, console=console, transient=True) as progress:
        done = progress.add_task("experiments", total=len(names))
        for name in names:
            rows: list[Row] = []
            current = progress.add_task(name, total=None)
            for comparison in _comparisons(name, setting):
                found = [row for row in before if (row.experiment, row.case) == (name, comparison.case)]
                if not found:
                    found = measure(name, comparison, ceiling, rounds, seconds)
                    for row in found:
                        row.machine = {**where, "unfinished": True}
                    store(path, found)
                rows += found
                progress.update(current, advance=1, description=f"{name}: {comparison.case}")
            for row in rows if all(row.case != LEFT for row in rows) else ():
                row.machine.pop("unfinished", None)
            store(path, rows, whole=setting.size == "full")
            progress.remove_task(current)
            progress.advance(done)
            console.print(_table(name, rows))
    console.print(f"{path}: {render(path)}")


def _comparisons(name: str, setting: Setting) -> Iterator[Comparison]:
    """An experiment's cases. What ends it before its time is a row, and the other experiments go on."""
    try:
        yield from EXPERIMENTS[name].comparisons(setting)
    except Exception as error:
        yield broken_off(error)


def _measured(path: Path, size: str) -> list[Row]:
    """What the file has of the source as it is now. Of an experiment that was not finished the rows say so."""
    here = machine()
    facts = {"dirty": False, "size": size, **{key: here[key] for key in ("revision", "threads", "torch")}}
    rows = load(path) if path.exists() and not here["dirty"] else []
    return [row for row in rows if facts.items() <= row.machine.items()]


def _list(console: Console) -> None:
    view = Table("experiment", "what it measures", "", box=None)
    for name, experiment in EXPERIMENTS.items():
        view.add_row(name, experiment.summary, "--full only" if experiment.full else "")
    console.print(view)


def _table(experiment: str, rows: Sequence[Row]) -> Table:
    """One experiment's rows."""
    view = Table(title=experiment)
    for column in COLUMNS:
        view.add_column(column, justify="right" if "ms" in column or "as fast" in column else "left")
    for row in rows:
        view.add_row(*cells(row))
    return view


def _compare(arguments: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=compare.__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    return compare.report(load(options.old), load(options.new), console)


def _render(arguments: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench render", description="Write a file's page and plots.")
    parser.add_argument("file", type=Path)
    console.print(str(render(parser.parse_args(arguments).file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
