"""Parallel spiking neurons: the reference's bits on the CPU, and what their papers prove."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from signgd_helpers import DTYPES, SIZES, STEPS, seeded
from snn_kernels import integrate_and_fire, parallel_spikes, parallel_spiking_neuron

BOTH = ["cpu", "reference"]


def same_bits(current, backend="cpu", **options):
    train = parallel_spikes(current, backend=backend, **options)
    assert torch.equal(train.bytes, parallel_spikes(current, backend="reference", **options).bytes)
    weight, threshold = (part.to(current.device) for part in mixing(len(current)))
    mixed = parallel_spiking_neuron(current, weight, threshold, backend=backend)
    assert torch.equal(mixed.bytes, parallel_spiking_neuron(current, weight, threshold, backend="reference").bytes)
    return train, mixed


def mixing(timesteps: int):
    return seeded(timesteps, timesteps, seed=3), seeded(timesteps, seed=4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("timesteps", STEPS)
def test_the_bits_of_the_reference(timesteps, dtype):
    for size in (0, *SIZES):
        current = seeded(timesteps, size).to(dtype)
        for train in same_bits(current, threshold=0.5, shift=0.03):
            assert train.bytes.shape == ((timesteps + 7) // 8, size)


def test_views_and_broadcast_operands(three_threads):
    current = seeded(11, 4, 10, 6)[:, :, 1:9:2]
    for view in (current, current.permute(0, 2, 3, 1), current[..., 1:].transpose(1, 3)):
        for shape in ((), view.shape[-1:], (view.shape[1], 1, 1), view.shape[1:]):
            same_bits(view, threshold=seeded(*shape).abs() + 0.1, shift=seeded(*shape, seed=1))


@settings(max_examples=40)
@given(st.lists(st.floats(width=32), min_size=12, max_size=12), st.floats(width=32), st.floats(width=32))
def test_any_numbers(values, threshold, shift):
    same_bits(torch.tensor(values).reshape(4, 3), threshold=threshold, shift=shift)


@pytest.mark.parametrize("backend", BOTH)
def test_it_is_qcfs_of_the_mean(backend):
    """At T = L, theta * count / T is theta * clip(floor(x L / theta + 1/2) / L, 0, 1) of the mean current."""
    timesteps, theta = 8, 0.5
    # Sums of eight multiples of 1/64 and their quotients by a power of two are exact.
    x = torch.randint(-64, 128, (500,), generator=torch.Generator().manual_seed(0)) / 64
    train = parallel_spikes(x.expand(timesteps, -1), theta, backend=backend)
    quantised = theta * ((x * timesteps / theta + 0.5).floor() / timesteps).clamp(0, 1)
    assert torch.equal(theta * train.unpack().mean(0), quantised)


@pytest.mark.parametrize("backend", BOTH)
def test_spikes_are_sorted_and_those_of_the_step_tests(backend):
    """Hao et al. 2025: (T/t) mean + theta / (2t) >= theta at step t; whoever fires at t has fired before."""
    timesteps, theta = 12, 0.75
    current = seeded(timesteps, 2000) * 0.5 + 0.3
    spikes = parallel_spikes(current, theta, backend=backend).unpack(torch.bool)
    assert (spikes[:-1] >= spikes[1:]).all()
    mean = current.double().mean(0)
    for t in range(1, timesteps + 1):
        test = timesteps / t * mean + theta / (2 * t) - theta
        # Float32 rounding of twelve sums around 1, times T / t at most.
        sure = test.abs() > 1e-5
        assert torch.equal(spikes[t - 1][sure], (test >= 0)[sure])


def test_it_counts_what_integrate_and_fire_counts_of_a_constant_current():
    """IF with half a threshold to start from rounds in the same way, step by step."""
    x = torch.linspace(-0.5, 1.5, 257).expand(16, -1)
    counts = [train.unpack().sum(0) for train in (parallel_spikes(x), integrate_and_fire(x, v0=0.5)[0])]
    assert torch.equal(*counts)


def test_the_general_neuron_with_running_sums_is_the_counting_one():
    """weight[t, :] = 1 / (t + 1) and threshold[t] = theta (1 - 1 / (2 (t + 1))): the step tests as a matrix."""
    timesteps, theta = 9, 0.5
    current = seeded(timesteps, 3000) * 0.4 + 0.2
    t = torch.arange(1, timesteps + 1, dtype=torch.float32)
    weight, threshold = (1 / t).unsqueeze(1).expand(timesteps, timesteps), theta * (1 - 1 / (2 * t))
    general = parallel_spiking_neuron(current, weight, threshold).unpack(torch.bool)
    counting = parallel_spikes(current, theta).unpack(torch.bool)
    total = current.double().sum(0)
    for step, (a, b) in enumerate(zip(general, counting), start=1):
        sure = (total / step - theta * (1 - 1 / (2 * step))).abs() > 1e-5  # float32 rounding of nine terms
        assert sure.float().mean() > 0.99
        assert torch.equal(a[sure], b[sure])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: parallel_spikes(torch.zeros(3, 4).double()), TypeError, "current: expected a float32"),
        (lambda: parallel_spikes(torch.zeros(3, 4), torch.zeros(3)), ValueError, "threshold: expected a shape"),
        (lambda: parallel_spikes(torch.zeros(3, 4), shift="x"), TypeError, "shift: expected a number or a tensor"),
        (
            lambda: parallel_spiking_neuron(torch.zeros(3, 4), torch.zeros(3, 2), torch.zeros(3)),
            ValueError,
            r"weight: expected shape \(3, 3\)",
        ),
        (
            lambda: parallel_spiking_neuron(torch.zeros(3, 4), torch.zeros(3, 3), 1.0),
            TypeError,
            "threshold: expected a float32 tensor",
        ),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("backend", BOTH)
def test_opcheck_and_compile(backend):
    current = seeded(9, 3, 4)
    weight, threshold = mixing(9)
    ops = torch.ops.snn_kernels
    torch.library.opcheck(ops.parallel_spikes.default, (current, torch.ones(4), torch.zeros(()), backend))
    torch.library.opcheck(ops.parallel_spiking_neuron.default, (current, weight, threshold, backend))
    compiled = torch.compile(
        lambda current: parallel_spikes(current, 0.5).unpack() + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(current), parallel_spikes(current, 0.5).unpack() + 1)
