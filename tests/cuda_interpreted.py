"""The CUDA kernels compiled for the CPU by tests/cuda_on_host. tests/test_cuda.py builds them and runs this file.

What they compute is what they compute on a GPU, operation for operation; where the threads of a block exchange values
they are run in both orders. A read or write out of bounds, or at an address that a GPU refuses, ends the process.
"""

from __future__ import annotations

import pytest
import torch

import test_signgd_vector as vector
from cuda_kernels import cuda_kernels, module
from neuron_models import CALLS, assert_same_outcome, currents
from signgd_helpers import DTYPES, STEPS, arguments_for, assert_same, broadcast_call, run, seeded
from snn_kernels import ACTIVATIONS, signgd_vector
from test_parallel import same_bits
from test_signgd import OPERAND_SHAPES, memory_formats

SIZES = (1, 7, 512, 4096, 5001)  # less than a block and more, aligned and not


def same(activation, **arguments):
    """CUDA and the CPU's own kernels agree on a call of an activation."""
    with cuda_kernels():
        result = run(activation, backend="cpu", **arguments)
    assert_same(result, run(activation, backend="cpu", **arguments))


def test_the_kernels_are_swapped(monkeypatch):
    """Else everything below would compare the CPU's kernels with themselves."""
    calls = []
    monkeypatch.setattr(module(), "neuron", lambda *arguments: calls.append(arguments))
    with cuda_kernels():
        run("relu", backend="cpu", **arguments_for(ACTIVATIONS["relu"], (4,), 9))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name):
    for dtype in DTYPES:
        for size in SIZES:
            same(name, **arguments_for(ACTIVATIONS[name], (size,), 19, dtype))


@pytest.mark.parametrize("timesteps", STEPS)
def test_lengths(timesteps):
    for name in ("relu", "maximum"):
        same(name, **arguments_for(ACTIVATIONS[name], (600,), timesteps))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", OPERAND_SHAPES, ids=str)
def test_operands_broadcast(shape, channels_last):
    for name in ("hardtanh", "maximum"):
        activation, arguments = broadcast_call(name, shape, channels_last)
        same(activation, **arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_views(dtype):
    """Steps and neurons that no 16-byte load fits: the alignment of every access is checked."""
    arguments = arguments_for(ACTIVATIONS["relu"], (2, 3, 5, 7), 9, dtype)
    for view in memory_formats(arguments["currents"][0]).values():
        same("relu", **{**arguments, "currents": [view]})
    for size in (64, 60, 63):
        arguments = arguments_for(ACTIVATIONS["relu"], (size,), 9, dtype)
        wide = seeded(9, 72).to(dtype)
        for first in (0, 1, 4):
            same("relu", **{**arguments, "currents": [wide[:, first : first + size]]})
        same("relu", **{**arguments, "currents": [wide[:1, :size].expand(9, size)]})


@pytest.mark.parametrize("name", CALLS)
def test_every_other_model(name):
    for dtype in DTYPES:
        for size in SIZES:
            current = currents(19, size, dtype=dtype)
            with cuda_kernels():
                outcome = CALLS[name](current, backend="cpu")
            assert_same_outcome(outcome, CALLS[name](current, backend="cpu"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parallel_neurons(dtype):
    for size in SIZES:
        for timesteps in (8, 19):
            current = seeded(timesteps, size).to(dtype)
            with cuda_kernels():
                same_bits(current, backend="cpu", threshold=0.5, shift=0.03)


@pytest.mark.parametrize("name", vector.CASES)
def test_vector_targets(name):
    for length, dtype in ((1, torch.float32), (63, torch.bfloat16), (128, torch.float32), (500, torch.float16)):
        call = vector.arguments(length, 11, dtype)
        function = vector.case(name, length)[0]
        rest = {key: value for key, value in call.items() if key not in ("current", "eta")}
        trains = []
        for last_first in (False, True):
            module().last_thread_first(last_first)
            with cuda_kernels():
                train, state = signgd_vector(call["current"], call["eta"], function, **rest, backend="cpu")
            vector.assert_flips_are_crossings(name, length, train, state, **call)
            trains.append(train.bytes)
        assert torch.equal(*trains)
