"""Checking and timing: what every experiment shares."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch._dynamo.config

from snn_kernels import backends

from .memory import peak_bytes
from .results import Row
from .roofline import Roofline

__all__ = [
    "LEFT", "Comparison", "Missing", "Setting", "Variant", "Work", "broken_off", "compiled", "measure", "unavailable"
]  # fmt: skip

# A timing of less than this many seconds is made of several calls: the clock and the caches need that much to settle,
# and on a GPU a launch and the wait for its end are to weigh nothing.
SHORTEST = 2e-2 if torch.cuda.is_available() else 1e-3
FEWEST_ROUNDS = 3
LEFT = "what was left"  # the case of an experiment that failed


@dataclass(frozen=True)
class Setting:
    """What an experiment is to be run on, and how much of it.

    Attributes:
        size: ``quick``; ``full`` with every case of ``quick`` and more; or ``tiny``, which tests take.
        device: where the tensors are.
    """

    size: str = "quick"
    device: str = "cpu"

    def choose(self, tiny: tuple, quick: tuple, more: tuple = (), gpu: tuple[tuple, tuple] | None = None) -> tuple:
        """The cases of this size; ``gpu`` takes the places of ``quick`` and ``more`` on a GPU."""
        if gpu and self.device == "cuda":
            quick, more = gpu
        return {"tiny": tiny, "quick": quick, "full": (*quick, *more)}[self.size]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The backends with kernels for tensors on the device; the reference is not one of them."""
        names = ("cuda", "triton") if self.device == "cuda" else ("cpu",)
        return tuple(name for name in names if backends()[name].available)

    @property
    def compiles(self) -> bool:
        """Whether loops are compiled too, which takes seconds each."""
        return self.size != "tiny"


def compiled(function: Callable) -> Callable:
    """Under ``torch.compile``, anew for each shape, and never silently the function itself.

    After a few shapes the compiler would give up on one for sizes, and after a few more on compiling.
    """
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False)


class Work(NamedTuple):
    """What a computation has to do: bytes read and written at least once, and arithmetic operations."""

    bytes: int = 0
    operations: int = 0


@dataclass
class Variant:
    """An implementation; ``work`` where it is not that of the comparison, and facts of its own."""

    run: Callable[[], Any]
    work: Work | None = None
    facts: dict[str, float] = field(default_factory=dict)


@dataclass
class Missing:
    """An implementation that cannot be tried here, and why."""

    reason: str


@dataclass
class Comparison:
    """Implementations of one computation on the same data, timed in turn.

    Attributes:
        case: what is computed, with its sizes: unique in its experiment.
        variants: the implementations by name.
        baseline: the variant that the others are compared with: what a competent user would run.
        accept: says how right a variant's output is, or raises if it is wrong; called before anything is timed.
        sweep: the name of the fact that varies from case to case; those of one name are a line in the plots.
        once: a computation that is run once in its life, and timed as it is checked.
        images: how many a call takes: the rows tell the time of each too.
        memory: the rows tell the peak of memory too, see :func:`bench.memory.peak_bytes`.
    """

    case: str
    variants: dict[str, Callable[[], Any] | Variant | Missing]
    baseline: str
    accept: Callable[[str, Any], str]
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    timesteps: int = 0
    work: Work = Work()  # noqa: RUF009
    sweep: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    once: bool = False
    images: int = 0
    memory: bool = False


def unavailable(case: str, error: Exception) -> Comparison:
    """In place of a computation whose inputs cannot be made here."""
    return Comparison(case, {"snn_convert": Missing(f"cannot be tried: {error}")}, "snn_convert", lambda *_: "")


def broken_off(error: Exception) -> Comparison:
    """In place of the cases that an experiment had left when it failed."""

    def fail() -> None:
        raise error

    return Comparison(LEFT, {"all": fail}, "all", lambda *_: "")


@dataclass
class _Candidate:
    """A variant on its way to a row."""

    variant: Variant
    correctness: str = ""
    error: str = ""
    missing: str = ""
    times: list[float] = field(default_factory=list)  # seconds a call, one a round
    facts: dict[str, float] = field(default_factory=dict)


