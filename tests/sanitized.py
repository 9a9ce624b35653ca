"""The kernels built with the address sanitizer, and tests run with them: in a process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from programs import TESTS, cmake, configured, output_of
from snn_kernels import _C


def built(source: Path, build: Path, module: str, *options: str) -> Path:
    """The Python module that the CMake project builds."""
    preloaded()  # skips where nothing can be built
    for done in (configured(source, build, *options), cmake("--build", build)):
        assert done.returncode == 0, done.stdout[-8000:]
    (file,) = build.glob(f"{module}.*.so")
    return file


def preloaded() -> str:
    """The libraries that a program not compiled for the address sanitizer has to load first."""
    paths = []
    for name in ("libasan.so", "libstdc++.so.6"):
        try:
            found = subprocess.check_output(["c++", f"-print-file-name={name}"], text=True).strip()
        except FileNotFoundError:
            pytest.skip("no compiler c++")
        if not Path(found).is_absolute():
            pytest.skip(f"c++ knows no {name}")
        paths.append(found)
    return " ".join(paths)


def watched(**environment: str) -> dict[str, str]:
    """The environment of a Python that loads kernels with the sanitizer."""
    leaks_of_python = "detect_leaks=0"
    return {**os.environ, "LD_PRELOAD": preloaded(), "ASAN_OPTIONS": leaks_of_python, **environment}


def passed(*files: str, cwd: Path | None = None, **environment: str) -> int:
    """How many tests of the files pass; all have to that are not for a GPU. A package in ``cwd`` is the one tested."""
    found = "import sys, snn_kernels; " + (f"assert snn_kernels.__file__.startswith({str(cwd)!r}); " if cwd else "")
    output = output_of(
        *(sys.executable, "-c", f"{found}import pytest; sys.exit(pytest.main())"),
        *("-q", "-s", "-p", "no:cacheprovider", "-m", "not gpu"),
        *(TESTS / file for file in files),
        cwd=cwd,
        environment=watched(**environment),
    )
    summary = output.strip().splitlines()[-1]
    assert "skipped" not in summary or _C.isa == "portable"  # which has fewer methods
    return int(re.search(r"(\d+) passed", summary)[1])
