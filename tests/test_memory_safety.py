"""The CPU kernels touch no memory but their operands': their own tests pass with the address sanitizer watching."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import snn_kernels
from programs import TESTS, output_of
from sanitized import built, passed, watched
from snn_kernels import _C

FILES = (
    "test_signgd.py",
    "test_neuron_models.py",
    "test_spike_gemm.py",
    "test_spike_gemm_scaled.py",
    "test_quantized_weight.py",
    "test_signgd_matmul.py",
    "test_signgd_vector.py",
    "test_decode.py",
    "test_packing.py",
    "test_parallel.py",
)


@pytest.fixture(scope="module")
def beside(tmp_path_factory) -> Path:
    """A folder with a copy of the package, which is imported by a Python that starts there."""
    folder = tmp_path_factory.mktemp("sanitized")
    package = Path(snn_kernels.__file__).parent
    shutil.copytree(package, folder / "snn_kernels", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    flags = f"-DCMAKE_CXX_FLAGS=-fsanitize=address -O1 -g1 -DSNN_AMX_EMULATED -I{TESTS / 'amx_on_host'}"
    options = (flags, "-DCMAKE_BUILD_TYPE=None", "-DSNN_KERNELS_CUDA=0")
    shutil.copy(built(TESTS.parent, folder / "build", "_C", *options), folder / "snn_kernels")
    return folder


def test_the_kernels_of_the_copy_are_watched(beside):
    loaded = "from snn_kernels import _C; print(_C.__file__, _C.isa)"
    where = output_of(sys.executable, "-c", loaded, cwd=beside, environment=watched())
    assert where.startswith(str(beside))
    (module,) = (beside / "snn_kernels").glob("_C.*")
    assert b"__asan_report_store" in module.read_bytes()
    emulated = _C.isa == "avx512" and "SNN_KERNELS_ISA" not in os.environ
    assert where.split()[-1] == ("amx" if emulated else _C.isa)


def test_no_kernel_leaves_its_operands(beside):
    assert passed(*FILES, cwd=beside) > 500
