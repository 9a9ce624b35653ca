"""CUDA's kernels, compiled for the CPU by tests/test_cuda.py, in place of the CPU's own: see tests/cuda_on_host."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@functools.cache
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_cuda_on_host", os.environ["CUDA_ON_HOST"])
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def kernels_of(backend: str) -> Iterator[None]:
    """Within it the backend runs for tensors on the CPU: Triton's by its interpreter, ``cuda`` by the emulation."""
    if backend != "cuda":
        yield
        return
    backends = sys.modules["snn_kernels.backends"]  # the package's attribute of that name is the function
    home_of = backends.home_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "C", module())
        patch.setattr(backends, "why_not", lambda name: "")
        patch.setattr(backends, "home_of", lambda name: "cpu" if name == "cuda" else home_of(name))
        yield
