"""Programs that tests run: what they print, and CMake with the tools that pip put beside Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pybind11
import pytest

TESTS = Path(__file__).parent
BESIDE_PYTHON = Path(sys.executable).parent


def run(
    *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess:
    """Standard output and errors in one."""
    command = tuple(map(str, command))
    return subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def output_of(*command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] = os.environ) -> str:
    done = run(*command, cwd=cwd, environment=environment)
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def cmake(*arguments: str | Path, environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess:
    path = os.pathsep.join((str(BESIDE_PYTHON), environment["PATH"]))
    return run(shutil.which("cmake", path=path), *arguments, environment={**environment, "PATH": path})


def configured(
    source: Path, build: Path, *options: str, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess:
    tools = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    return cmake("-S", source, "-B", build, "-G", "Ninja", *tools, *options, environment=environment)


def dumped(cubin: Path, *arguments: str) -> str:
    """What the tool that Triton brings says of machine code for a GPU."""
    triton = pytest.importorskip("triton", reason="triton, which brings cuobjdump, is not installed")
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("this triton brings no cuobjdump")
    return output_of(tool, *arguments, cubin)
