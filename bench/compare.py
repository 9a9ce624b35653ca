"""Two files of results: what became slower and what faster, beyond the noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from .results import Row

__all__ = ["Change", "changes", "report"]

# From one run to the next, clocks, neighbours and the placement of memory shift all rounds together, which the
# quantiles of one run do not show.
DRIFT = 0.1


@dataclass(frozen=True)
class Change:
    """A row that is ``slower``, ``faster``, ``failing`` or ``missing`` (not tried any more) in the new file."""

    kind: str
    old: Row
    new: Row

    @property
    def ratio(self) -> float | None:
        """New median over old."""
        return self.new.p50 / self.old.p50 if self.new.p50 is not None and self.old.p50 is not None else None


def changes(old: Iterable[Row], new: Iterable[Row]) -> list[Change]:
    """What differs in rows that both files have, the slowest first.

    A time has changed where the middle 60% of the rounds do not overlap (the new 20th percentile is above the old 80th,
    or the other way round) and the medians are more than :data:`DRIFT` apart. A row with a time in the old file and a
    wrong answer in the new one is failing.
    """
    before = {row.key: row for row in old}
    pairs = [(before[row.key], row) for row in new if row.key in before]
    found = [Change(kind, a, b) for a, b in pairs if (kind := _kind(a, b))]
    return sorted(found, key=lambda change: -(change.ratio or float("inf")))


def _kind(old: Row, new: Row) -> str:
    if old.p50 is None:
        return ""
    if new.p50 is None:
        return "failing" if new.error else "missing"
    if new.p20 > old.p80 and new.p50 > old.p50 * (1 + DRIFT):
        return "slower"
    if new.p80 < old.p20 and new.p50 * (1 + DRIFT) < old.p50:
        return "faster"
    return ""


def report(old: list[Row], new: list[Row], console: Console) -> int:
    """Print the changes; the exit status: 1 if anything is slower or failing."""
    found = changes(old, new)
    view = Table("experiment", "case", "variant", "old ms", "new ms", "new / old", "")
    for change in found:
        times = [_quantiles(change.old), _quantiles(change.new)]
        ratio = f"{change.ratio:.2f}" if change.ratio else change.new.error or change.new.missing
        view.add_row(*change.new.key, *times, ratio, change.kind)
    if found:
        console.print(view)
    counts = {kind: sum(change.kind == kind for change in found) for kind in ("slower", "failing", "faster", "missing")}
    both = len({row.key for row in old} & {row.key for row in new})
    console.print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + f", of {both} in both files")
    for fact in ("cpu", "gpu", "threads", "torch"):
        values = [{str(row.machine.get(fact)) for row in rows} for rows in (old, new)]
        if values[0] != values[1]:
            console.print(f"not the same {fact}: {', '.join(sorted(values[0]))} / {', '.join(sorted(values[1]))}")
    return 1 if counts["slower"] or counts["failing"] else 0


def _quantiles(row: Row) -> str:
    return "" if row.p50 is None else f"{row.p50:.3g} ({row.p20:.3g} to {row.p80:.3g})"
