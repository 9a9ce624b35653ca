"""Neurons that chase the product of two decoded matrices, against the loop of their definition."""

import sys

import pytest
import torch
from torch import Tensor

from signgd_helpers import seeded
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


@pytest.mark.parametrize("limit", [1, 300, 3000])
@pytest.mark.parametrize("name", SHAPES)
def test_parts_that_fit_a_cache(name, limit, monkeypatch):
    """One sample after the other and eight steps after the other, of operands that all samples share too."""
    monkeypatch.setitem(sys.modules["snn_kernels.ops.matmul"].AT_ONCE, "cpu", limit)
    for packed in ((False, False), (True, False)):
        arguments = call(SHAPES[name], 20, packed)
        assert_follows_the_definition(*run(arguments), arguments)
        shared = {**arguments, "offset": (0.3, seeded(1, 1)), "scale": 0.5, "bias": (0.1, seeded(1))}
        train, state = run(shared)
        full = {
            "offset": [torch.as_tensor(o).expand(b.shape) for o, b in zip(shared["offset"], arguments["bias"])],
            "bias": [torch.as_tensor(x).expand(b.shape) for x, b in zip(shared["bias"], arguments["bias"])],
        }
        assert_follows_the_definition(train, state, {**shared, **full})


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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"current_a": torch.zeros(3, 5)}, ValueError, r"current_a: expected \[T, \*batch, rows, columns\]"),
        ({"current_b": torch.zeros(3, 5, 5)}, ValueError, r"current_b: expected matrices that those of current_a"),
        ({"current_b": torch.zeros(4, 4, 5)}, ValueError, r"eta: expected shape \(4,\)"),
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
