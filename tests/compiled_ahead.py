"""What the tests of Triton's kernels without a GPU share: compiled ahead of time, and tests run in the interpreter."""

import os
import re
import sys
from pathlib import Path

import pytest

from programs import TESTS, dumped, output_of

triton = pytest.importorskip("triton", reason="triton is not installed")

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("under TRITON_INTERPRET=1 triton compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, CompiledKernel  # noqa: E402

# With its ptxas no kernel spills in a loop over time or inputs.
WITHOUT_SPILLS = (3, 9)


def interpreted(file: str) -> int:
    """How many tests of the file pass, all of them, with Triton's kernels interpreted.

    In a process of its own: Triton reads TRITON_INTERPRET once, when a kernel is defined.
    """
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / file)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "BACKEND": "triton"}
    summary = output_of(*command, environment=environment).strip().splitlines()[-1]
    assert "skipped" not in summary
    return int(re.search(r"(\d+) passed", summary)[1])


def compiled(kernel, signature: dict[str, str], constants: dict, capability: int, **options) -> CompiledKernel:
    source = ASTSource(kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def assert_rounds_once(kernel: CompiledKernel) -> None:
    """The arithmetic contract: one rounding an operation outside the tensor cores, and no flushing of denormals."""
    ptx = kernel.asm["ptx"]
    # Multiply-adds are fused where the source says so, and ptxas fuses nothing that says how it rounds.
    written = re.findall(r" call .*@llvm\.fma\.(?:v(\d+))?f32\(", kernel.asm["llir"])
    fused = re.findall(r"\bfma\.rn\.f32(?:x(\d+))?\b", ptx)
    assert sum(int(lanes or 1) for lanes in fused) == sum(int(lanes or 1) for lanes in written)
    assert not re.search(r"\bfma\.(?!rn\.f32)|\b(mul|add|sub)\.f32", ptx)
    assert ".ftz" not in ptx
    assert not re.search(r"\b(div|sqrt|ex2|lg2|tanh)\.(full|approx)", ptx)


def disassembled(kernel: CompiledKernel, folder: Path, *arguments: str) -> str:
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    return dumped(cubin, *arguments)


def loops_that_multiply(kernel: CompiledKernel, folder: Path) -> list[list[str]]:
    """The instructions of the innermost loops with products of tensor cores."""
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,5})\*/\s+(.*?);", disassembled(kernel, folder, "-sass"), re.MULTILINE)
    number = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    targets = [re.search(r"\bBRA\b.*0x([0-9a-f]+)", instruction) for _, instruction in lines]
    starts = [(number[int(target[1], 16)], i) for i, target in enumerate(targets) if target]
    loops = [slice(start, end + 1) for start, end in starts if start < end]
    multiply = [loop for loop in loops if any("MMA" in instruction for _, instruction in lines[loop])]
    inner = [a for a in multiply if not any(a.start <= b.start and b.stop < a.stop for b in multiply)]
    return [[instruction for _, instruction in lines[loop]] for loop in inner]


def assert_spills_at_most(stack: int, kernel: CompiledKernel, folder: Path, before: int = 72) -> None:
    """Bytes a thread; ``before`` Triton 3.9."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < WITHOUT_SPILLS:
        stack = max(stack, before)
    usage = disassembled(kernel, folder, "--dump-resource-usage")
    assert int(re.search(r"STACK:(\d+) .*LOCAL:0 ", usage)[1]) <= stack, usage
