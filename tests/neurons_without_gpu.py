"""A GPU's neurons without a GPU, on the backend that the environment variable BACKEND names.

tests/test_triton.py runs this file in Triton's interpreter, tests/test_cuda.py with CUDA's kernels compiled for the
CPU, where a read or write out of bounds, or at an address that a GPU refuses, ends the process.

Every activation is compared with the CPU's kernel bit for bit, the transcendental ones too: all are the same correctly
rounded operations. test_signgd.py holds the CPU's kernel to the reference.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import test_decode as decoding
import test_signgd_matmul as products
import test_signgd_trains as trains
import test_signgd_vector as vector
from cuda_kernels import kernels_of, module
from neuron_models import CALLS, assert_same_outcome, currents
from signgd_helpers import DTYPES, EXACT, STEPS, arguments_for, assert_same, broadcast_call, run, seeded
from snn_kernels import ACTIVATIONS, NeuronState, signgd_vector
from test_parallel import same_bits
from test_signgd import OPERAND_SHAPES, SPECIAL, memory_formats
from test_signgd_property import calls

# numpy, in which the interpreter computes, announces what IEEE arithmetic does quietly.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


BACKEND = os.environ["BACKEND"]
# Less than a block and several, aligned and not; Triton's interpreter is slow.
SIZES = {"cuda": (1, 7, 512, 2048, 5001), "triton": (63, 512)}[BACKEND]


def run_here(activation, **arguments):
    with kernels_of(BACKEND):
        return run(activation, backend=BACKEND, **arguments)


def same_as_on_the_cpu(activation, **arguments):
    result = run_here(activation, **arguments)
    assert_same(result, run(activation, backend="cpu", **arguments))
    return result


@pytest.mark.parametrize("name", [*ACTIVATIONS, "relu with momentum"])
def test_trains(name):
    for arguments in trains.calls(name.removesuffix(" with momentum"), SIZES):
        if name.endswith("momentum"):
            arguments["momentum"] = 0.5
        with kernels_of(BACKEND):
            packed = trains.run(**arguments, backend=BACKEND)
        assert_same(packed, trains.run(**arguments, backend="cpu"))


if BACKEND == "cuda":

    def test_the_kernels_are_swapped(monkeypatch):
        """Else everything below would compare the CPU's kernels with themselves."""
        calls = []
        monkeypatch.setattr(module(), "neuron", lambda *arguments: calls.append(arguments))
        run_here("relu", **arguments_for(ACTIVATIONS["relu"], (4,), 9))
        assert len(calls) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, dtype):
    for size in SIZES:
        arguments = arguments_for(ACTIVATIONS[name], (size,), 19, dtype)
        result = same_as_on_the_cpu(name, **arguments)
        if name in EXACT:
            assert_same(result, run(name, backend="reference", **arguments))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_numbers(name):
    values = torch.tensor([*SPECIAL, 20.0, -20.0, 88.8, -104.0])
    current, v0, bias = (column.contiguous() for column in torch.cartesian_prod(values, values, values).unbind(1))
    arity = ACTIVATIONS[name].arity
    arguments = {"currents": [current.expand(2, -1), v0.expand(2, -1)][:arity], "offset": [1.0, 0.0][:arity]}
    arguments |= {"eta": torch.tensor([0.5, 1.0]), "bias": [bias, current][:arity], "v0": v0}
    same_as_on_the_cpu(name, **arguments)


def test_an_operand_of_one_number_keeps_the_sign_of_zero():
    arguments = {"currents": [torch.zeros(1, 3)], "eta": torch.zeros(1), "offset": [0.0], "bias": [0.0], "v0": -0.0}
    assert same_as_on_the_cpu("identity", **arguments).v.signbit().all()


def test_exponents():
    """Whole and fractional, odd and even, up to where every float is even; bases of both signs."""
    exponents = [0.0, 0.5, 1.0, -1.0, 2.0, 3.0, -3.5, 1e-45, 3e38]
    exponents += [8388607.0, 8388608.0, 8388609.0, 16777215.0, 16777216.0]
    bases = [0.0, -0.0, 1.0, -1.0, 0.9999999, -1.0000001, 2.0, -2.0, 3e38, float("inf"), float("-inf"), float("nan")]
    base, exponent = torch.cartesian_prod(torch.tensor(bases), torch.tensor(exponents)).unbind(1)
    for v0 in (-1.0, 0.0, 1.0, 2.0, float("inf"), float("-inf")):
        arguments = {"currents": [torch.zeros(1, len(base))], "eta": torch.zeros(1), "bias": [base], "v0": v0}
        same_as_on_the_cpu(("pow", exponent), **arguments)


@pytest.mark.parametrize("name", ["relu", "maximum"])
@pytest.mark.parametrize("timesteps", STEPS)
def test_lengths(timesteps, name):
    for size in (1, 64, 513, 1024):
        same_as_on_the_cpu(name, **arguments_for(ACTIVATIONS[name], (size,), timesteps))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["hardtanh", "maximum"])
