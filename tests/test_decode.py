"""What currents and trains decode to, on the CPU against the reference and against the neurons that decode them."""

import pytest
import torch

from signgd_helpers import DTYPES, SIZES, STEPS, bits, seeded
from snn_kernels import SpikeTrain, decode, pack, schedules, signgd
from test_signgd import memory_formats

BOTH = ["cpu", "reference"]


def eta_of(timesteps: int) -> torch.Tensor:
    return schedules.Exponential(0.5, 0.9).table(timesteps)


def random_train(*shape: int, seed: int = 0) -> SpikeTrain:
    return pack(seeded(*shape, seed=seed) > 0)


def fields_of(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {"offset": seeded(*shape, seed=1), "bias": seeded(*shape, seed=2)}


def same_as_the_reference(current, eta, backend: str = "cpu", **fields) -> torch.Tensor:
    decoded = decode(current, eta, **fields, backend=backend)
    assert decoded.dtype == torch.float32
    assert torch.equal(bits(decoded), bits(decode(current, eta, **fields, backend="reference")))
    return decoded


def every_input(timesteps: int, size: int, backend: str) -> None:
    """Currents of each type and a train, against the reference."""
    fields = fields_of((size,))
    for dtype in DTYPES:
        same_as_the_reference(seeded(timesteps, size).to(dtype), eta_of(timesteps), backend, **fields)
    worth = {"amplitude": seeded(size, seed=3), **fields}
    same_as_the_reference(random_train(timesteps, size), eta_of(timesteps), backend, **worth)


@pytest.mark.parametrize("timesteps", STEPS)
def test_the_bits_of_the_reference(timesteps, three_threads):
    for size in (0, *SIZES, 2047, 2048, 5001):
        every_input(timesteps, size, "cpu")


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1, 1), (2, 1, 1, 7), (2, 3, 5, 7)], ids=str)
def test_operands_broadcast(shape):
    current, train = seeded(9, 2, 3, 5, 7), random_train(9, 2, 3, 5, 7)
    for channels_last in (False, True):
        order = (0, 1, 3, 4, 2)
        if channels_last:
            current = current.permute(order).contiguous().permute(0, 1, 4, 2, 3)
            train = SpikeTrain(train.bytes.permute(order).contiguous().permute(0, 1, 4, 2, 3), 9)
        decoded = same_as_the_reference(current, eta_of(9), **fields_of(shape))
        assert decoded.stride() == current.stride()
        same_as_the_reference(train, eta_of(9), amplitude=seeded(*shape, seed=4), **fields_of(shape))


def test_views():
    for view in memory_formats(seeded(9, 2, 3, 5, 7)).values():
        same_as_the_reference(view, eta_of(9))
    same_as_the_reference(seeded(1, 40).expand(9, 40), eta_of(9))
    same_as_the_reference(random_train(17, 6, 40)[1:5, 3:30:2], eta_of(17), amplitude=0.3)


def test_special_numbers():
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3e38])
    current, offset, bias = torch.cartesian_prod(values, values, values).unbind(1)
    same_as_the_reference(current.expand(2, -1), torch.tensor([0.5, 1.0]), offset=offset, bias=bias)


def test_the_neuron_decodes_the_same():
    current, fields, eta = seeded(11, 3, 50), fields_of((50,)), eta_of(11)
    for given, worth in ((current, {}), (pack(current > 0), {"amplitude": 0.7})):
        dense = current if given is current else given.unpack() * 0.7
        decoded = decode(given, eta, **worth, **fields)
        assert torch.equal(decoded[-1], signgd(dense, eta, "relu", **fields)[1].x)


@pytest.mark.parametrize("backend", BOTH)
def test_a_call_continues_another(backend):
    current, eta = seeded(17, 30), eta_of(17)
    whole = decode(current, eta, bias=0.2, backend=backend)
    first = decode(current[:5], eta[:5], bias=0.2, backend=backend)
    rest = decode(current[5:], eta[5:], bias=first[-1], backend=backend)
    assert torch.equal(torch.cat([first, rest]), whole)


def test_the_decoded_currents_of_a_layer_are_the_layer_of_the_estimates():
    """The invariant of the recurrence: what a receiver decodes of L(spikes) is L of the senders' own estimates."""
    weight, bias, eta = seeded(4, 6) / 3, seeded(4, seed=1), eta_of(24)
    spikes, _ = signgd(seeded(24, 6), eta, "gelu")
    estimate, estimates = torch.zeros(6), []
    for step, spike in zip(eta, spikes.unpack()):
        estimate = estimate - step * (2 * spike - 1)
        estimates.append(estimate)
    offset = torch.ones(6) @ weight.t() + bias + bias
    decoded = decode(spikes.unpack() @ weight.t() + bias, eta, offset=offset, bias=bias)
    torch.testing.assert_close(decoded, torch.stack(estimates) @ weight.t() + bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"current": torch.zeros(3, 5, dtype=torch.int32)}, TypeError, "current: expected a float32"),
        ({"eta": torch.zeros(4)}, ValueError, r"eta: expected shape \(3,\)"),
        ({"amplitude": 0.5}, ValueError, "amplitude: expected None where current is no SpikeTrain"),
        ({"offset": torch.zeros(4)}, ValueError, r"offset: expected a shape that broadcasts to \(5,\)"),
        ({"bias": "0"}, TypeError, "bias: expected a number or a tensor"),
        ({"current": SpikeTrain(torch.zeros(1, 5, dtype=torch.uint8), 9), "eta": torch.zeros(9)}, ValueError, "bytes:"),
        ({"backend": "tpu"}, ValueError, "backend: expected None or one of"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        decode(**{"current": torch.zeros(3, 5), "eta": torch.zeros(3), **change})


@pytest.mark.parametrize("backend", BOTH)
def test_opcheck_and_compile(backend):
    eta, one = eta_of(9), torch.ones(6)
    for values in (seeded(9, 2, 6), random_train(9, 2, 6).bytes):
        torch.library.opcheck(torch.ops.snn_kernels.decode.default, (values, 9, eta, one, one, one, backend))

    def network(current: torch.Tensor) -> torch.Tensor:
        return decode(current, eta, offset=0.5, backend=backend) + 1

    current = seeded(9, 2, 6)
    assert torch.equal(torch.compile(network, fullgraph=True, backend="aot_eager")(current), network(current))
