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


@pytest.fixture(scope="module")
def module(tmp_path_factory) -> Path:
    build = tmp_path_factory.mktemp("cuda_on_host")
    tools = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    path = os.pathsep.join((str(BESIDE_PYTHON), os.environ["PATH"]))
    output_of("cmake", "-S", TESTS / "cuda_on_host", "-B", build, "-G", "Ninja", *tools, PATH=path)
    assert "warning" not in output_of("cmake", "--build", build, PATH=path)
    (file,) = build.glob("_cuda_on_host.*")
    return file


def passed(tests: str, module: Path) -> int:
    """How many tests of a file pass with the module in place of the CPU's kernels; all have to."""
    output = output_of(
        *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", TESTS / tests),
        LD_PRELOAD=preloaded(),
        ASAN_OPTIONS="detect_leaks=0",  # Python's own
        CUDA_ON_HOST=str(module),
        BACKEND="cuda",
    )
    summary = output.strip().splitlines()[-1]
    assert "skipped" not in summary
    return int(re.search(r"(\d+) passed", summary)[1])


def test_neurons_give_the_bits_of_the_cpu_kernels(module):
    assert passed("neurons_without_gpu.py", module) > 3 * len(ACTIVATIONS)


def test_products_agree_with_float64_and_fused_with_apart(module):
    assert passed("products_without_gpu.py", module) >= 30
