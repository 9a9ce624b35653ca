"""Networks on a device ``cuda`` that is emulated. test_gpu_networks.py runs here and on a GPU."""

import os
import re
import shutil
import sys

import pytest
import torch

from programs import TESTS, output_of


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> str:
    if torch.version.cuda:
        pytest.skip("this PyTorch has a device cuda of its own")
    if not shutil.which("c++"):
        pytest.skip("no compiler c++")
    output = output_of(sys.executable, TESTS / "cuda_device.py", tmp_path_factory.mktemp("cuda_device"))
    return output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "default", "left_out", "least"),
    [
        ("test_gpu_networks.py", "cpu", "nothing", 15),
        # PyTorch's own LSTM has a kernel that only a GPU has; the layout is one for the CPU.
        ("test_convert_operations.py", "cuda", "recurrent or depthwise", 100),
    ],
)
def test_networks_on_a_gpu(file, default, left_out, least, device):
    """That nothing is left on the CPU: an operation that mixes devices fails, as it does on a GPU."""
    environment = {**os.environ, "CUDA_DEVICE": device, "DEFAULT_DEVICE": default, "PYTHONPATH": str(TESTS)}
    output = output_of(
        *(sys.executable, "-m", "pytest", "-q", "-p", "cuda_device", "-p", "no:cacheprovider"),
        *("-k", f"not ({left_out})", TESTS / file),
        environment=environment,
    )
    assert int(re.search(r"(\d+) passed", output.strip().splitlines()[-1])[1]) >= least
