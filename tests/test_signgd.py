"""The signGD neuron on the CPU: the reference's bits, whatever the shape, the memory format, the type or the cut."""

import pytest
import torch

from signgd_helpers import (
    DTYPES,
    EXACT,
    SIZES,
    STEPS,
    TRANSCENDENTAL,
    arguments_for,
    assert_flips_are_crossings,
    assert_same,
    bits,
    broadcast_call,
    run,
    seeded,
)
from snn_kernels import ACTIVATIONS, NeuronState, schedules, signgd, signgd_binary

SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1.0, -1.0, 3e38, -3e38, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("name", EXACT)
def test_exact_activations_match_the_reference_bit_for_bit(name):
    for dtype in DTYPES:
        arguments = arguments_for(ACTIVATIONS[name], (501,), 33, dtype)
        result = run(name, backend="cpu", **arguments)
        assert_same(result, run(name, backend="reference", **arguments))
        if name not in ("sqrt", "log"):
            assert 0 < result.spikes.float().mean() < 1


@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_every_flip_of_a_transcendental_activation_is_a_crossing(name):
    for dtype in DTYPES:
        arguments = arguments_for(ACTIVATIONS[name], (2001,), 33, dtype)
        for backend in ("cpu", "reference"):
            assert_flips_are_crossings(name, run(name, backend=backend, **arguments), **arguments)


