"""Neurons that chase the product of two decoded matrices, against the loop of their definition."""

import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from signgd_helpers import DTYPES, assert_instruction_sets_agree, seeded
from snn_kernels import NeuronState, SpikeTrain, pack, schedules, signgd_matmul

SHAPES = {
    "plain": ((5, 6), (6, 7)),
    "batches": ((4, 3, 5, 6), (4, 3, 6, 7)),
    "one matrix for all": ((4, 5, 6), (6, 2)),
    "batches that broadcast": ((3, 1, 5, 6), (4, 6, 2)),
    "a column of a row": ((3, 1, 9), (3, 9, 1)),
}
# Sums of at most nine products: their rounding in any order is far below this share of an estimate's range.
BAND = 1e-5


def call(shapes, timesteps: int, packed: tuple[bool, bool] = (False, False)) -> dict:
    """Arguments with every field per element."""
    of_a, of_b = shapes
    currents = [seeded(timesteps, *shape, seed=k) for k, shape in enumerate(shapes)]
    product = (*torch.broadcast_shapes(of_a[:-2], of_b[:-2]), of_a[-2], of_b[-1])
    return {
        "currents": [pack(current > 0) if is_packed else current for current, is_packed in zip(currents, packed)],
        "eta": schedules.Exponential(0.4, 0.9).table(timesteps),
        "amplitude": tuple(seeded(*shape, seed=9) if p else None for shape, p in zip(shapes, packed)),
        "offset": tuple(seeded(*shape, seed=3 + k) for k, shape in enumerate(shapes)),
        "bias": tuple(seeded(*shape, seed=5 + k) for k, shape in enumerate(shapes)),
        "scale": seeded(*product, seed=7).abs() + 0.1,
        "v0": seeded(*product, seed=8),
    }


def run(arguments: dict, **more) -> tuple[SpikeTrain, NeuronState]:
    rest = {name: value for name, value in arguments.items() if name not in ("currents", "eta")}
    return signgd_matmul(*arguments["currents"], arguments["eta"], **{**rest, **more})


def assert_follows_the_definition(train: SpikeTrain, state: NeuronState, arguments: dict) -> None:
    """Decoded inputs to the bit; each spike that of the definition, or a tie of its own estimate with its target."""
    amplitude = arguments["amplitude"]
    dense = [
        current.unpack() * worth if isinstance(current, SpikeTrain) else current
        for current, worth in zip(arguments["currents"], amplitude)
    ]
    x, v = list(arguments["bias"]), arguments["v0"]
    for t, (step, spike) in enumerate(zip(arguments["eta"], train.unpack(torch.bool))):
        x = [xi - step * (2 * current[t] - offset) for xi, current, offset in zip(x, dense, arguments["offset"])]
        target = x[0] @ x[1]
        assert torch.equal(spike, v >= target) or ((v - target).abs()[spike != (v >= target)] < BAND).all()
        v = v - step * arguments["scale"] * (2 * spike.float() - 1)
    assert torch.equal(state.v, v)
    assert all(torch.equal(found, wanted) for found, wanted in zip(state.x, x))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("timesteps", [0, 1, 8, 9, 20])
@pytest.mark.parametrize("name", SHAPES)
def test_the_definition(name, timesteps, backend):
    for packed in ((False, False), (True, False), (False, True), (True, True)):
        arguments = call(SHAPES[name], timesteps, packed)
        train, state = run(arguments, backend=backend)
        assert train.shape == arguments["v0"].shape
        assert train.timesteps == timesteps
        if timesteps:
            assert 0 < train.firing_rate() < 1
        assert_follows_the_definition(train, state, arguments)


