"""The Triton kernel without a GPU: interpreted in a process of its own, and compiled ahead of time."""

import re

import pytest

# First: where there is no Triton it skips the file.
from compiled_ahead import assert_rounds_once, assert_spills_at_most, compiled, disassembled, interpreted
from snn_kernels import ACTIVATIONS
from snn_kernels.ops.decode import triton_kernel as decoding
from snn_kernels.ops.neuron.triton_kernel import block_of, neuron_kernel
from snn_kernels.ops.neuron.triton_steps import STEPS, model_of
from snn_kernels.ops.parallel.triton_kernel import BLOCK, count_kernel, mix_kernel
from snn_kernels.ops.vector.triton_kernel import VECTOR_FUNCTIONS, vector_kernel, warps_of
from snn_kernels.triton_activations import TRITON_ACTIVATIONS

TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8"}
# Every type, architecture and arity; light, heavy and dividing functions.
COMPILED = [
    ("relu", "float32", 80, True),
    ("relu", "bfloat16", 90, True),
    ("relu", "bfloat16", 90, False),
    ("relu", "float16", 100, True),
    ("gelu", "float32", 90, True),
    ("gelu", "bfloat16", 80, True),
    ("gelu", "bfloat16", 100, True),
    ("maximum", "float32", 100, True),
    ("relu", "uint8", 90, True),
    ("maximum", "uint8", 80, True),
    ("gelu", "uint8", 100, False),
    ("gelu with momentum", "uint8", 90, True),
    ("maximum", "bfloat16", 90, True),
    ("divide", "float32", 80, True),
    ("pow", "float32", 90, True),
    ("tanh", "bfloat16", 100, True),
    ("gelu with momentum", "bfloat16", 90, True),
    ("divide with momentum", "float32", 100, True),
    *((name, dtype, 90, True) for name in STEPS for dtype in ("float32", "bfloat16") if "momentum" not in name),
    ("subgradient with momentum", "float32", 80, True),
]


def test_the_interpreter_gives_the_bits_of_the_cpu_kernel():
    assert interpreted("neurons_without_gpu.py") > 3 * len(ACTIVATIONS)


def aot(kernel, constants: dict, dtype: str, capability: int, num_warps: int = 4):
    """A kernel compiled for an architecture; currents are of ``dtype``."""

    def type_of(argument: str) -> str:
        if argument.isupper():
            return "constexpr"
        if argument in ("momentum", "eps"):
            return "fp32"
        if not argument.startswith("p_"):
            return "i64"
        return {"p_bytes": "*u8"}.get(argument, f"*{TYPES[dtype]}" if argument.startswith("p_current") else "*fp32")

    signature = {argument: type_of(argument) for argument in kernel.arg_names}
    return compiled(kernel, signature, constants, capability, num_warps=num_warps, enable_fp_fusion=False)


def compile_ahead(name: str, dtype: str, capability: int, aligned: bool):
    model, _, momentum = name.partition(" with momentum")
    step, function, binary, light = model_of(model, bool(momentum))

    constants = {
        "STEP": step,
        "H": function,
        "BINARY": binary,
        "DECODES": "integrate" not in name,
        "MOMENTUM": bool(momentum),
        "NESTEROV": bool(momentum),
        "PACKED": dtype == "uint8",
        "ALIGNED": aligned,
        "BLOCK": block_of(light, 2 if dtype in ("float16", "bfloat16") else 4, aligned),
    }
    return aot(neuron_kernel, constants, dtype, capability)


@pytest.mark.parametrize(("name", "dtype", "capability", "aligned"), COMPILED)
def test_compiles_as_written_without_spills(name, dtype, capability, aligned, tmp_path):
    kernel = compile_ahead(name, dtype, capability, aligned)
    ptx = kernel.asm["ptx"]
    assert f".target sm_{capability}" in ptx
    assert_rounds_once(kernel)
    # A light activation loads 16 bytes at a time: the currents of eight steps, and of one for the rest of the train.
    if aligned and dtype != "uint8" and name in TRITON_ACTIVATIONS and TRITON_ACTIVATIONS[name].light:
        assert len(re.findall(r"ld\.global\.v4\.b32", ptx)) == 9 * ACTIVATIONS[name].arity
    assert_spills_at_most(0, kernel, tmp_path)


def moves_runs(kernel) -> bool:
    """Whether neither currents of 16 bits nor bytes are read or written one by one."""
    return not re.search(r"(ld|st)\.global\.[bu](8|16)\b", kernel.asm["ptx"])


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("kernel", [count_kernel, mix_kernel], ids=["count", "mix"])
def test_parallel_neurons_compile_as_written_without_spills(kernel, capability, tmp_path):
    for aligned in (True, False):
        ahead = aot(kernel, {"ALIGNED": aligned, "BLOCK": BLOCK}, "bfloat16", capability)
        assert_rounds_once(ahead)
        assert_spills_at_most(0, ahead, tmp_path)
        assert moves_runs(ahead) == aligned


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("name", VECTOR_FUNCTIONS)
def test_vector_targets_compile_as_written_without_spills(name, capability, tmp_path):
    for block, stack in ((512, 0), (4096, 64)):  # of the longest vectors a few registers may be spilled
        for packed in (False, True):
            constants = {"H": VECTOR_FUNCTIONS[name], "PACKED": packed, "ALIGNED": True, "BLOCK": block}
            kernel = aot(vector_kernel, constants, "uint8" if packed else "bfloat16", capability, warps_of(block))
            assert_rounds_once(kernel)
            assert_spills_at_most(stack, kernel, tmp_path)
            assert moves_runs(kernel)


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
def test_decoding_compiles_as_written_without_spills(dtype, capability, tmp_path):
    for aligned in (True, False):
        constants = {"PACKED": dtype == "uint8", "ALIGNED": aligned, "BLOCK": decoding.BLOCK}
        kernel = aot(decoding.decode_kernel, constants, dtype, capability)
        assert_rounds_once(kernel)
        assert_spills_at_most(0, kernel, tmp_path)
        assert moves_runs(kernel) == aligned


def test_the_machine_code_of_an_exact_activation_fuses_nothing(tmp_path):
    """ptxas, too, may fuse; a multiplication followed by an addition is there in every step."""
    assembly = disassembled(compile_ahead("relu", "float32", 90, True), tmp_path, "-sass")
    assert "FMUL" in assembly
    assert "FADD" in assembly
    assert "FFMA" not in assembly


def test_nothing_recompiles_for_a_length_or_a_size():
    """Sizes are 64-bit whatever their value, and no argument is specialised on its value or alignment."""
    for parameter in neuron_kernel.params:
        if parameter.is_constexpr:
            assert parameter.name.isupper()
        else:
            assert parameter.do_not_specialize
            if not parameter.name.startswith("p_") and parameter.name != "momentum":
                assert parameter.annotation_type == "i64"
