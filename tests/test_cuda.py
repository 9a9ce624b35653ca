"""CUDA without a GPU: its kernels compiled for the CPU and run there. test_gpu.py is for what this cannot show."""

import re
import shutil

import pytest

from programs import TESTS, dumped, output_of
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


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
@pytest.mark.parametrize(("current", "run"), [("float", "kRun"), ("__nv_bfloat16", "kRun"), ("Any", "1")])
def test_the_currents_of_eight_steps_are_in_flight_together(current, run, tmp_path):
    """Between two branches their loads have registers of their own, but for one that may come after the first use."""
    source, cubin = tmp_path / "relu.cu", tmp_path / "relu.cubin"
    source.write_text(
        f"""#include "{TESTS.parent / "csrc/cuda/neuron_kernel.cuh"}"
        using namespace snn::cuda;
        using Relu = SignGD<activation::relu_fn>;
        template __global__ void snn::cuda::neuron_kernel<Relu, {current}, {run}>(const snn::NeuronProblem);"""
    )
    output_of("nvcc", "-std=c++17", "--fmad=false", "-arch=sm_90", "-cubin", source, "-o", cubin)
    blocks = dumped(cubin, "-sass").split(" BRA ")
    loads = [set(re.findall(r"LDG\.E\.EF(?:\.\w+)* (R\d+),", block)) for block in blocks]
    assert max(map(len, loads)) >= 7
