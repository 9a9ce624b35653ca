"""Timing, checking and storing: what every experiment shares."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import snn_kernels
from snn_kernels.backends import C

__all__ = ["Comparison", "Row", "machine", "measure", "store"]


@dataclass
class Comparison:
    """Implementations of one computation on the same data, timed in turn.

    Attributes:
        case: what is computed, with its sizes.
        variants: the implementations by name.
        baseline: the variant that the others are compared with: what a competent user would run.
        accept: raises if a variant's output is wrong; called on each before anything is timed.
    """

    case: str
    variants: dict[str, Callable[[], Any]]
    baseline: str
    accept: Callable[[str, Any], None]
    facts: dict[str, float] = field(default_factory=dict)


@dataclass
class Row:
    """One variant's times in milliseconds over interleaved rounds; no times where the answer was wrong."""

    experiment: str
    case: str
    variant: str
    p20: float | None
    p50: float | None
    p80: float | None
    baseline: str
    speedup: float | None  # median over rounds of baseline time / this time
    error: str
    facts: dict[str, float]


def _once(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def measure(experiment: str, comparison: Comparison, rounds: int) -> list[Row]:
    """Check every variant, then time the correct ones in ``rounds`` interleaved rounds after one to warm up."""
    errors = {}
    for name, run in comparison.variants.items():
        try:
            comparison.accept(name, run())
            errors[name] = ""
        except Exception as error:  # a wrong or failing variant is reported, and gets no time
            errors[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    times: dict[str, list[float]] = {name: [] for name, error in errors.items() if not error}
    for _ in range(rounds):
        for name in times:
            times[name].append(_once(comparison.variants[name]))
    base = times.get(comparison.baseline)
    rows = []
    for name, error in errors.items():
        if error:
            quantiles, speedup = (None, None, None), None
        else:
            cuts = statistics.quantiles(times[name], n=5, method="inclusive") if rounds > 1 else times[name] * 4
            quantiles = (cuts[0], statistics.median(times[name]), cuts[3])
            speedup = statistics.median(b / t for b, t in zip(base, times[name])) if base else None
        rows.append(
            Row(experiment, comparison.case, name, *quantiles, comparison.baseline, speedup, error, comparison.facts)
        )
    return rows


def machine() -> dict[str, Any]:
    """What the times were measured on."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu,
        "isa": C.isa if C else "none",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "compiler": C.compiler if C else "none",
        "snn_kernels": snn_kernels.__version__,
        "revision": revision.stdout.strip(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def store(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to ``path``, in place of earlier ones of the same experiments; the others stay."""
    rows = [asdict(row) | {"machine": machine()} for row in rows]
    measured = {row["experiment"] for row in rows}
    if path.exists():
        rows = [row for row in json.loads(path.read_text())["rows"] if row["experiment"] not in measured] + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
