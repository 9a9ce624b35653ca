"""CUDA graphs: what a call costs on a GPU once the host no longer launches its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["SUFFIX", "graphs"]

SUFFIX = ", CUDA graph"


def graphs(variants: dict[str, Callable[[], Any]], device: str) -> dict[str, Callable[[], Any]]:
    """The variants once more as CUDA graphs; on a CPU there are none."""
    if device != "cuda":
        return {}
    return {name + SUFFIX: _replayed(run) for name, run in variants.items()}


def _replayed(run: Callable[[], Any]) -> Callable[[], Any]:
    """``run`` captured as a CUDA graph at the first call; this and every later call replays it into the same output."""
    captured: list[tuple[torch.cuda.CUDAGraph, Any]] = []

    def replay() -> Any:
        if not captured:
            captured.append(_captured(run))
        graph, output = captured[0]
        graph.replay()
        return output

    return replay


def _captured(run: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    # What is set up at a first call (compilation, workspaces) is not to be captured.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    return graph, output
