"""Momentum, subgradient and integrate-and-fire neurons on the CPU, and what the papers prove of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_models import CALLS, assert_same_outcome, currents, state_tensors
from signgd_helpers import DTYPES, SIZES, STEPS, seeded
from snn_kernels import (
    NeuronState,
    integrate_and_fire,
    leaky_integrate_and_fire,
    schedules,
    signgd,
    subgradient,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_the_bits_of_the_reference(name, dtype):
    current = currents(33, 501, dtype=dtype)
    outcome = CALLS[name](current, backend="cpu")
    assert_same_outcome(outcome, CALLS[name](current, backend="reference"))
    assert 0 < outcome[0].firing_rate() < 1


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("timesteps", STEPS)
def test_odd_sizes_and_lengths(timesteps, name):
    for size in (0, *SIZES):
        current = currents(timesteps, size)
        outcome = CALLS[name](current, backend="cpu")
        assert outcome[0].bytes.shape == ((timesteps + 7) // 8, size)
        assert_same_outcome(outcome, CALLS[name](current, backend="reference"))


@pytest.mark.parametrize("name", CALLS)
def test_views_and_memory_formats(name):
    current = currents(11, 4, 10, 6)[:, :, 1:9:2]
    for view in (current, current.permute(0, 2, 3, 1), current[..., 1:].transpose(1, 3)):
        assert_same_outcome(CALLS[name](view, backend="cpu"), CALLS[name](view.contiguous(), backend="reference"))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", [name for name in CALLS if "divide" not in name and "maximum" not in name])
def test_a_train_cut_anywhere_continues(name, backend):
    current = currents(19, 7)
    eta = schedules.Inverse(1.0, start=2).table(19)
    whole, state = CALLS[name](current, eta, backend=backend)
    for cut in (0, 1, 8, 13):
        first, between = CALLS[name](current[:cut], eta[:cut], backend=backend)
        second, after = CALLS[name](current[cut:], eta[cut:], state=between, backend=backend)
        assert torch.equal(torch.cat([first.unpack(), second.unpack()]), whole.unpack())
        assert all(torch.equal(a, b) for a, b in zip(state_tensors(after), state_tensors(state), strict=True))


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(CALLS)),
    values=st.lists(st.floats(width=32), min_size=12, max_size=12),
    timesteps=st.sampled_from([1, 2, 3, 4]),
)
def test_any_currents(name, values, timesteps):
    """NaN, infinities and denormals included."""
    current = torch.tensor(values).reshape(timesteps, -1)
    assert_same_outcome(CALLS[name](current, backend="cpu"), CALLS[name](current, backend="reference"))


@pytest.mark.parametrize("call", [subgradient, integrate_and_fire, leaky_integrate_and_fire])
def test_operands_broadcast(call):
    current = currents(9, 2, 3, 5)
    first = {subgradient: (schedules.Constant(0.5).table(9),), leaky_integrate_and_fire: (2.0,)}.get(call, ())
    worth = "scale" if call is subgradient else "threshold"
    for shape in ((), (5,), (3, 1), (2, 1, 1), (2, 3, 5)):
        options = {worth: seeded(*shape).abs() + 0.1, "v0": seeded(*shape, seed=1)}
        if call is not subgradient:
            options["reset"] = seeded(*shape, seed=2)
        outcomes = [call(current, *first, **options, backend=backend) for backend in ("cpu", "reference")]
        assert_same_outcome(*outcomes)


def test_without_momentum_it_is_the_plain_neuron():
    """The filter of momentum 0 gives the gradient itself; here it is asked of the reference, which has one step."""
    current, eta = currents(17, 40), schedules.Exponential().table(17)
    plain, state = signgd(current, eta, "relu", backend="reference")
    tiny, after = signgd(current, eta, "relu", momentum=1e-30, backend="reference")
    assert torch.equal(plain.bytes, tiny.bytes)
    assert torch.equal(state.v, after.v)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_that_of_torch_optim(nesterov):
    """The estimate descends as torch.optim.SGD does along the same signs."""
    current, eta = currents(12, 30), schedules.Constant(0.125).table(12)
    train, state = signgd(current, eta, "relu", momentum=0.5, nesterov=nesterov, backend="cpu")
    estimate = torch.nn.Parameter(torch.zeros(30))
    optimiser = torch.optim.SGD([estimate], lr=0.125, momentum=0.5, nesterov=nesterov)
    for spike in train.unpack():
        estimate.grad = 2 * spike - 1
        optimiser.step()
    # Steps, momentum and signs are powers of two, so that both are exact in float32.
    assert torch.equal(state.v, estimate.detach())


@pytest.mark.parametrize("options", [{}, {"momentum": 0.75}, {"momentum": 0.75, "nesterov": True}], ids=str)
def test_a_receiver_decodes_its_sender(options):
    """x = L(v) at every step: the receiver's input is the affine map of the sender's estimate, with momentum too."""
    weight, eta = seeded(6, 4), schedules.Exponential(0.3, 0.9).table(20)
    sender, state = signgd(currents(20, 4), eta, "relu", **options)
    current = sender.unpack() @ weight.T
    _, receiver = signgd(current, eta, "relu", offset=weight.sum(1), **options)
    # Float32 rounding of 20 sums of about 1.
    torch.testing.assert_close(receiver.x, weight @ state.v, atol=2e-5, rtol=0)


def delayed(current: torch.Tensor) -> torch.Tensor:
    """Currents that arrive a step after they were sent."""
    return torch.cat([torch.zeros_like(current[:1]), current[:-1]])


@pytest.mark.parametrize("seed", range(5))
def test_if_with_rate_coding_is_the_subgradient_method(seed):
    """Oh & Lee 2024: eta = 1 / (t + 1), through a random network of three layers, in float64 beside the kernels.

    Layer by layer, the spikes are those of running means that descend along a subgradient of relu(x - y) + y^2 / 2.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(n, k, generator=generator, dtype=torch.float64) / k**0.5 for n, k in ((20, 8), (20, 20))]
    current = torch.rand(64, 8, generator=generator, dtype=torch.float64)
    for weight in (*weights, None):
        train, _ = integrate_and_fire(delayed(current).float(), v0=1.0)
        spikes, means = train.unpack(torch.float64), torch.zeros(2, current.shape[1], dtype=torch.float64)
        for t, (now, fired) in enumerate(zip(current, spikes)):
            x, y = means
            # Sums of 64 float32 terms around 1: nothing closer to the threshold than this is decided by the method.
            sure = ((x - y) * t).abs() > 1e-4
            assert t == 0 or sure.float().mean() > 0.5
            assert torch.equal(fired.bool()[sure], (x > y)[sure])
            eta = 1 / (t + 1)
            means = torch.stack([x - eta * (x - now), y - eta * (y - fired)])
        if weight is not None:
            current = spikes @ weight.T


