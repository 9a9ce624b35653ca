"""The two ceilings that a computation runs under: what memory and what matrix products reach here, as measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Roofline", "measured"]


@dataclass(frozen=True)
class Roofline:
    """Bytes a second of a copy (read and written both count), and operations a second of a matrix product by dtype."""

    copy: float
    gemm: dict[str, float]

    def fraction(self, bytes: int, operations: int, dtype: str, seconds: float) -> tuple[float | None, str]:
        """The share of the higher ceiling's time in ``seconds``, and which it is: ``copy`` or ``gemm``.

        A dtype without a measured product is held against that of float32. Nothing counted gives ``None``.
        """
        times = {"copy": bytes / self.copy, "gemm": operations / self.gemm.get(dtype, self.gemm["float32"])}
        bound = max(times, key=times.get)
        return (times[bound] / seconds, bound) if times[bound] else (None, "")


def measured(device: str, tiny: bool = False) -> Roofline:
    """The ceilings on ``device`` with the threads torch has now; the best of several rounds is one."""
    source = torch.zeros(2**14 if tiny else 2**26, device=device)
    target = torch.empty_like(source)
    calls = 20 if device == "cuda" else 1  # launched together: a copy there takes a tenth of a millisecond
    copy = 2 * source.nbytes / _best(lambda: target.copy_(source), calls)
    size = 64 if tiny else 8192 if device == "cuda" else 2048
    gemm = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
        gemm[str(dtype).removeprefix("torch.")] = 2 * size**3 / _best(lambda a=a, b=b: a @ b, calls)
    return Roofline(copy, gemm)


def _best(run: Callable[[], object], calls: int, rounds: int = 7) -> float:
    """Seconds of one of several calls in turn."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / calls)
    return min(times[1:])  # the first one sets up
