"""Neurons that chase a softmax or a normalisation: the reference's spikes, each flip within the derived band."""

import pytest
import torch
import torch.nn.functional as F

from signgd_helpers import DTYPES, STEPS, assert_instruction_sets_agree, seeded
from snn_kernels import NeuronState, pack, schedules, signgd_vector
from snn_kernels.ops.vector import vector_band
from snn_kernels.ops.vector.reference import VECTOR_TARGETS

BATCH, LENGTHS = (3, 2), (1, 7, 16, 63, 500)


def case(name: str, length: int):
    """A function with its parameters, and the same as ``a``, ``b`` and ``eps`` of its definition."""
    weight, bias = seeded(length, seed=7), seeded(length, seed=8)
    keep = (seeded(BATCH[0], 1, length, seed=9) > -0.5).float()
    zero = torch.zeros(())
    return {
        "softmax": (("softmax",), torch.ones(()), zero, 0.0),
        "masked softmax": (("softmax", keep), keep, zero, 0.0),
        "layer_norm": (("layer_norm", weight, bias, 1e-3), weight, bias, 1e-3),
        "rms_norm": (("rms_norm", weight, 1e-3), weight, zero, 1e-3),
    }[name]


CASES = ["softmax", "masked softmax", "layer_norm", "rms_norm"]


def arguments(length: int, timesteps: int, dtype=torch.float32) -> dict:
    return {
        "current": seeded(timesteps, *BATCH, length).to(dtype),
        "eta": schedules.Exponential(0.4, 0.9).table(timesteps),
        "offset": 0.3 * seeded(length, seed=1),
        "bias": seeded(*BATCH, length, seed=2),
        "scale": seeded(length, seed=3).abs() + 0.1,
        "v0": 0.1 * seeded(*BATCH, 1, seed=4),
    }


def assert_flips_are_crossings(name: str, length: int, train, state, current, eta, offset, bias, scale, v0) -> None:
    """Replay the run from its own spikes; the real ``h(x)``, in float64, decides each of them up to the band."""
    (function, *_), a, b, eps = case(name, length)
    shape = current.shape[1:]
    x, v = bias.expand(shape), v0.expand(shape)
    for now, step, spike in zip(current.float(), eta, train.unpack(torch.bool)):
        x = x - step * (2 * now - offset)
        exact = x.double()
        h = VECTOR_TARGETS[function](exact, a.double(), b.double(), eps)
        crossing = (v.double() - h).abs() <= vector_band(function, exact, h, a.double(), b.double(), eps)
        assert ((spike == (v >= h)) | crossing).all(), name
        v = v - step * scale * (2 * spike.float() - 1)
    assert torch.equal(x, state.x)
    assert torch.equal(v, state.v)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", LENGTHS)
def test_every_flip_is_a_crossing(length, name, backend):
    for dtype in DTYPES:
        call = arguments(length, 33, dtype)
        current, eta = call["current"], call["eta"]
        rest = {key: value for key, value in call.items() if key not in ("current", "eta")}
        train, state = signgd_vector(current, eta, case(name, length)[0], **rest, backend=backend)
        assert_flips_are_crossings(name, length, train, state, **call)


def train_as_its_currents(name: str, length: int, timesteps: int, backend: str, device: str = "cpu") -> None:
    """A packed train gives what the currents that its spikes are worth give, to the bit."""
    call = {key: value.to(device) for key, value in arguments(length, timesteps).items()}
    current, eta = call.pop("current"), call.pop("eta")
    function = tuple(part.to(device) if torch.is_tensor(part) else part for part in case(name, length)[0])
    # Every other vector of a longer train: byte groups that do not lie side by side.
    train, amplitude = pack(current.repeat(1, 2, 1, 1) > 0)[::2], seeded(length, seed=6).to(device)
    packed, state = signgd_vector(train, eta, function, amplitude=amplitude, **call, backend=backend)
    wanted, wanted_state = signgd_vector(train.unpack() * amplitude, eta, function, **call, backend=backend)
    assert torch.equal(packed.bytes, wanted.bytes)
    assert torch.equal(state.x, wanted_state.x)
    assert torch.equal(state.v, wanted_state.v)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_a_train_is_read_as_its_currents(name, backend):
    for length in LENGTHS:
        for timesteps in (1, 8, 19):
            train_as_its_currents(name, length, timesteps, backend)