@pytest.mark.parametrize("tau", [1.5, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_lif_with_ema_coding_is_the_subgradient_method(seed, tau):
    """Oh & Lee 2024: constant eta = 1 / tau, through a random network of three layers; both are the kernels."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(n, k, generator=generator) / k**0.5 for n, k in ((20, 8), (20, 20))]
    current = torch.rand(64, 8, generator=generator)
    threshold = 1 / (tau - 1)
    for weight in (*weights, None):
        lif, _ = leaky_integrate_and_fire(current, tau, threshold=threshold, rest=threshold, v0=threshold)
        method, _ = subgradient(current, schedules.Constant(1 / tau).table(64))
        v = torch.zeros(current.shape[1], dtype=torch.float64)
        x, decided = torch.zeros_like(v), torch.ones_like(v, dtype=torch.bool)
        for now, fired, step in zip(current.double(), lif.unpack(torch.float64), method.unpack(torch.float64)):
            x = x - (x - now) / tau
            # Float32 rounding over 64 steps of a leaking sum: closer than this either may fire, and they part.
            decided &= (x - v).abs() > 1e-5
            assert torch.equal(fired[decided], step[decided])
            v = v - (v - fired) / tau
        assert decided.float().mean() > 0.5
        if weight is not None:
            current = lif.unpack() @ weight.T


def test_the_subgradient_neuron_tracks_a_clipped_input():
    """With eta = 1 / (t + 2) the estimate reaches clip(x, 0, scale) to about 1 / T."""
    x = torch.linspace(-1, 3, 41)
    eta = schedules.Inverse(1.0, start=2).table(512)
    _, state = subgradient(x.expand(512, -1), eta, bias=0.0, scale=2.0)
    assert (state.v - x.clamp(0, 2)).abs().max() < 2 * 4 / 512


ETA = schedules.Constant(0.5).table(3)
CURRENT = torch.zeros(3, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: subgradient(CURRENT, ETA[:2]), ValueError, r"eta: expected shape \(3,\)"),
        (lambda: subgradient(CURRENT.int(), ETA), TypeError, "current: expected a float32"),
        (lambda: subgradient(CURRENT, ETA, momentum=1.0), ValueError, r"momentum: expected a number in \[0, 1\)"),
        (lambda: subgradient(CURRENT, ETA, nesterov=True), ValueError, "nesterov: expected a momentum above 0"),
        (lambda: subgradient(CURRENT, ETA, bias=torch.zeros(4)), ValueError, "bias: expected a shape"),
        (lambda: integrate_and_fire(CURRENT, reset="harder"), ValueError, "reset: expected 'soft', 'hard' or a value"),
        (lambda: integrate_and_fire(CURRENT, threshold="x"), TypeError, "threshold: expected a number or a tensor"),
        (lambda: integrate_and_fire(CURRENT, state=torch.zeros(5)), TypeError, "state: expected a NeuronState"),
        (lambda: leaky_integrate_and_fire(CURRENT, 0.5), ValueError, "tau: expected a number of at least 1"),
        (lambda: leaky_integrate_and_fire(torch.zeros(()), 2.0), ValueError, r"current: expected \[T"),
        (
            lambda: signgd(CURRENT, ETA, "relu", state=NeuronState(CURRENT[0], CURRENT[0]), momentum=0.5),
            ValueError,
            "state: expected one of a call with momentum=0.5, got one without momentum",
        ),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["subgradient, Nesterov", "LIF", "IF, reset to a value"])
def test_compiles_and_exports(name):
    def network(current: torch.Tensor) -> tuple:
        train, state = CALLS[name](current)
        return 2 * train.unpack(), state.v

    current = currents(9, 3, 4)
    expected = network(current)
    for made in (torch.compile(network, fullgraph=True, backend="aot_eager"), _exported(network, current)):
        assert all(torch.equal(a, b) for a, b in zip(made(current), expected))


def _exported(network, current: torch.Tensor):
    class Module(torch.nn.Module):
        def forward(self, current):
            return network(current)

    return torch.export.export(Module(), (current,)).module()