@pytest.mark.parametrize("name", ["relu", "maximum"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("timesteps", STEPS)
def test_odd_sizes_and_lengths(timesteps, size, name):
    arguments = arguments_for(ACTIVATIONS[name], (size,), timesteps)
    result = run(name, backend="cpu", **arguments)
    assert result.bytes.shape == ((timesteps + 7) // 8, size)
    assert_same(result, run(name, backend="reference", **arguments))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["relu", "maximum"])
@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
@pytest.mark.parametrize("timesteps", [0, 9])
def test_empty_and_scalar_populations(timesteps, shape, name, backend):
    arguments = arguments_for(ACTIVATIONS[name], shape, timesteps)
    result = run(name, backend=backend, **arguments)
    assert result.bytes.shape == ((timesteps + 7) // 8, *shape)
    assert result.v.shape == shape
    if timesteps == 0:
        assert torch.equal(result.v, arguments["v0"])
        assert all(torch.equal(x, b) for x, b in zip(result.x, arguments["bias"]))


def test_every_tile_and_thread_boundary(three_threads):
    """Sizes around the CPU kernel's tile, and enough neurons for several threads."""
    for size in (1023, 1024, 1025, 70_001):
        arguments = arguments_for(ACTIVATIONS["relu"], (size,), 17)
        assert_same(run("relu", backend="cpu", **arguments), run("relu", backend="reference", **arguments))


@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    [("relu", 500_001, torch.float32), ("relu", 1_000_001, torch.bfloat16), ("maximum", 500_001, torch.float32)],
)
def test_currents_that_no_cache_holds(name, size, dtype, three_threads):
    """More than 16 MB an input, which the CPU kernel fetches ahead, in other runs of neurons."""
    arguments = arguments_for(ACTIVATIONS[name], (size,), 9, dtype)
    assert_same(run(name, backend="cpu", **arguments), run(name, backend="reference", **arguments))


def memory_formats(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same ``[T, B, C, H, W]`` numbers in different places."""
    t, b, c, h, w = tensor.shape
    large = torch.full((2 * t, b + 1, c, h + 2, 2 * w), float("nan"), dtype=tensor.dtype)
    strided = large[::2, 1:, :, 1:-1, ::2]
    strided.copy_(tensor)
    batch_first = tensor.transpose(0, 1).contiguous().transpose(0, 1)
    every_other = torch.stack([tensor, torch.full_like(tensor, float("nan"))], 1).flatten(0, 1)[::2]
    return {
        "contiguous": tensor,
        "channels_last": tensor.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        "permuted": tensor.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
        "batch_first": batch_first,
        "strided": strided,
        "every_other_step": every_other,
        "offset_by_one": torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape),
    }


@pytest.mark.parametrize("name", ["relu", "maximum"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_views_give_the_same_bits(name, dtype):
    shape = (2, 3, 5, 7)
    arguments = arguments_for(ACTIVATIONS[name], shape, 9, dtype)
    arguments["offset"] = [torch.randn(3, 1, 1) for _ in arguments["offset"]]
    expected = run(name, backend="reference", **arguments)
    for backend in ("cpu", "reference"):
        for kind, view in memory_formats(arguments["currents"][0]).items():
            result = run(name, backend=backend, **{**arguments, "currents": [view, *arguments["currents"][1:]]})
            assert_same(result, expected)
            if kind == "channels_last":
                for out in (result.bytes[0], result.bytes[1], *result.x, result.v):
                    assert out.is_contiguous(memory_format=torch.channels_last)


def test_one_current_for_all_steps_is_not_expanded():
    current = seeded(1, 5, 7)
    arguments = {**arguments_for(ACTIVATIONS["relu"], (5, 7), 33), "currents": [current.expand(33, 5, 7)]}
    result = run("relu", backend="cpu", **arguments)
    repeated = {**arguments, "currents": [current.repeat(33, 1, 1)]}
    assert_same(result, run("relu", backend="reference", **repeated))
    assert_same(result, run("relu", backend="cpu", **repeated))


OPERAND_SHAPES = [(), (1,), (7,), (5, 1), (3, 1, 1), (3, 1, 7), (1, 3, 1, 1), (2, 1, 5, 1), (2, 3, 5, 7)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["hardtanh", "maximum"])
@pytest.mark.parametrize("shape", OPERAND_SHAPES, ids=str)
def test_operands_broadcast(name, shape, channels_last):
    activation, arguments = broadcast_call(name, shape, channels_last)
    expected = run(activation, backend="reference", **arguments)
    assert_same(run(activation, backend="cpu", **arguments), expected)
    # Expanded over the population by hand, every operand says the same.
    for operand in ("offset", "bias"):
        arguments[operand] = [value.expand(2, 3, 5, 7).clone() for value in arguments[operand]]
    assert_same(run(activation, backend="cpu", **arguments), expected)


def test_numbers_are_as_good_as_tensors():
    current, eta = seeded(9, 7), schedules.Exponential().table(9)
    numbers = signgd(current, eta, ("leaky_relu", 0.25), offset=0.5, bias=2, scale=1.5, v0=-0.25)
    field = torch.tensor
    tensors = signgd(
        *(current, eta, ("leaky_relu", field(0.25))),
        **{"offset": field(0.5), "bias": field(2.0), "scale": field(1.5), "v0": field(-0.25)},
    )
    assert torch.equal(numbers[0].bytes, tensors[0].bytes)
    assert torch.equal(numbers[1].v, tensors[1].v)


@pytest.mark.parametrize("name", ["relu", "gelu", "maximum"])
@pytest.mark.parametrize("cuts", [(8,), (1, 9), (5, 5, 16, 17), (0, 33), (32,)])
def test_state_carries_a_train_over_any_cut(name, cuts):
    arguments = arguments_for(ACTIVATIONS[name], (2, 7), 33)
    whole = run(name, backend="cpu", **arguments)
    parts, state = [], None
    for begin, end in zip((0, *cuts), (*cuts, 33)):
        call = {**arguments, "currents": [current[begin:end] for current in arguments["currents"]]}
        call["eta"] = arguments["eta"][begin:end]
        part = run(name, backend="cpu", state=state, **call)
        state = NeuronState(part.x[0] if len(part.x) == 1 else part.x, part.v)
        parts.append(part)
    assert torch.equal(torch.cat([part.spikes for part in parts]), whole.spikes)
    assert torch.equal(bits(parts[-1].v), bits(whole.v))
    for x, expected in zip(parts[-1].x, whole.x):
        assert torch.equal(bits(x), bits(expected))


@pytest.mark.parametrize("name", EXACT)
def test_special_numbers(name):
    """NaN, infinities, denormals and zeros of both signs as currents, first estimates and first inputs."""
    values = torch.tensor(SPECIAL)
    grid = torch.cartesian_prod(values, values, values, values)[:: 5 if len(ACTIVATIONS[name].parameters) else 1]
    current, v0, bias, other = (column.contiguous() for column in grid.unbind(1))
    arity = ACTIVATIONS[name].arity
    arguments = {
        "currents": [current.expand(3, -1), other.expand(3, -1)][:arity],
        "eta": torch.tensor([0.5, 1e-45, 1.0]),
        "offset": [1.0, 0.0][:arity],
        "bias": [bias, other][:arity],
        "v0": v0,
    }
    result = run(name, backend="cpu", **arguments)
    assert_same(result, run(name, backend="reference", **arguments))


@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_special_numbers_of_transcendental_activations(name):
    values = torch.tensor(SPECIAL)
    current, v0, bias = (column.contiguous() for column in torch.cartesian_prod(values, values, values).unbind(1))
    arguments = {"currents": [current.expand(3, -1)], "eta": torch.tensor([0.5, 1e-45, 1.0]), "offset": [1.0]}
    arguments |= {"bias": [bias], "v0": v0}
    result = run(name, backend="cpu", **arguments)
    assert_flips_are_crossings(name, result, scale=1.0, **arguments)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_every_current_of_16_bits_is_widened_exactly(dtype):
    """Denormals, infinities and NaN among them: with eta = 1/2 and no offset, x is minus the current."""
    current = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)[None]
    arguments = {"currents": [current], "eta": torch.tensor([0.5]), "offset": [0.0]}
    result = run("identity", backend="cpu", **arguments)
    assert_same(result, run("identity", backend="reference", **arguments))
    overflows = current[0].float().abs() > 1.7e38
    assert torch.equal(bits(result.x[0])[~overflows], bits(0.0 - current[0].float())[~overflows])


def test_ties_fire_and_nan_does_not():
    """With eta = 0 nothing moves: the spike is ``v0 >= h(bias)``."""
    nan = float("nan")
    v0 = torch.tensor([1.0, 0.0, -0.0, nan, 1.0, float("inf"), 1.0 - 2**-24])
    x = torch.tensor([1.0, -1.0, 0.0, 1.0, nan, float("inf"), 1.0])
    for backend in ("cpu", "reference"):
        train, _ = signgd(torch.zeros(1, 7), torch.zeros(1), "relu", bias=x, v0=v0, backend=backend)
        assert train.unpack(torch.bool)[0].tolist() == [True, True, True, False, False, True, False]


def test_hardtanh_with_crossed_bounds_is_its_upper_one():
    """As torch.clamp has it."""
    arguments = {**arguments_for(ACTIVATIONS["hardtanh"], (63,), 9), "bias": [3 * seeded(63)]}
    crossed = ("hardtanh", 1.0, -1.0)
    assert_same(run(crossed, backend="cpu", **arguments), run(crossed, backend="reference", **arguments))


@pytest.mark.parametrize("name", ["relu", "square", "multiply"])
def test_the_recurrence_is_the_one_of_the_paper(name):
    """Python floats rounded to float32 after every operation, one neuron: shares no code with either backend."""

    def f32(value: float) -> float:
        return torch.tensor(value, dtype=torch.float64).float().item()

    h = {"relu": lambda x: max(x, 0.0), "square": lambda x: f32(x * x), "multiply": lambda a, b: f32(a * b)}[name]
    arity = ACTIVATIONS[name].arity
    eta = schedules.Exponential(0.5, 0.9).table(20)
    currents = [seeded(20, 1, seed=k) for k in range(arity)]
    offset, scale, v = [f32(0.3), f32(-0.2)][:arity], f32(1.3), f32(0.1)
    x = [f32(0.7), f32(1.1)][:arity]
    result = run(name, currents, eta, offset=offset, bias=x, scale=scale, v0=v)
    for t in range(20):
        e = eta[t].item()
        for k in range(arity):
            change = f32(e * f32(f32(2 * currents[k][t].item()) - offset[k]))
            x[k] = f32(x[k] - change)
        spike = v >= h(*x)
        v = f32(v - f32(f32(e * scale) * (2 * spike - 1)))
        assert result.spikes[t].item() == spike
    assert result.v.item() == v
    assert [xk.item() for xk in result.x] == x


def test_the_estimate_reaches_its_target():
    """What the neuron is for: a constant input is decoded as L(0) + sum eta (offset - 2 current); v follows h(x)."""
    eta = schedules.Exponential(0.15, 0.95).table(128)
    current = torch.linspace(0.3, 0.7, 64)
    for name in ("relu", "gelu", "tanh", "square"):
        _, state = signgd(current.expand(128, 64), eta, name)
        target = ACTIVATIONS[name].function(state.x)
        assert (state.v - target).abs().max() < 0.05


def test_outputs_carry_no_gradient():
    current = seeded(9, 7).requires_grad_()
    train, state = signgd(current, schedules.Exponential().table(9), "relu")
    assert not any(tensor.requires_grad for tensor in (train.bytes, state.x, state.v))


def test_inputs_are_left_alone():
    arguments = arguments_for(ACTIVATIONS["maximum"], (7,), 9)
    tensors = [*arguments["currents"], arguments["eta"], *arguments["offset"], *arguments["bias"], arguments["v0"]]
    copies = [tensor.clone() for tensor in tensors]
    run("maximum", **arguments)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies))


def test_binary_inputs_may_differ_in_memory_format():
    a, b = seeded(9, 2, 3, 5, 7, seed=1), seeded(9, 2, 3, 5, 7, seed=2)
    eta = schedules.Exponential().table(9)
    expected, _ = signgd_binary(a, b, eta, "maximum")
    train, state = signgd_binary(a, memory_formats(b)["channels_last"], eta, "maximum")
    assert torch.equal(train.bytes, expected.bytes)
    assert state.x[1].is_contiguous()