def multiply_add(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c`` rounded once: float64 holds the product, and a sum that it rounds to an odd last bit, which then
    rounds to float32 as the exact sum would.
    """
    product, c = a.double() * b.double(), c.double()
    total = product + c
    added = total - product
    rest = (product - (total - added)) + (c - added)
    is_even = (total.view(torch.int64) & 1) == 0
    up_or_down = torch.nextafter(total, rest * float("inf"))
    return torch.where(is_even & (rest != 0) & total.isfinite(), up_or_down, total).float()


def exact_loop(arguments: dict) -> tuple[Tensor, list[Tensor], Tensor]:
    """Spikes, decoded inputs and estimates where a sum runs in the order of the inner dimension, each step rounded."""
    x, v, spikes = list(arguments["bias"]), arguments["v0"], []
    for t, step in enumerate(arguments["eta"]):
        x = [xi - step * (2 * c[t].float() - o) for xi, c, o in zip(x, arguments["currents"], arguments["offset"])]
        target = torch.zeros_like(v)
        for k in range(x[0].shape[-1]):
            target = multiply_add(x[0][..., k : k + 1], x[1][..., k : k + 1, :], target)
        spikes.append(v >= target)
        v = v - step * arguments["scale"] * (2 * spikes[-1].float() - 1)
    return torch.stack(spikes), x, v


def assert_exact(train: SpikeTrain, state: NeuronState, arguments: dict) -> None:
    spikes, x, v = exact_loop(arguments)
    assert torch.equal(train.unpack(torch.bool), spikes)
    assert torch.equal(state.v, v)
    assert all(torch.equal(found, wanted) for found, wanted in zip(state.x, x))


# Less than a tile of the product and several, in rows, inner dimension and columns.
SIZES = [(1, 1, 1), (7, 17, 16), (13, 16, 33), (6, 33, 64), (12, 5, 65), (25, 70, 131)]


@pytest.mark.parametrize("batch", [(), (1,), (2, 2)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_sum_of_the_cpu_is_in_order(size, batch, three_threads):
    rows, inner, columns = size
    arguments = call(((*batch, rows, inner), (*batch, inner, columns)), 10)
    for dtype in DTYPES:
        given = {**arguments, "currents": [current.to(dtype) for current in arguments["currents"]]}
        assert_exact(*run(given, backend="cpu"), given)


LAYOUTS = {
    "rows": lambda x: x.contiguous(),
    "columns": lambda x: x.mT.contiguous().mT,
    "heads": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "heads in columns": lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "scattered": lambda x: torch.stack([x, x.flip(-1)], -1)[..., 0],
}


@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_layouts(of_a, of_b, three_threads):
    arguments = call(((3, 13, 18), (3, 18, 21)), 11)
    a, b = arguments["currents"]
    given = {**arguments, "currents": [LAYOUTS[of_a](a), LAYOUTS[of_b](b)]}
    assert_exact(*run(given, backend="cpu"), arguments)
    trains = {**call(((3, 13, 18), (3, 18, 21)), 11, (True, True)), "amplitude": (0.7, seeded(18, 21))}
    moved = [SpikeTrain(LAYOUTS[of](t.bytes), 11) for of, t in zip((of_a, of_b), trains["currents"])]
    dense = [t.unpack() * worth for t, worth in zip(trains["currents"], trains["amplitude"])]
    assert_exact(*run({**trains, "currents": moved}, backend="cpu"), {**trains, "currents": dense})


def test_special_numbers():
    arguments = call(((2, 7, 9), (2, 9, 17)), 9)
    arguments["currents"][0][3, 0, 2, 4] = float("nan")
    arguments["currents"][1][2, 1, 5, 3] = float("inf")
    train, state = run(arguments, backend="cpu")
    spikes, x, v = exact_loop(arguments)
    assert torch.equal(train.unpack(torch.bool), spikes)
    torch.testing.assert_close((*state.x, state.v), (*x, v), rtol=0, atol=0, equal_nan=True)


def outputs():
    for rows, inner, columns in SIZES:
        train, state = run(call(((2, rows, inner), (2, inner, columns)), 11, (True, False)), backend="cpu")
        yield from (train.bytes, *state.x, state.v)
    yield from on_the_edge()


def on_the_edge() -> tuple[Tensor, Tensor]:
    """The spikes of ``c + a b`` at estimates that are its value, rounded once, and the next smaller float.

    The products lie next to halves of a unit of ``c``, so near that float64 loses it: two roundings would give another
    number.
    """
    unit = 2.0**-23
    near_half = [(2**-12 * (1 + m * unit), 2**-12 * (1 - n * unit)) for m in (1, 2, 3, 5) for n in (1, 2, 3, 4)]
    # c, a, b; the last ones' results are denormal.
    cases = [(c, sign * a, b) for c in (1.0, 1 + unit, 2 - unit) for a, b in near_half for sign in (1, -1)]
    cases += [(c * 2.0**-126, sign * a * 2.0**-60, b * 2.0**-66) for c, a, b in cases[::5] for sign in (1, -1)]
    cases += [(3 * 2.0**-149, 2.0**-75 * (1 + unit), sign * 2.0**-75) for sign in (1, -1)]
    values = torch.tensor([rounded(Fraction(c) + Fraction(a) * Fraction(b)) for c, a, b in cases])
    c, a, b = torch.tensor(cases).unbind(1)
    ones = torch.ones_like(c)
    left, right = torch.stack([c, a], 1)[:, None], torch.stack([ones, b], 1)[:, :, None]
    fired = []
    for v0 in (values, values.nextafter(torch.tensor(-float("inf")))):
        still = (torch.zeros(1, *left.shape), torch.zeros(1, *right.shape))
        train, _ = signgd_matmul(*still, torch.zeros(1), bias=(left, right), v0=v0[:, None, None], backend="cpu")
        fired.append(train.bytes.flatten())
    return tuple(fired)


def rounded(exact: Fraction) -> float:
    """The nearest float32, to even where two are."""
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(end)) for end in ("-inf", "inf")]
    return float(min([near, *around], key=lambda f: (abs(Fraction(float(f)) - exact), f.view(np.uint32) & 1)))


def test_a_sum_is_rounded_once():
    at, below = on_the_edge()
    assert at.all()
    assert not below.any()


def test_every_instruction_set_gives_the_same_bits():
    assert_instruction_sets_agree(outputs)


@pytest.mark.parametrize("limit", [1, 300, 3000])
@pytest.mark.parametrize("name", SHAPES)
def test_parts_of_a_product_of_pytorch(name, limit, monkeypatch):
    """One sample after the other and eight steps after the other, of operands that all samples share too."""
    apart = sys.modules["snn_kernels.ops.matmul.apart"]
    monkeypatch.setattr(apart, "AT_ONCE", limit)
    for packed in ((False, False), (True, False)):
        arguments = call(SHAPES[name], 20, packed)
        scale = torch.full((1,) * arguments["v0"].ndim, 0.5)
        shared = {**arguments, "offset": (0.3, seeded(1, 1)), "scale": scale, "bias": (0.1, seeded(1))}
        for given in (arguments, shared):
            values = [c.bytes if isinstance(c, SpikeTrain) else c for c in given["currents"]]
            of = [
                [torch.as_tensor(1.0 if field is None else field) for field in fields]
                for fields in zip(given["amplitude"], given["offset"], given["bias"])
            ]
            scale = torch.as_tensor(given["scale"])
            out = apart.signgd_matmul_apart(*values, given["eta"], *of, scale, given["v0"], "cpu")
            shapes = [x.shape for x in arguments["bias"]]
            full = {k: [torch.as_tensor(f).expand(s) for f, s in zip(given[k], shapes)] for k in ("offset", "bias")}
            found = SpikeTrain(out[0], 20), NeuronState(tuple(out[1:3]), out[3])
            assert_follows_the_definition(*found, {**given, **full})


def test_state_continues():
    arguments = call(SHAPES["batches"], 19, (True, False))
    whole, state = run(arguments)
    train, dense = arguments["currents"]
    first = {**arguments, "currents": [SpikeTrain(train.bytes[:1], 8), dense[:8]], "eta": arguments["eta"][:8]}
    rest = {**arguments, "currents": [SpikeTrain(train.bytes[1:], 11), dense[8:]], "eta": arguments["eta"][8:]}
    before, between = run(first)
    after, end = run(rest, state=between)
    assert torch.equal(torch.cat([before.bytes, after.bytes]), whole.bytes)
    assert torch.equal(end.v, state.v)
    assert all(torch.equal(a, b) for a, b in zip(end.x, state.x))


def test_half_precision_and_compile():
    a, b, eta = seeded(9, 4, 6).bfloat16(), seeded(9, 6, 5).bfloat16(), schedules.Exponential().table(9)

    def network(a: Tensor, b: Tensor) -> Tensor:
        return signgd_matmul(a, b, eta)[0].unpack() + 1

    wanted = signgd_matmul(a.float(), b.float(), eta)[0].unpack() + 1
    assert torch.equal(network(a, b), wanted)
    assert torch.equal(torch.compile(network, fullgraph=True, backend="aot_eager")(a, b), wanted)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_opcheck(backend):
    eta, one = schedules.Exponential().table(9), torch.ones(())
    for a in (seeded(9, 3, 4, 6), pack(seeded(9, 3, 4, 6) > 0).bytes):
        arguments = (a, seeded(9, 6, 5), 9, eta, [one, one, one], [one, one, one], one, one, backend)
        torch.library.opcheck(torch.ops.snn_kernels.signgd_matmul.default, arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"current_a": torch.zeros(3, 5)}, ValueError, r"current_a: expected \[T, \*batch, rows, columns\]"),
        ({"current_b": torch.zeros(3, 5, 5)}, ValueError, r"current_b: expected matrices that those of current_a"),
        ({"current_b": torch.zeros(4, 4, 5)}, ValueError, "current_b: expected 3 steps on cpu, as current_a has"),
        ({"eta": torch.zeros(4)}, ValueError, r"eta: expected shape \(3,\)"),
        ({"current_b": torch.zeros(3, 4, 5).int()}, TypeError, "current_b: expected a float32"),
        ({"offset": 1.0}, TypeError, "offset: expected a pair"),
        ({"amplitude": (None, 0.5)}, ValueError, "amplitude: expected None where current_b is no SpikeTrain"),
        ({"scale": torch.zeros(4)}, ValueError, r"scale: expected a shape that broadcasts to \(2, 5\)"),
        ({"bias": (torch.zeros(3), 0.0)}, ValueError, r"bias: expected a shape that broadcasts to \(2, 4\)"),
        ({"state": (1, 2)}, TypeError, "state: expected a NeuronState"),
        ({"backend": "tpu"}, ValueError, "backend: expected None or one of"),
    ],
)
def test_errors(change, error, message):
    given = {"current_a": torch.zeros(3, 2, 4), "current_b": torch.zeros(3, 4, 5), "eta": torch.zeros(3), **change}
    with pytest.raises(error, match=message):
        signgd_matmul(**given)
