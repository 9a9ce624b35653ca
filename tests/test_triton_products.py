"""Triton's products of packed trains without a GPU: interpreted in a process of its own, and compiled ahead of time."""

import math
import re
from types import SimpleNamespace

import pytest
import torch

# First: where there is no Triton it skips the file.
from compiled_ahead import assert_rounds_once, assert_spills_at_most, compiled, interpreted, loops_that_multiply
from snn_kernels.ops.spike_gemm.triton_events import event_kernel
from snn_kernels.ops.spike_gemm.triton_kernel import product_kernel, product_signgd_kernel
from snn_kernels.ops.spike_gemm.triton_launch import OPTIONS, grid_of, tile_of
from snn_kernels.ops.spike_gemm.triton_weights import weight_kernel
from snn_kernels.triton_activations import TRITON_ACTIVATIONS

TYPES = {"p_bytes": "*u8", "p_train": "*u8", "p_weight": "*fp16", "p_values": "*fp16"}
# Each architecture's instruction with float16 factors and float32 sums.
TENSOR_CORES = {
    80: r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16\.f16\.f32",
    90: r"wgmma\.mma_async\.sync\.aligned\.m64n\d+k16\.f32\.f16\.f16",
    100: r"tcgen05\.mma\.cta_group::1\.kind::f16",
}
# Instructions that a scheduler issues in the time of their products at the rate of Hopper's tensor cores, of which the
# kernel cannot reach more than the inverse: the product alone, fused, fused with a residual.
MOST_INSTRUCTIONS = (1.25, 2.4, 3.0)
PRODUCTS_A_CYCLE = 2048
# The activation of the fused kernel (None: the product alone), architecture, float16 parts of a weight, convolution,
# what is added.
COMPILED = [
    (None, 80, 2, False, None),
    (None, 90, 2, True, None),
    (None, 100, 1, False, None),
    ("relu", 80, 1, False, None),
    ("relu", 90, 2, True, None),
    ("gelu", 90, 1, False, None),
    ("relu", 100, 1, False, None),
    *(("relu", capability, 2, True, residual) for capability in (80, 90, 100) for residual in ("currents", "train")),
]


@pytest.mark.parametrize(("file", "tests"), [("products_without_gpu.py", 33), ("converted_without_gpu.py", 7)])
def test_the_interpreter_agrees_with_float64_and_fused_with_apart(file, tests):
    assert interpreted(file) >= tests


def test_more_programs_than_triton_counts_are_refused():
    def grid(rows: int, timesteps: int):
        product = SimpleNamespace(rows=rows, tile={"BLOCK_M": 1, "BLOCK_N": 128})
        return grid_of(product, torch.empty(timesteps, rows, 1, device="meta"))

    assert grid(2**29, 9) == (2**29, 2)
    for rows, timesteps in ((2**30, 9), (1, 8 * 2**16)):
        with pytest.raises(ValueError, match="train: expected fewer rows or steps for the triton backend"):
            grid(rows, timesteps)


def compile_ahead(activation: str | None, capability: int, parts: int, convolution: bool, residual: str | None):
    kernel = product_signgd_kernel if activation else product_kernel
    constants = {
        **tile_of(256, 32, fused=bool(activation), residual=bool(residual)),
        "PARTS": parts,
        "WINDOWS": convolution,
    }
    if activation:
        constants["H"] = TRITON_ACTIVATIONS[activation].function
        absent = {None: ("p_residual", "p_amplitude"), "currents": ("p_amplitude",), "train": ()}[residual]
        constants |= dict.fromkeys(absent)
    else:
        constants["ALIGNED"] = True
    return aot(kernel, capability, constants, p_residual="*u8" if residual == "train" else "*fp32")


def aot(kernel, capability: int, constants: dict, **types: str):
    def type_of(argument: str) -> str:
        if argument in constants:
            return "constexpr"
        return {**TYPES, **types}.get(argument, "*fp32") if argument.startswith("p_") else "i64"

    signature = {argument: type_of(argument) for argument in kernel.arg_names}
    return compiled(kernel, signature, constants, capability, **OPTIONS)


def products_of(instruction: str) -> int:
    """The products of a block of four warps in an instruction of each: ``HMMA.16816`` or ``HGMMA.64x32x16``."""
    if re.match(r"HMMA\.16816\b", instruction):
        return 4 * 16 * 8 * 16
    group = re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", instruction)
    return math.prod(map(int, group.groups())) if group else 0


@pytest.mark.parametrize(("activation", "capability", "parts", "convolution", "residual"), COMPILED)
def test_compiles_to_tensor_cores_without_spills(activation, capability, parts, convolution, residual, tmp_path):
    kernel = compile_ahead(activation, capability, parts, convolution, residual)
    ptx = kernel.asm["ptx"]
    products = re.findall(r"(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)[\w.:]*", ptx)
    assert len(products) >= 8
    assert all(re.fullmatch(TENSOR_CORES[capability], product) for product in products)
    assert_rounds_once(kernel)
    # Tiles are fetched while others are multiplied, several numbers at a time.
    assert "cp.async" in ptx
    assert not re.search(r"ld\.global\.[bu]16", ptx)
    if activation is None:
        assert "st.global.b32" not in ptx
    if residual != "train":  # whose own bytes, one in eight steps, may lie anywhere
        assert not re.search(r"ld\.global\.[bu]8", ptx)
    # What a pass needs before and after it.
    assert_spills_at_most(16 if activation else 0, kernel, tmp_path, before=224)
    loops = loops_that_multiply(kernel, tmp_path)
    assert loops
    for loop in loops:
        assert not any(re.search(r"\b(STL|LDL)\b", instruction) for instruction in loop)
        # No product waits for the one before.
        assert not any(re.search(r"gsb0, 0x0$", instruction.strip()) for instruction in loop)
        if capability < 100:  # whose instructions do not say how large they are
            cycles = sum(products_of(instruction) for instruction in loop) / PRODUCTS_A_CYCLE
            assert len(loop) <= MOST_INSTRUCTIONS[bool(activation) + bool(residual)] * cycles


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_the_kernel_that_prepares_weights_compiles(dtype, capability, tmp_path):
    constants = {"UNIFORM": dtype != "fp32", "PARTS": 2 if dtype == "fp32" else 1, "BLOCK": 1024}
    kernel = aot(weight_kernel, capability, constants, p_weight=f"*{dtype}")
    assert_rounds_once(kernel)
    assert_spills_at_most(0, kernel, tmp_path)


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("windows", [False, True])
def test_the_kernel_of_events_compiles(windows, capability, tmp_path):
    constants = {"WINDOWS": windows, "BLOCK_N": 512, "BLOCK_K": 4}
    kernel = aot(event_kernel, capability, constants, p_weight="*fp32")
    assert_rounds_once(kernel)
    assert_spills_at_most(0, kernel, tmp_path)


@pytest.mark.parametrize(
    "kernel", [weight_kernel, product_kernel, product_signgd_kernel, event_kernel], ids=lambda kernel: kernel.__name__
)
def test_nothing_recompiles_for_a_length_or_a_size(kernel):
    for parameter in kernel.params:
        if parameter.is_constexpr:
            assert parameter.name.isupper()
        else:
            assert parameter.do_not_specialize
            if not parameter.name.startswith("p_"):
                assert parameter.annotation_type == "i64"
