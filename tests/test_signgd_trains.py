"""signGD neurons that read packed trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

import snn_kernels as sk
from signgd_helpers import EXACT, Run, assert_instruction_sets_agree, assert_same, seeded
from snn_kernels import ACTIVATIONS, SpikeTrain, schedules

TIMESTEPS = (0, 1, 7, 8, 9, 33)


def random_train(timesteps: int, *shape: int, seed: int = 0) -> SpikeTrain:
    return sk.pack(seeded(timesteps, *shape, seed=seed) > 0)


def calls(name: str, sizes: Sequence[int], timesteps: Sequence[int] = (1, 9, 17)) -> Iterator[dict]:
    """Arguments of :func:`run`: an amplitude for each neuron, for each channel and for all."""
    inputs = range(ACTIVATIONS[name].arity)
    for steps in timesteps:
        for size in sizes:
            worth = (seeded(3, size, seed=5), seeded(3, 1, seed=6).abs(), 0.7)
            yield {
                "name": name,
                "received": [random_train(steps, 3, size, seed=k) for k in inputs],
                "amplitude": [worth[(k + size) % 3] for k in inputs],
                "eta": schedules.Exponential(0.4, 0.9).table(steps),
                "offset": [0.3 * seeded(size, seed=10 + k) for k in inputs],
                "bias": [seeded(3, size, seed=20 + k).abs() + 0.5 for k in inputs],
                "scale": seeded(size, seed=30).abs() + 0.1,
            }


def run(name: str, received: list, eta: torch.Tensor, **options) -> Run:
    """Of one input or of two, whose arguments are given in lists."""
    if len(received) == 2:
        pairs = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        train, state = sk.signgd_binary(*received, eta, name, **pairs)
        return Run(train.bytes, state.x, state.v, train.unpack(torch.bool))
    singles = {key: value[0] if isinstance(value, list) else value for key, value in options.items()}
    train, state = sk.signgd(*received, eta, name, **singles)
    return Run(train.bytes, (state.x,), state.v, train.unpack(torch.bool))


def dense(received: list[SpikeTrain], amplitude: list) -> list[torch.Tensor]:
    return [train.unpack() * worth for train, worth in zip(received, amplitude)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_train_is_its_currents(name, three_threads):
    """More neurons than a tile has, too."""
    for arguments in calls(name, (1, 7, 500, 1400), TIMESTEPS):
        unpacked = {**arguments, "received": dense(arguments["received"], arguments["amplitude"])}
        del unpacked["amplitude"]
        assert_same(run(**arguments), run(**unpacked))
        if name in EXACT:
            assert_same(run(**arguments, backend="reference"), run(**unpacked))


@pytest.mark.parametrize("momentum", [{"momentum": 0.5}, {"momentum": 0.9, "nesterov": True}])
def test_with_momentum(momentum):
    for arguments in [*calls("relu", (63,)), *calls("maximum", (63,))]:
        unpacked = {**arguments, "received": dense(arguments["received"], arguments["amplitude"])}
        del unpacked["amplitude"]
        assert_same(run(**arguments, **momentum), run(**unpacked, **momentum))


def test_views_of_trains():
    """Slices, other orders in memory, and the state carried on from the middle of a train."""
    image = random_train(24, 2, 6, 9, 7)
    views = [
        image.bytes[..., ::2, 1::2],
        image.bytes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        image.bytes[:, :1].expand(-1, 2, -1, -1, -1),
        image.bytes.flip(2),
    ]
    eta, worth = schedules.Exponential(0.4, 0.9).table(24), seeded(6, 1, 1).abs()
    for view in views:
        train, current = SpikeTrain(view, 24), SpikeTrain(view, 24).unpack() * worth
        options = {"offset": 0.7, "scale": seeded(6, 1, 1, seed=2).abs()}
        whole, state = sk.signgd(train, eta, "gelu", amplitude=worth, **options)
        wanted, expected = sk.signgd(current, eta, "gelu", **options)
        assert torch.equal(whole.bytes, wanted.bytes)
        assert torch.equal(state.v, expected.v)
        first, state = sk.signgd(SpikeTrain(view[:1], 8), eta[:8], "gelu", amplitude=worth, **options)
        rest, state = sk.signgd(
            SpikeTrain(view[1:], 16), eta[8:], "gelu", amplitude=worth, offset=0.7, scale=options["scale"], state=state
        )
        assert torch.equal(torch.cat([first.bytes, rest.bytes]), wanted.bytes)
        assert torch.equal(state.v, expected.v)


def test_a_spike_is_worth_one_by_default():
    train, eta = random_train(9, 5), schedules.Exponential().table(9)
    assert torch.equal(sk.signgd(train, eta, "relu")[0].bytes, sk.signgd(train.unpack(), eta, "relu")[0].bytes)
    one, _ = sk.signgd_binary(train, train, eta, "maximum", amplitude=(None, 2.0))
    other, _ = sk.signgd_binary(train, train, eta, "maximum", amplitude=(1.0, 2.0))
    assert torch.equal(one.bytes, other.bytes)


def test_compiles_whole():
    def layer(train: SpikeTrain) -> SpikeTrain:
        return sk.signgd_binary(train, train, eta, "multiply", amplitude=(0.5, worth))[0]

    train, eta, worth = random_train(9, 5, 4), schedules.Exponential().table(9), seeded(4)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(train).bytes, layer(train).bytes)


def runs() -> list[torch.Tensor]:
    return [
        part for name in ("relu", "gelu", "maximum") for call in calls(name, (70, 1400)) for part in run(**call)[::2]
    ]


def test_instruction_sets_agree():
    assert_instruction_sets_agree(runs)


@pytest.mark.parametrize(
    ("received", "amplitude", "error", "message"),
    [
        ((torch.zeros(9, 5),), 1.0, ValueError, "amplitude: expected None where current is no SpikeTrain"),
        ((random_train(9, 5),), torch.ones(4), ValueError, r"amplitude: expected a shape that broadcasts to \(5,\)"),
        ((random_train(9, 5), torch.zeros(9, 5)), (1.0, None), ValueError, "current_b: expected a train of the shape"),
        ((torch.zeros(9, 5), random_train(9, 5)), (None, 1.0), ValueError, "current_b: expected currents of the shape"),
        ((random_train(9, 5), random_train(9, 4)), (1.0, 1.0), ValueError, "current_b: expected a train of the shape"),
        ((random_train(9, 5), random_train(10, 5)), (1.0, 1.0), ValueError, "current_b: expected a train of the shape"),
        ((random_train(9, 5), random_train(9, 5)), 1.0, TypeError, "amplitude: expected a pair"),
        ((SpikeTrain(torch.zeros(1, 5, dtype=torch.uint8), 9),), 1.0, ValueError, "bytes: expected"),
    ],
)
def test_errors(received, amplitude, error, message):
    neuron, name = (sk.signgd, "relu") if len(received) == 1 else (sk.signgd_binary, "maximum")
    with pytest.raises(error, match=message):
        neuron(*received, schedules.Exponential().table(9), name, amplitude=amplitude)
