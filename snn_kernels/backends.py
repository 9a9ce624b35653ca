"""Which implementations can run here, and which one an op takes."""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass

import torch

__all__ = ["Backend", "backends", "check_name", "choose", "run_extension"]

try:
    from . import _C as C
except ImportError as error:
    C = None
    _C_ERROR = str(error)


@dataclass(frozen=True)
class Backend:
    """A backend's name, whether it can run here and, if not, why."""

    name: str
    available: bool
    reason: str = ""


def interpreting_triton() -> bool:
    """Whether Triton kernels run in the interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(name: str) -> str:
    """The reason a backend cannot run here; empty if it can."""
    if name == "cpu":
        return "" if C else f"the extension module snn_kernels._C did not load: {_C_ERROR}"
    if name == "cuda":
        if C is None:
            return f"the extension module snn_kernels._C did not load: {_C_ERROR}"
        if not C.cuda_architectures:
            return "snn_kernels was built without CUDA (SNN_KERNELS_CUDA=1 with nvcc builds it)"
        return _cuda_refusal(torch.cuda.current_device()) if torch.cuda.is_available() else "torch finds no CUDA device"
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed"
        if interpreting_triton():
            return ""
        return "" if torch.cuda.is_available() else "torch finds no GPU (TRITON_INTERPRET=1 interprets on the CPU)"
    return ""


@functools.cache
def _cuda_refusal(device: int) -> str:
    """Why the extension's kernels cannot run on the current device, as where they were built for others."""
    refusal = C.cuda_refusal()
    return f"CUDA on device {device} says: {refusal}" if refusal else ""


def home_of(name: str) -> str | None:
    """The type of device whose tensors a backend takes, ``None`` for any."""
    return {"cpu": "cpu", "cuda": "cuda", "triton": "cpu" if interpreting_triton() else "cuda"}.get(name)


NAMES = ("cuda", "triton", "cpu", "reference")
FASTEST_FIRST = {"cuda": ("cuda", "triton"), "cpu": ("cpu",)}  # by type of device


def backends() -> dict[str, Backend]:
    """Every backend by name, with the reason where it cannot run here."""
    reasons = {name: why_not(name) for name in NAMES}
    return {name: Backend(name, not reason, reason) for name, reason in reasons.items()}


def check_name(backend: str | None, supported: tuple[str, ...] = NAMES) -> None:
    """None, or the name of a backend."""
    if backend is not None and backend not in supported:
        raise ValueError(f"backend: expected None or one of {', '.join(supported)}; got {backend!r}")


def choose(backend: str | None, device: torch.device, supported: tuple[str, ...] = NAMES) -> str:
    """The backend an op runs on ``device``: the named one, or for ``None`` the fastest that can.

    Raises:
        ValueError: the named backend does not exist, cannot run here, or does not take tensors on ``device``.
    """
    check_name(backend, supported)
    if backend is None:
        ranking = FASTEST_FIRST.get(device.type, ())
        return next((name for name in ranking if name in supported and not why_not(name)), "reference")
    reason = why_not(backend)
    home = home_of(backend)
    if not reason and home not in (None, device.type):
        reason = f"it takes {home} tensors and these are on {device}"
    if reason:
        raise ValueError(f"backend: {backend!r} cannot run: {reason}")
    return backend


def run_extension(op: str, arguments: tuple, device: torch.device) -> None:
    """An op of the extension module, with torch's number of threads or on the current stream of a CUDA device."""
    run = getattr(C, op)
    if device.type == "cuda":
        with torch.cuda.device(device):
            run("cuda", arguments, torch.cuda.current_stream(device).cuda_stream)
    else:
        run("cpu", arguments, torch.get_num_threads())
