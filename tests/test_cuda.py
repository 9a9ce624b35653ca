"""CUDA without a GPU: its kernels compiled for the CPU and run there. test_gpu.py is for what this cannot show."""

import re
import shutil
from pathlib import Path

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


def machine_code_of(activation: str, current: str, run: str, folder: Path) -> str:
    source, cubin = folder / "neuron.cu", folder / "neuron.cubin"
    source.write_text(
        f"""#include "{TESTS.parent / "csrc/cuda/neuron_kernel.cuh"}"
        using namespace snn::cuda;
        using Model = SignGD<activation::{activation}_fn>;
        template __global__ void snn::cuda::neuron_kernel<Model, {current}, {run}>(const snn::NeuronProblem);"""
    )
    output_of("nvcc", "-std=c++17", "--fmad=false", "-arch=sm_90", "-cubin", source, "-o", cubin)
    return dumped(cubin, "-sass")


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
@pytest.mark.parametrize(
    ("activation", "tested"), [("silu", False), ("tanh", False), ("mish", False), ("divide", True)]
)
def test_quotients_of_a_known_range_are_not_tested_for_it(activation, tested, tmp_path):
    """By the instruction that a division begins with, before a branch."""
    assert ("FCHK" in machine_code_of(activation, "float", "kRun", tmp_path)) == tested


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
@pytest.mark.parametrize(("current", "run"), [("float", "kRun"), ("__nv_bfloat16", "kRun"), ("Any", "1")])
def test_the_currents_of_eight_steps_are_in_flight_together(current, run, tmp_path):
    """Between two branches their loads have registers of their own, but for one that may come after the first use."""
    blocks = machine_code_of("relu", current, run, tmp_path).split(" BRA ")
    loads = [set(re.findall(r"LDG\.E\.EF(?:\.\w+)* (R\d+),", block)) for block in blocks]
    assert max(map(len, loads)) >= 7