@pytest.mark.parametrize("timesteps", STEPS)
def test_lengths_of_time_and_empty_batches(timesteps):
    for shape in ((4, 7), (0, 7), (2, 0, 5)):
        train, state = signgd_vector(seeded(timesteps, *shape), torch.full((timesteps,), 0.1), "softmax", backend="cpu")
        assert train.bytes.shape == ((timesteps + 7) // 8, *shape)
        assert state.v.shape == shape


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_train_cut_anywhere_continues(backend):
    call = arguments(63, 19)
    current, eta = call.pop("current"), call.pop("eta")
    whole, state = signgd_vector(current, eta, "layer_norm", **call, backend=backend)
    for cut in (0, 1, 8, 13):
        first, between = signgd_vector(current[:cut], eta[:cut], "layer_norm", **call, backend=backend)
        rest = {key: call[key] for key in ("offset", "scale")}
        second, after = signgd_vector(current[cut:], eta[cut:], "layer_norm", **rest, state=between, backend=backend)
        assert torch.equal(torch.cat([first.unpack(), second.unpack()]), whole.unpack())
        assert torch.equal(after.v, state.v)


def test_strided_currents_and_threads(three_threads):
    current, eta = seeded(9, 5, 8, 40), schedules.Exponential().table(9)
    for view in (current[..., ::2], current.transpose(1, 2), current[:, ::2, 1:, 3:]):
        found = signgd_vector(view, eta, "softmax", backend="cpu")
        expected = signgd_vector(view.contiguous(), eta, "softmax", backend="cpu")
        assert torch.equal(found[0].bytes, expected[0].bytes)
        assert torch.equal(found[1].v, expected[1].v)


@pytest.mark.parametrize("name", CASES)
def test_estimates_arrive(name):
    """With a constant input the neurons reach what torch computes."""
    length, timesteps = 48, 200
    x, eta = seeded(*BATCH, length, seed=5), schedules.Exponential(0.3, 0.96).table(timesteps)
    function, a, b, eps = case(name, length)
    _, state = signgd_vector(torch.zeros(timesteps, *BATCH, length), eta, function, offset=0.0, bias=x)
    expected = {
        "softmax": lambda: torch.softmax(x, -1),
        "masked softmax": lambda: torch.softmax(x.masked_fill(a == 0, -torch.inf), -1),
        "layer_norm": lambda: F.layer_norm(x, (length,), a, b, eps),
        "rms_norm": lambda: F.rms_norm(x, (length,), a, eps),
    }[name]()
    reach = eta.sum()  # an estimate cannot travel further
    assert expected.abs().max() < reach
    # The last steps are 1e-4 long.
    torch.testing.assert_close(state.v, expected, atol=3e-4, rtol=0)


def outputs():
    for name in CASES:
        for length in (1, 16, 500, 1203):
            call = arguments(length, 11)
            function = case(name, length)[0]
            train, state = signgd_vector(call.pop("current"), call.pop("eta"), function, **call, backend="cpu")
            yield from (train.bytes, state.v)


def test_every_instruction_set_gives_the_same_bits():
    assert_instruction_sets_agree(outputs)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"function": "softplus"}, ValueError, "function: expected one of softmax, layer_norm, rms_norm"),
        ({"function": ("softmax", 1.0, 2.0)}, ValueError, "function: softmax takes 1 parameters, got 2"),
        ({"function": None}, TypeError, "function: expected a name or a tuple of a name and parameters, got None"),
        ({"function": ()}, TypeError, r"function: expected a name or a tuple of a name and parameters, got \(\)"),
        ({"function": (["softmax"],)}, ValueError, r"function: expected one of .*; got \['softmax'\]"),
        ({"function": ("rms_norm", 1.0, torch.ones(()))}, TypeError, "rms_norm's eps: expected a number"),
        ({"function": ("layer_norm", torch.ones(4))}, ValueError, "layer_norm's weight: expected a shape that"),
        ({"function": ("layer_norm", 1.0, torch.ones(4))}, ValueError, "layer_norm's bias: expected a shape that"),
        ({"bias": torch.ones(4)}, ValueError, "bias: expected a shape that"),
        ({"current": torch.zeros(3)}, ValueError, r"current: expected \[T, \*batch, D\]"),
        ({"state": NeuronState(torch.zeros(5), torch.zeros(4))}, ValueError, "state.v: expected a shape"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    call = {"current": torch.zeros(3, 5), "eta": torch.zeros(3), "function": "softmax", **change}
    with pytest.raises(error, match=f"^{message}"):
        signgd_vector(**call)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_opcheck_and_compile(backend):
    current, eta, one = seeded(9, 2, 6), schedules.Exponential().table(9), torch.ones(6)
    call = (current, 9, eta, "layer_norm", one, one, one, one, one, 1e-5, one, one, backend)
    torch.library.opcheck(torch.ops.snn_kernels.signgd_vector.default, call)

    def network(current: torch.Tensor) -> torch.Tensor:
        return signgd_vector(current, eta, "softmax", backend=backend)[0].unpack() + 1

    assert torch.equal(torch.compile(network, fullgraph=True, backend="aot_eager")(current), network(current))
