"""The CUDA kernels without a GPU: compiled for the CPU and run there. test_gpu.py is for what this cannot show."""

import pytest

from programs import TESTS
from sanitized import built, passed
from snn_kernels import ACTIVATIONS


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    module = built(TESTS / "cuda_on_host", tmp_path_factory.mktemp("cuda_on_host"), "_cuda_on_host")
    return {"CUDA_ON_HOST": str(module), "BACKEND": "cuda"}


def test_neurons_give_the_bits_of_the_cpu_kernels(environment):
    assert passed("neurons_without_gpu.py", **environment) > 3 * len(ACTIVATIONS)


def test_products_agree_with_float64_and_fused_with_apart(environment):
    assert passed("products_without_gpu.py", **environment) >= 33


def test_converted_networks_run_on_them(environment):
    assert passed("converted_without_gpu.py", **environment) >= 7
