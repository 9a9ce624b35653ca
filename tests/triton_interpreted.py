"""The Triton kernel in Triton's interpreter, on the CPU. tests/test_triton.py runs this file with TRITON_INTERPRET=1.

Every activation is compared with the C++ kernel bit for bit, the transcendental ones too: both are the same correctly
rounded operations. test_signgd.py holds the C++ kernel to the reference.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import test_signgd_vector as vector
from neuron_models import CALLS, assert_same_outcome, currents
from signgd_helpers import DTYPES, EXACT, STEPS, arguments_for, assert_same, broadcast_call, run, seeded
from snn_kernels import ACTIVATIONS, NeuronState, backends, signgd_vector
from test_parallel import same_bits
from test_signgd import OPERAND_SHAPES, SPECIAL, memory_formats
from test_signgd_property import calls

# numpy, in which the interpreter computes, announces what IEEE arithmetic does quietly.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def same_on_triton_and_cpu(activation, **arguments):
    result = run(activation, backend="triton", **arguments)
    assert_same(result, run(activation, backend="cpu", **arguments))
    return result


def test_the_interpreter_is_on():
    assert backends()["triton"].available


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, dtype):
    arguments = arguments_for(ACTIVATIONS[name], (63,), 19, dtype)
    result = same_on_triton_and_cpu(name, **arguments)
    if name in EXACT:
        assert_same(result, run(name, backend="reference", **arguments))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_numbers(name):
    values = torch.tensor([*SPECIAL, 20.0, -20.0, 88.8, -104.0])
    current, v0, bias = (column.contiguous() for column in torch.cartesian_prod(values, values, values).unbind(1))
    arity = ACTIVATIONS[name].arity
    arguments = {"currents": [current.expand(2, -1), v0.expand(2, -1)][:arity], "offset": [1.0, 0.0][:arity]}
    arguments |= {"eta": torch.tensor([0.5, 1.0]), "bias": [bias, current][:arity], "v0": v0}
    same_on_triton_and_cpu(name, **arguments)


def test_an_operand_of_one_number_keeps_the_sign_of_zero():
    arguments = {"currents": [torch.zeros(1, 3)], "eta": torch.zeros(1), "offset": [0.0], "bias": [0.0], "v0": -0.0}
    assert same_on_triton_and_cpu("identity", **arguments).v.signbit().all()


def test_exponents():
    """Whole and fractional, odd and even, up to where every float is even; bases of both signs."""
    exponents = [0.0, 0.5, 1.0, -1.0, 2.0, 3.0, -3.5, 1e-45, 3e38]
    exponents += [8388607.0, 8388608.0, 8388609.0, 16777215.0, 16777216.0]
    bases = [0.0, -0.0, 1.0, -1.0, 0.9999999, -1.0000001, 2.0, -2.0, 3e38, float("inf"), float("-inf"), float("nan")]
    base, exponent = torch.cartesian_prod(torch.tensor(bases), torch.tensor(exponents)).unbind(1)
    for v0 in (-1.0, 0.0, 1.0, 2.0, float("inf"), float("-inf")):
        arguments = {"currents": [torch.zeros(1, len(base))], "eta": torch.zeros(1), "bias": [base], "v0": v0}
        same_on_triton_and_cpu(("pow", exponent), **arguments)


@pytest.mark.parametrize("name", ["relu", "maximum"])
@pytest.mark.parametrize("size", [1, 7, 64, 500, 513, 1024])
@pytest.mark.parametrize("timesteps", STEPS)
def test_sizes_and_lengths(timesteps, size, name):
    """Aligned and not, less than a block and more."""
    same_on_triton_and_cpu(name, **arguments_for(ACTIVATIONS[name], (size,), timesteps))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["hardtanh", "maximum"])
@pytest.mark.parametrize("shape", OPERAND_SHAPES, ids=str)
def test_operands_broadcast(name, shape, channels_last):
    activation, arguments = broadcast_call(name, shape, channels_last)
    same_on_triton_and_cpu(activation, **arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_views(dtype):
    arguments = arguments_for(ACTIVATIONS["relu"], (2, 3, 5, 7), 9, dtype)
    for view in memory_formats(arguments["currents"][0]).values():
        same_on_triton_and_cpu("relu", **{**arguments, "currents": [view]})
    aligned = arguments_for(ACTIVATIONS["relu"], (64,), 9, dtype)
    step = aligned["currents"][0][:1]
    same_on_triton_and_cpu("relu", **{**aligned, "currents": [step.expand(9, 64)]})


@pytest.mark.parametrize("name", ["gelu", "divide"])
def test_state_continues(name):
    arguments = arguments_for(ACTIVATIONS[name], (2, 7), 17)
    whole = run(name, backend="triton", **arguments)
    parts, state = [], None
    for steps in (slice(0, 5), slice(5, 8), slice(8, 17)):
        call = {**arguments, "currents": [c[steps] for c in arguments["currents"]], "eta": arguments["eta"][steps]}
        part = run(name, backend="triton", state=state, **call)
        state = NeuronState(part.x[0] if len(part.x) == 1 else part.x, part.v)
        parts.append(part)
    assert torch.equal(torch.cat([part.spikes for part in parts]), whole.spikes)
    assert torch.equal(parts[-1].v, whole.v)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_every_other_model(name, dtype):
    for timesteps, size in ((19, 63), (8, 512), (3, 1)):
        current = currents(timesteps, size, dtype=dtype)
        assert_same_outcome(CALLS[name](current, backend="triton"), CALLS[name](current, backend="cpu"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parallel_neurons(dtype):
    for timesteps, size in ((11, 63), (8, 1025), (3, 1)):
        same_bits(seeded(timesteps, size).to(dtype), backend="triton", threshold=0.5, shift=0.03)


@pytest.mark.parametrize("name", vector.CASES)
def test_vector_targets(name):
    for length, dtype in ((1, torch.float32), (63, torch.bfloat16), (500, torch.float16)):
        call = vector.arguments(length, 11, dtype)
        rest = {key: value for key, value in call.items() if key not in ("current", "eta")}
        function = vector.case(name, length)[0]
        train, state = signgd_vector(call["current"], call["eta"], function, **rest, backend="triton")
        vector.assert_flips_are_crossings(name, length, train, state, **call)


@settings(max_examples=25)
@given(data=st.data(), exact=st.booleans())
def test_any_call(data, exact):
    activation, arguments = data.draw(calls(exact))
    same_on_triton_and_cpu(activation, **arguments)


@pytest.mark.parametrize("name", ["relu", "maximum"])
def test_opcheck(name):
    arguments = arguments_for(ACTIVATIONS[name], (2, 3), 9)
    fields = [torch.tensor(0.5)] * ACTIVATIONS[name].arity
    call = (arguments["currents"], arguments["eta"], name, fields, torch.ones(3), [], fields, fields[0], [])
    torch.library.opcheck(torch.ops.snn_kernels.neuron.default, (*call, 0.0, False, "triton"))
