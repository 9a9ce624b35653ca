"""Which backend runs, the instruction sets of the CPU one, and memory beyond 2**31 elements."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from signgd_helpers import seeded
from snn_kernels import _C, Backend, backends, schedules, signgd
from snn_kernels.backends import choose

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ISAS = ("portable", "avx2", "avx512", "amx")


def test_every_backend_is_listed_with_its_reason():
    here = backends()
    assert list(here) == ["cuda", "triton", "cpu", "reference"]
    for name, backend in here.items():
        assert isinstance(backend, Backend)
        assert backend.name == name
        assert backend.available == (backend.reason == "")
    assert here["cpu"].available
    assert here["reference"].available


def test_none_chooses_the_fastest_that_runs():
    assert choose(None, CPU) == "cpu"
    assert choose(None, CPU, ("reference",)) == "reference"
    assert choose(None, torch.device("meta")) == "reference"
    expected = next(name for name in ("cuda", "triton", "reference") if backends()[name].available)
    assert choose(None, CUDA) == expected


def test_a_named_backend_runs_or_raises():
    assert choose("reference", CPU) == "reference"
    assert choose("cpu", CPU) == "cpu"
    with pytest.raises(ValueError, match="backend: 'cpu' cannot run: it takes cpu tensors and these are on cuda:0"):
        choose("cpu", CUDA)
    with pytest.raises(ValueError, match="backend: expected None or one of cpu, reference; got 'cuda'"):
        choose("cuda", CPU, ("cpu", "reference"))
    with pytest.raises(ValueError, match="backend: 'cuda' cannot run: "):
        signgd(torch.zeros(1, 1), torch.zeros(1), "relu", backend="cuda")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    module = sys.modules["snn_kernels.backends"]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "C", None)
    monkeypatch.setattr(module, "_C_ERROR", "no such file", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reasons = {name: backend.reason for name, backend in backends().items()}
    assert reasons["cpu"] == "the extension module snn_kernels._C did not load: no such file"
    assert reasons["cuda"] == reasons["cpu"]
    assert reasons["triton"] == "the package triton is not installed"
    assert choose(None, CPU) == "reference"
    with pytest.raises(ValueError, match=r"backend: 'cpu' cannot run: the extension module .* no such file"):
        choose("cpu", CPU)


def test_kernels_that_were_built_for_other_gpus_are_not_chosen(monkeypatch):
    module = sys.modules["snn_kernels.backends"]
    refusals = {0: "no kernel image is available", 1: ""}
    current = iter([0, 0, 1])
    built = SimpleNamespace(cuda_architectures="90", cuda_refusal=lambda: refusals[len(asked)])
    asked = []
    monkeypatch.setattr(module, "C", built)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: next(current))
    module._cuda_refusal.cache_clear()
    assert module.why_not("cuda") == "CUDA on device 0 says: no kernel image is available"
    asked.append(0)
    assert choose(None, CUDA) in ("triton", "reference")
    assert module.why_not("cuda") == ""
    module._cuda_refusal.cache_clear()


def test_triton_takes_cpu_tensors_in_the_interpreter_only(monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose("triton", CPU) == "triton"
    assert choose(None, CPU) == "cpu"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="backend: 'triton' cannot run: "):
        choose("triton", CPU)


@pytest.fixture(scope="module")
def digests_of():
    """Digests of every activation's outputs at most at this instruction set; a process each, once."""
    known = {}

    def run(isa: str) -> dict:
        if isa not in known:
            script = Path(__file__).with_name("every_activation.py")
            environment = {**os.environ, "SNN_KERNELS_ISA": isa}
            output = subprocess.run(
                [sys.executable, script], env=environment, capture_output=True, text=True, check=True
            )
            known[isa] = json.loads(output.stdout)
        return known[isa]

    return run


@pytest.mark.parametrize("isa", ISAS[:-1])
def test_every_instruction_set_gives_the_same_bits(isa, digests_of):
    """For every activation, the transcendental ones too: they are made of correctly rounded operations."""
    if ISAS.index(isa) >= ISAS.index(_C.isa):
        pytest.skip(f"this processor and build stop at {_C.isa}")
    lower, best = digests_of(isa), digests_of("best")
    assert lower["isa"] == isa
    assert best["isa"] == _C.isa
    assert lower["digests"] == best["digests"]


def test_threads_do_not_change_the_bits():
    current, eta = seeded(33, 20_011), schedules.Exponential().table(33)
    threads = torch.get_num_threads()
    trains = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            trains.append(signgd(current, eta, "gelu"))
    finally:
        torch.set_num_threads(threads)
    for train, state in trains[1:]:
        assert torch.equal(train.bytes, trains[0][0].bytes)
        assert torch.equal(state.v, trains[0][1].v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_more_than_two_to_the_31_elements_apart(dtype):
    """Three steps in address space that is never touched between them: a 32-bit index would read elsewhere."""
    stride, neurons = 2**31 + 24, 1030
    try:
        space = mmap.mmap(-1, (2 * stride + neurons) * dtype.itemsize)
    except OSError as error:
        pytest.skip(f"no address space for it: {error}")
    current = torch.frombuffer(space, dtype=dtype).as_strided((3, neurons), (stride, 1))
    current.copy_(seeded(3, neurons))
    eta = schedules.Exponential().table(3)
    train, state = signgd(current, eta, "relu", backend="cpu")
    expected, expected_state = signgd(seeded(3, neurons).to(dtype), eta, "relu", backend="reference")
    assert torch.equal(train.bytes, expected.bytes)
    assert torch.equal(state.v, expected_state.v)
    del current
    space.close()
