"""Staggered onset, single steps and early exit."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from architectures import SqueezeExcite, ViT
from models import Residual, gelu_mlp, images, pooled_cnn, randomise_batch_norm, relu_cnn
from snn_convert import convert
from snn_convert.loop import single_step_loop
from snn_convert.search import candidates
from snn_convert.staggered import StaggeredRun
from snn_kernels.schedules import Constant, Exponential
from staggered_oracle import staggered_outputs
from test_convert_architectures import Encoder, text

NETWORKS = {
    "relu_cnn": relu_cnn,
    "residual": Residual,
    "vit": ViT,
    "vit, written out": lambda: ViT(written_out=True),
    "squeeze and excite": SqueezeExcite,
    "pool": pooled_cnn,
}
WINDOWS = [(16, 1), (16, 2), (16, 5), (9, 8), (12, 12), (8, 11)]  # T and the onset delay


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small run slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def distance(actual, expected):
    assert torch.isfinite(actual).all()
    return float((actual - expected).norm() / expected.norm())


def network(name, **arguments):
    torch.manual_seed(0)
    model = randomise_batch_norm(NETWORKS[name]())
    return model, convert(model, [images(24, seed=2)], **arguments)


def assert_agrees(model, snn, delay, **forms):
    """Float32 sums in another order may let a neuron decide otherwise where its estimate meets its target, and put it
    off by a step for a while: the issue's 1e-3 covers that."""
    x = images()
    steps = sorted({1, snn.timesteps, snn.latency // 2, snn.latency - 1, snn.latency})
    expected, latency = staggered_outputs(model, x, snn, steps, delay, **forms)
    assert snn.latency == latency
    for output, wanted in zip(snn.outputs_at(x, steps=steps), expected):
        assert distance(output, wanted) < 1e-3


@pytest.mark.parametrize(("timesteps", "delay"), WINDOWS)
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_value_domain_on_staggered_windows(name, timesteps, delay):
    model, snn = network(name, timesteps=timesteps, onset_delay=delay, schedule=Exponential(0.5, 0.7))
    assert_agrees(model, snn, delay, normalisation="vector")


@pytest.mark.parametrize("delay", [3, 16])
def test_decomposed_normalisation_on_staggered_windows(delay):
    form = {"normalisation": "decomposed"}
    model, snn = network("vit", timesteps=16, onset_delay=delay, schedule=Exponential(0.5, 0.7), v0="zero", **form)
    assert_agrees(model, snn, delay, **form)


@pytest.mark.parametrize("delay", [3, 16])
def test_an_encoded_input_has_a_window_of_its_own(delay):
    model, snn = network("residual", timesteps=16, onset_delay=delay, recipe="paper")
    assert min(snn.onsets.values()) == delay
    assert_agrees(model, snn, delay)


def test_windows_follow_the_latest_feeder():
    _, snn = network("residual", timesteps=16, onset_delay=5)
    assert snn.onsets == {"relu": 0, "relu_2": 5, "relu_3": 10}
    assert snn.latency == 26
    snn.set_schedule(snn.schedule, 16, onset_delay=0)
    assert set(snn.onsets.values()) == {0}
    assert snn.latency == snn.timesteps == 16


@pytest.mark.parametrize("name", NETWORKS)
def test_decoded_values_and_currents_are_two_forms_of_one_dynamics(name):
    """With no delay the run that sends estimates is the run that sends spikes."""
    _, snn = network(name, timesteps=20, schedule=Exponential(0.5, 0.7))
    x = images()
    run = StaggeredRun(snn, [x])
    for step, expected in zip((3, 8, 20), snn.outputs_at(x, steps=[3, 8, 20])):
        run.advance_to(step)
        # The one adds up increments, the other does not: where that decides a spike, see above.
        assert distance(run.output(), expected) < 1e-3


@pytest.mark.parametrize("name", ["relu_cnn", "residual", "pool"])
def test_affine_maps_run_once_where_windows_do_not_overlap(name):
    model, snn = network(name, timesteps=9, onset_delay=9)
    x = images()
    with torch.no_grad(), FlopCounterMode(display=False) as ann:
        model(x)
    with FlopCounterMode(display=False) as spiking:
        snn(x)
    assert spiking.get_total_flops() == ann.get_total_flops()


def test_few_steps_are_enough_where_windows_are_staggered():
    model, _ = network("vit", timesteps=1)
    x = images(64, seed=3)
    with torch.no_grad():
        wanted = model(x)
    errors = {}
    for timesteps, delay in ((16, 0), (16, 2), (16, 16)):
        snn = convert(model, [images(256, seed=2)], timesteps=timesteps, onset_delay=delay)
        assert snn.schedule in candidates(timesteps, delay)
        errors[delay] = distance(snn(x), wanted)
    assert errors[0] > errors[2] > errors[16]
    assert errors[16] < 1e-3
    assert errors[2] < 2e-2
    print(errors)


@pytest.mark.parametrize(("timesteps", "delay"), [(1, 1), (2, 1), (8, 2), (8, 8), (12, 20), (64, 8)])
def test_candidates_reach_beyond_the_calibrated_range_and_leave_no_gap(timesteps, delay):
    tables = candidates(timesteps, delay)
    assert len(set(tables)) == len(tables)
    for schedule in tables:
        eta = schedule.table(timesteps).double()
        assert eta.sum() > 1.1
        # Whatever remains to be made up after a step, the later steps and one more of the last size can.
        assert all(eta[t] <= eta[t + 1 :].sum() + 1.01 * eta[-1] for t in range(timesteps - 1))


@pytest.mark.parametrize("delay", [2, 16])
def test_masks_and_tokens_on_staggered_windows(delay):
    torch.manual_seed(0)
    model = Encoder().eval()
    snn = convert(model, [text(64, 2)], timesteps=16, onset_delay=delay)
    tokens, mask = text(6, 1)
    with torch.no_grad():
        wanted = model(tokens, mask)
    assert distance(snn(tokens, mask), wanted) < 0.05
    other = torch.where(mask.bool(), tokens, (tokens + 1) % 20)
    torch.testing.assert_close(snn(other, mask), snn(tokens, mask), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("delay", [2, 16])
def test_firing_rates_on_staggered_windows(delay):
    _, snn = network("residual", timesteps=16, onset_delay=delay, schedule=Constant(0.1))
    rates = snn.firing_rates(images())
    assert list(rates) == [name for name, _ in snn.populations()]
    assert all(0.2 < rate < 0.8 for rate in rates.values())


@pytest.mark.parametrize("delay", [-1, 1.5, "2"])
def test_onset_delays_that_do_not_fit(delay):
    with pytest.raises(ValueError, match=f"onset_delay: expected an integer >= 0, got {delay!r}"):
        convert(gelu_mlp(), [images()], timesteps=4, schedule=Constant(0.1), onset_delay=delay)


def test_steps_beyond_the_latency():
    _, snn = network("residual", timesteps=16, onset_delay=5, schedule=Constant(0.1))
    with pytest.raises(ValueError, match="steps: expected integers from 1 to latency=26, got \\[27\\]"):
        snn.outputs_at(images(), steps=[27])
    with pytest.raises(ValueError, match="snn: expected onset_delay=0, got onset_delay=5"):
        single_step_loop(snn, images())
