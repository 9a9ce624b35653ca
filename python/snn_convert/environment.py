"""What this runs on: machine, versions, build. The command ``info`` prints it and the demo's report carries it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["build", "machine", "versions"]

OPTIONAL_PACKAGES = ("triton", "scikit-learn", "matplotlib")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def machine() -> dict[str, str]:
    """Processor, cores and threads, GPU if torch has one, operating system."""
    facts = {
        "processor": _processor(),
        "cores": f"{_cores()} usable; torch threads: {torch.get_num_threads()}",
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def versions() -> dict[str, str]:
    """Versions of this package, Python, torch and the optional packages."""
    found = {"snn-kernels": version("snn-kernels"), "python": platform.python_version(), "torch": torch.__version__}
    for name in OPTIONAL_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def build() -> dict[str, str]:
    """How the extension module was compiled and which instruction set it takes here."""
    try:
        from snn_kernels import _C
    except ImportError as error:
        return {"extension module": f"did not load: {error}"}
    return {
        "CPU instruction set": _C.isa,
        "compiler": _C.compiler,
        "OpenMP": "yes" if _C.openmp else "no",
        "CUDA architectures": _C.cuda_architectures or "none (built without CUDA)",
    }