@pytest.mark.parametrize("shape", OPERAND_SHAPES, ids=str)
def test_operands_broadcast(name, shape, channels_last):
    activation, arguments = broadcast_call(name, shape, channels_last)
    same_as_on_the_cpu(activation, **arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_views(dtype):
    """Steps and neurons that no 16-byte load fits: CUDA's emulation checks the alignment of every access."""
    arguments = arguments_for(ACTIVATIONS["relu"], (2, 3, 5, 7), 9, dtype)
    for view in memory_formats(arguments["currents"][0]).values():
        same_as_on_the_cpu("relu", **{**arguments, "currents": [view]})
    wide = seeded(9, 72).to(dtype)
    for size in (64, 60, 63):
        arguments = arguments_for(ACTIVATIONS["relu"], (size,), 9, dtype)
        views = [wide[:, first : first + size] for first in (0, 1, 4)]
        for view in (*views, wide[:1, :size].expand(9, size)):
            same_as_on_the_cpu("relu", **{**arguments, "currents": [view]})


@pytest.mark.parametrize("name", ["gelu", "divide"])
def test_state_continues(name):
    arguments = arguments_for(ACTIVATIONS[name], (2, 7), 17)
    whole = run_here(name, **arguments)
    parts, state = [], None
    for steps in (slice(0, 5), slice(5, 8), slice(8, 17)):
        call = {**arguments, "currents": [c[steps] for c in arguments["currents"]], "eta": arguments["eta"][steps]}
        part = run_here(name, state=state, **call)
        state = NeuronState(part.x[0] if len(part.x) == 1 else part.x, part.v)
        parts.append(part)
    assert torch.equal(torch.cat([part.spikes for part in parts]), whole.spikes)
    assert torch.equal(parts[-1].v, whole.v)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_every_other_model(name, dtype):
    for timesteps, size in ((8, 512), (3, 1), *((19, size) for size in SIZES)):
        current = currents(timesteps, size, dtype=dtype)
        with kernels_of(BACKEND):
            outcome = CALLS[name](current, backend=BACKEND)
        assert_same_outcome(outcome, CALLS[name](current, backend="cpu"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parallel_neurons(dtype):
    for timesteps, size in ((11, 63), (8, 1025), (3, 1), (19, 5001)):
        with kernels_of(BACKEND):
            same_bits(seeded(timesteps, size).to(dtype), backend=BACKEND, threshold=0.5, shift=0.03)


@pytest.mark.parametrize("name", vector.CASES)
def test_vector_targets(name):
    """The emulation of CUDA runs the threads of a block, which exchange values, in both orders: to the same spikes."""
    for length, dtype in ((1, torch.float32), (63, torch.bfloat16), (128, torch.float32), (500, torch.float16)):
        call = vector.arguments(length, 11, dtype)
        rest = {key: value for key, value in call.items() if key not in ("current", "eta")}
        function = vector.case(name, length)[0]
        trains = []
        for last_first in (False, True) if BACKEND == "cuda" else (False,):
            with kernels_of(BACKEND):
                if BACKEND == "cuda":
                    module().last_thread_first(last_first)
                train, state = signgd_vector(call["current"], call["eta"], function, **rest, backend=BACKEND)
            vector.assert_flips_are_crossings(name, length, train, state, **call)
            trains.append(train.bytes)
        assert all(torch.equal(train, trains[0]) for train in trains)


@pytest.mark.parametrize("name", vector.CASES)
def test_vector_targets_of_trains(name):
    with kernels_of(BACKEND):
        for length, timesteps in ((1, 9), (63, 8), (128, 19)):
            vector.train_as_its_currents(name, length, timesteps, BACKEND)


@pytest.mark.parametrize("timesteps", [1, 8, 19])
def test_decoded_inputs(timesteps):
    with kernels_of(BACKEND):
        for size in SIZES:
            decoding.every_input(timesteps, size, BACKEND)
        wide, train = seeded(timesteps, 72), decoding.random_train(timesteps, 72)
        for first in (0, 1, 4):  # no 16-byte load fits
            for given in (wide[:, first : first + 60], train[first : first + 60]):
                decoding.same_as_the_reference(given, decoding.eta_of(timesteps), BACKEND, offset=0.3)


def test_products_of_activations():
    shapes = products.SHAPES["batches"]
    with kernels_of(BACKEND):
        arguments = products.call(shapes, 20, (True, False))
        products.assert_follows_the_definition(*products.run(arguments, backend=BACKEND), arguments)


@settings(max_examples=25)
@given(data=st.data(), exact=st.booleans())
def test_any_call(data, exact):
    activation, arguments = data.draw(calls(exact))
    same_as_on_the_cpu(activation, **arguments)


@pytest.mark.parametrize("name", ["relu", "maximum"])
def test_opcheck(name):
    arguments = arguments_for(ACTIVATIONS[name], (2, 3), 9)
    fields = [torch.tensor(0.5)] * ACTIVATIONS[name].arity
    call = (arguments["currents"], [], arguments["eta"], name, fields, torch.ones(3), [], fields, fields[0], [])
    with kernels_of(BACKEND):
        torch.library.opcheck(torch.ops.snn_kernels.neuron.default, (*call, 0.0, False, BACKEND))
