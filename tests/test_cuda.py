"""The CUDA kernels without a GPU: compiled for the CPU and run there. test_gpu.py is for what this cannot show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

from snn_kernels import ACTIVATIONS

TESTS = Path(__file__).parent
BESIDE_PYTHON = Path(sys.executable).parent  # where pip put cmake and ninja


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


def output_of(*command, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def test_the_cuda_kernels_give_the_bits_of_the_cpu_kernels(tmp_path):
    """All of tests/cuda_interpreted.py."""
    libraries = preloaded()
    tools = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    path = os.pathsep.join((str(BESIDE_PYTHON), os.environ["PATH"]))
    output_of("cmake", "-S", TESTS / "cuda_on_host", "-B", tmp_path, "-G", "Ninja", *tools, PATH=path)
    assert "warning" not in output_of("cmake", "--build", tmp_path, PATH=path)
    (module,) = tmp_path.glob("_cuda_on_host.*")
    output = output_of(
        *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", TESTS / "cuda_interpreted.py"),
        LD_PRELOAD=libraries,
        ASAN_OPTIONS="detect_leaks=0",  # Python's own
        CUDA_ON_HOST=str(module),
    )
    summary = output.strip().splitlines()[-1]
    assert int(re.search(r"(\d+) passed", summary)[1]) > len(ACTIVATIONS)
    assert "skipped" not in summary
