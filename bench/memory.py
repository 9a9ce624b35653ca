"""The most memory that a call holds at a time, and how the C library comes by it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["keep_memory", "peak_bytes"]

# The profiler's own messages, which it writes to the terminal, are of lower levels.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def keep_memory() -> bool:
    """Let glibc keep the memory of freed tensors in the process, as the allocators do that PyTorch's guide to speed on
    CPUs advises; whether it does. Otherwise a large tensor is new pages at every call, or not, as the process' past has
    it, and writing to them takes several times as long as what is measured.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc
        return False
    most = 2**31 - 1
    mmap_max, trim_threshold, top_pad = -4, -1, -2
    return all(mallopt(*option) == 1 for option in ((mmap_max, 0), (trim_threshold, most), (top_pad, 64 << 20)))


def peak_bytes(run: Callable[[], Any]) -> int:
    """The largest sum of live bytes during ``run()``, above those that were live before it; its result counts.

    They are the bytes of tensors, by the events of PyTorch's allocator: on a GPU its own maximum; on a CPU the running
    sum of what the profiler saw allocated and freed. Buffers that kernels and libraries keep for themselves are not
    among them, nor is what the allocator holds in reserve.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)