def measure(experiment: str, comparison: Comparison, roofline: Roofline, rounds: int, seconds: float) -> list[Row]:
    """Check every variant, then time the correct ones in interleaved rounds.

    Every other round goes backwards, so that no variant always follows the same one. Once ``seconds`` are over, three
    rounds are enough.
    """
    candidates = {name: _checked(name, variant, comparison) for name, variant in comparison.variants.items()}
    running = [candidate for candidate in candidates.values() if candidate.correctness]
    if not comparison.once:
        _time(running, rounds, seconds)
    for candidate in running:
        candidate.facts = _found(candidate, comparison)
    base = candidates[comparison.baseline].times if comparison.baseline in candidates else []
    return [_row(experiment, comparison, name, c, base, roofline) for name, c in candidates.items()]


def _checked(name: str, variant: Callable[[], Any] | Variant | Missing, comparison: Comparison) -> _Candidate:
    if isinstance(variant, Missing):
        return _Candidate(Variant(lambda: None), missing=variant.reason)
    candidate = _Candidate(variant if isinstance(variant, Variant) else Variant(variant))
    try:
        start = time.perf_counter()
        output = candidate.variant.run()
        _settle()
        taken = time.perf_counter() - start
        candidate.correctness = comparison.accept(name, output)
        if comparison.once:
            candidate.times.append(taken)
    except Exception as error:  # a wrong or failing variant is reported, and gets no time
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        candidate.error = f"{kind}{error}".splitlines()[0]
    return candidate


def _found(candidate: _Candidate, comparison: Comparison) -> dict[str, float]:
    """What is measured besides time."""
    facts = {}
    if comparison.images:
        facts["ms per image"] = statistics.median(candidate.times) * 1e3 / comparison.images
    # What replays a CUDA graph allocates nothing: the graph holds its memory.
    if comparison.memory and (peak := peak_bytes(candidate.variant.run)):
        facts["peak MB"] = peak / 1e6
    return facts


def _time(candidates: list[_Candidate], rounds: int, seconds: float) -> None:
    end = time.perf_counter() + seconds
    repeats = [max(1, math.ceil(SHORTEST / _seconds(candidate, 1))) for candidate in candidates]
    turns = list(zip(candidates, repeats))
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for candidate, count in reversed(turns) if done % 2 else turns:
            candidate.times.append(_seconds(candidate, count))


def _seconds(candidate: _Candidate, count: int) -> float:
    run = candidate.variant.run
    start = time.perf_counter()
    for _ in range(count):
        run()
    _settle()
    return (time.perf_counter() - start) / count


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def quantiles(times: list[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile."""
    if len(times) == 1:
        return (times[0],) * 3
    cuts = statistics.quantiles(times, n=5, method="inclusive")
    return cuts[0], statistics.median(times), cuts[3]


def _row(
    experiment: str, comparison: Comparison, name: str, candidate: _Candidate, base: list[float], roofline: Roofline
) -> Row:
    work = candidate.variant.work or comparison.work
    row = Row(
        experiment,
        comparison.case,
        name,
        comparison.baseline,
        shape=list(comparison.shape),
        dtype=str(comparison.dtype).removeprefix("torch."),
        timesteps=comparison.timesteps,
        rounds=len(candidate.times),
        bytes=work.bytes,
        operations=work.operations,
        correctness=candidate.correctness,
        error=candidate.error,
        missing=candidate.missing,
        sweep=comparison.sweep,
        facts={**comparison.facts, **candidate.variant.facts, **candidate.facts},
    )
    if candidate.times:
        low, middle, high = quantiles(candidate.times)
        row.p20, row.p50, row.p80 = low * 1e3, middle * 1e3, high * 1e3
        row.speedup = statistics.median(b / t for b, t in zip(base, candidate.times)) if base else None
        row.roofline, row.bound = roofline.fraction(work.bytes, work.operations, row.dtype, middle)
    return row
