"""Any shape, stride, type, length, parameters and cut: the CPU kernel against the reference."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from signgd_helpers import DTYPES, assert_flips_are_crossings, assert_same, bits, run, seeded
from snn_kernels import ACTIVATIONS, NeuronState


@st.composite
def views(draw, shape: tuple[int, ...], dtype: torch.dtype):
    """Numbers of that shape somewhere in a larger tensor: any order of dimensions, gaps, repeated steps."""
    order = draw(st.permutations(range(len(shape))))
    gaps = [draw(st.integers(1, 2)) for _ in shape]
    starts = [draw(st.integers(0, 1)) for _ in shape]
    large = seeded(*(shape[d] * gaps[d] + starts[d] for d in order), seed=draw(st.integers(0, 99))).to(dtype)
    view = large.permute([order.index(d) for d in range(len(shape))])
    view = view[tuple(slice(start, start + size * gap, gap) for start, size, gap in zip(starts, shape, gaps))]
    return view[:1].expand(shape) if shape[0] and draw(st.booleans()) else view


@st.composite
def operands(draw, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0):
    """A number, or a tensor that broadcasts to ``shape``."""
    number = st.floats(low, high, width=32)
    if draw(st.booleans()):
        return torch.tensor(draw(number))
    ndim = draw(st.integers(0, len(shape)))
    small = [draw(st.sampled_from([1, size])) for size in shape[len(shape) - ndim :]]
    return torch.rand(small, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) * (high - low) + low


@st.composite
def calls(draw, exact: bool):
    row = draw(st.sampled_from([row for row in ACTIVATIONS.values() if row.exact == exact]))
    timesteps = draw(st.integers(0, 20))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    dtype = draw(st.sampled_from(DTYPES))
    inputs = range(row.arity)
    # Parameters are slopes, exponents and scales of the input, which are positive, or bounds of any sign.
    low = -2.0 if row.name == "hardtanh" else 0.25
    parameters = [draw(operands(shape, low)) for _ in row.parameters]
    return (row.name, *parameters), {
        "currents": [draw(views((timesteps, *shape), dtype)) for _ in inputs],
        "eta": torch.tensor(draw(st.lists(st.floats(0, 1, width=32), min_size=timesteps, max_size=timesteps))),
        "offset": [draw(operands(shape)) for _ in inputs],
        "bias": [draw(operands(shape)) for _ in inputs],
        "scale": draw(operands(shape, 0.0)),
        "v0": draw(operands(shape)),
    }


@given(calls(exact=True))
def test_exact_activations_match_bit_for_bit(call):
    activation, arguments = call
    assert_same(run(activation, backend="cpu", **arguments), run(activation, backend="reference", **arguments))


@given(calls(exact=False))
def test_flips_are_crossings(call):
    activation, arguments = call
    assert_flips_are_crossings(activation, run(activation, backend="cpu", **arguments), **arguments)


@given(data=st.data(), exact=st.booleans())
def test_a_cut_changes_nothing(data, exact):
    activation, arguments = data.draw(calls(exact))
    timesteps = len(arguments["eta"])
    cut = data.draw(st.integers(0, timesteps))
    whole = run(activation, backend="cpu", **arguments)

    def part(steps: slice, state: NeuronState | None):
        currents = [current[steps] for current in arguments["currents"]]
        return run(activation, **{**arguments, "currents": currents, "eta": arguments["eta"][steps]}, state=state)

    first = part(slice(cut), None)
    second = part(slice(cut, None), NeuronState(first.x[0] if len(first.x) == 1 else first.x, first.v))
    assert torch.equal(torch.cat([first.spikes, second.spikes]), whole.spikes)
    assert torch.equal(bits(second.v), bits(whole.v))
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(second.x, whole.x))


@given(call=calls(exact=True), scale=st.sampled_from([0.5, 1.0, 4.0]))
def test_powers_of_two_pass_through_homogeneous_functions(call, scale):
    """relu(2x) = 2 relu(x): currents, offset, bias, scale and v0 times 2**k scale the state and move no spike."""
    _, arguments = call
    arguments = {**arguments, "currents": arguments["currents"][:1], "offset": arguments["offset"][:1]}
    arguments["bias"] = arguments["bias"][:1]
    scaled = {name: [scale * v for v in arguments[name]] for name in ("currents", "offset", "bias")}
    scaled |= {name: scale * arguments[name] for name in ("scale", "v0")}
    plain, larger = run("relu", **arguments), run("relu", **{**arguments, **scaled})
    assert torch.equal(plain.bytes, larger.bytes)
    torch.testing.assert_close(larger.v, scale * plain.v, rtol=1e-6, atol=1e-6)
