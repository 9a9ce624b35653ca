"""A file of results as a page: a table and a plot for each experiment, written beside it."""

from __future__ import annotations

from pathlib import Path

from .experiments import EXPERIMENTS, Experiment
from .plots import plot
from .results import Row, load

__all__ = ["render"]

# Facts that the case names, or that plots alone are for.
IN_THE_CASE = {"T", "N", "batch", "width", "depth", "density", "bytes", "limit"}
COLUMNS = ("case", "variant", "p20 ms", "p50 ms", "p80 ms", "times as fast", "of the ceiling", "answer")


def render(path: Path) -> Path:
    """Write ``<name>.md`` and ``<name>-<experiment>.png`` beside ``<name>.json``; the page's path."""
    rows = load(path)
    present = {row.experiment for row in rows}
    names = [name for name in EXPERIMENTS if name in present] + sorted(present - set(EXPERIMENTS))
    sections = [_title(rows)]
    for name in names:
        chosen = [row for row in rows if row.experiment == name]
        experiment = EXPERIMENTS.get(name)
        picture = path.with_name(f"{path.stem}-{name}.png")
        plotted = plot(name, chosen, experiment.plotted if experiment else "p50", picture)
        sections.append(_section(name, experiment, chosen, picture.name if plotted else ""))
    page = path.with_suffix(".md")
    page.write_text("\n\n".join(sections) + "\n")
    return page


def _title(rows: list[Row]) -> str:
    newest = max((row.machine for row in rows), key=lambda where: where.get("date", ""), default={})
    gpu = "" if newest.get("gpu", "none") == "none" else f", {newest['gpu']}"
    return (
        f"# {newest.get('cpu', 'no results')}{gpu}, {newest.get('threads', '?')} threads\n\n"
        "Medians and quantiles of interleaved rounds. *Times as fast* is against the variant in italics, round by "
        "round. *Of the ceiling* is the time that the copy bandwidth or the matrix product rate, measured in the same "
        "run, takes for the bytes or operations of the computation, whichever is longer, over the median. An answer is "
        "checked before it is timed, and a wrong one has no time. *Peak MB* is the most that the tensors of one call, "
        "its result among them, hold at a time; what kernels and libraries allocate for themselves is not counted."
    )


def _section(name: str, experiment: Experiment | None, rows: list[Row], picture: str) -> str:
    facts = sorted({key for row in rows for key in row.facts} - IN_THE_CASE)
    lines = [f"## {name}", ""]
    if experiment:
        lines += [f"{experiment.summary[0].upper()}{experiment.summary[1:]}. {experiment.honest}", ""]
    lines += [f"![{name}]({picture})", ""] if picture else []
    lines += [_line((*COLUMNS, *facts)), _line(["---"] * (len(COLUMNS) + len(facts)))]
    for row in rows:
        lines.append(_line((*cells(row), *(f"{row.facts[key]:g}" if key in row.facts else "" for key in facts))))
    lines += ["", *_measured_with(rows)]
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    """A row's entries for :data:`COLUMNS`."""
    variant = f"*{row.variant}*" if row.variant == row.baseline else row.variant
    if row.p50 is None:
        return [row.case, variant, "", "", "", "", "", row.error or row.missing]
    times = [f"{value:.3g}" for value in (row.p20, row.p50, row.p80)]
    speedup = f"{row.speedup:.2f}" if row.speedup is not None else ""
    share = f"{row.roofline:.2f} ({row.bound})" if row.roofline is not None else ""
    return [row.case, variant, *times, speedup, share, row.correctness]


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _measured_with(rows: list[Row]) -> list[str]:
    """Versions, revision and ceilings; one line for each run that the rows come from."""
    lines = []
    for where in {str(row.machine): row.machine for row in rows}.values():
        gemm = ", ".join(f"{rate / 1e9:.0f} GFLOP/s {dtype}" for dtype, rate in where.get("gemm", {}).items())
        ceilings = f"; copy {where['copy'] / 1e9:.1f} GB/s, matrix product {gemm}" if "copy" in where else ""
        dirty = " with local changes" if where.get("dirty") else ""
        versions = ", ".join(f"{key} {where[key]}" for key in ("torch", "triton", "compiler", "driver") if key in where)
        lines.append(f"{where.get('date', '')}, revision {where.get('revision', '?')}{dirty}, {versions}{ceilings}.")
    return lines
