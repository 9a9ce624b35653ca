"""Rows of results, and the file that keeps those of one machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Row", "load", "store"]


@dataclass
class Row:
    """One variant of one case, measured on one machine.

    Attributes:
        baseline: the variant that ``speedup`` is relative to: the median over rounds of its time / this time.
        p20, p50, p80: quantiles of the times in milliseconds; ``None`` for a wrong answer or a variant not tried.
        bytes, operations: what the computation needs at least, see :class:`bench.runner.Work`; 0 where not counted.
        roofline: the time that the measured ceiling named by ``bound`` takes for that, over ``p50``.
        correctness: how right the output was that was timed.
        error: why it is wrong or failed; ``missing``: why it could not be tried.
        sweep: the fact that varies from case to case.
    """

    experiment: str
    case: str
    variant: str
    baseline: str
    shape: list[int] = field(default_factory=list)
    dtype: str = ""
    timesteps: int = 0
    p20: float | None = None
    p50: float | None = None
    p80: float | None = None
    rounds: int = 0
    speedup: float | None = None
    bytes: int = 0
    operations: int = 0
    roofline: float | None = None
    bound: str = ""
    correctness: str = ""
    error: str = ""
    missing: str = ""
    sweep: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.experiment, self.case, self.variant


def load(path: Path) -> list[Row]:
    """The rows of a file that :func:`store` wrote.

    Raises:
        ValueError: it is none.
    """
    try:
        return [Row(**row) for row in json.loads(path.read_text())["rows"]]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a file of results, got {type(error).__name__}: {error}") from error


def store(path: Path, rows: Iterable[Row], whole: bool = False) -> None:
    """Put ``rows`` into the file in place of earlier ones of the same cases; all others stay.

    Args:
        whole: the rows are their experiments' all: earlier cases of these that are not among them are dropped.
    """
    rows = list(rows)

    def place(row: Row) -> tuple[str, ...]:
        return (row.experiment,) if whole else (row.experiment, row.case)

    fresh = {place(row) for row in rows}
    if path.exists():
        rows = [row for row in load(path) if place(row) not in fresh] + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and moved, so that an interruption leaves the old file or the new one.
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    os.replace(beside, path)
