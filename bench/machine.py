"""What the times were measured on and with."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import snn_kernels
from snn_kernels.backends import C

__all__ = ["cpu", "file_name", "machine"]

ROOT = Path(__file__).parents[1]


def cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    """The first processor's name, with its family and model where the name has no number, as in virtual machines."""
    first = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" not in facts or re.search(r"\d", name):
        return name
    return f"{name} family {facts['cpu family']} model {facts['model']}"


def _said(*command: str) -> str:
    """What a command prints; nothing if there is no such command or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def machine() -> dict[str, Any]:
    """Processor, GPU, driver, versions, source revision and date.

    ``dirty`` says whether tracked files other than results differed from the revision.
    """
    gpu = torch.cuda.is_available()
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines() if gpu else []
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": C.isa if C else "none",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpu else "none",
        "driver": driver[0] if driver else "none",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "compiler": C.compiler if C else "none",
        "snn_kernels": snn_kernels.__version__,
        "revision": _said("git", "rev-parse", "--short", "HEAD") or "unknown",
        "dirty": bool(_said("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def file_name(where: dict[str, Any]) -> str:
    """The results' file for a machine: its GPU if it has one, its processor and the threads."""
    gpu = "" if where["gpu"] == "none" else where["gpu"]
    text = f"{gpu} {where['cpu']} {where['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") + ".json"
