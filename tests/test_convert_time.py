"""Staggered onset, single steps and early exit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from architectures import SqueezeExcite, ViT
from models import Residual, gelu_mlp, images, pooled_cnn, randomise_batch_norm, relu_cnn
from oracle import oracle_outputs
from snn_convert import convert, search
from snn_convert.encoders import encode, float_ramp
from snn_convert.loop import single_step_loop
from snn_convert.search import candidates, search_schedule, squared_error
from snn_convert.staggered import StaggeredRun
from snn_kernels.schedules import Constant, Exponential, Table
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


def test_no_window_opens_in_a_network_without_neurons():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    snn = convert(model, [images()], timesteps=4, onset_delay=2, schedule=Constant(0.1))
    torch.testing.assert_close(snn(images()), model(images()).detach())


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


class Tokens(nn.Module):
    """Each token by itself; nobody reads what comes of those that the mask leaves out."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 20), nn.Linear(20, 20), nn.Linear(20, 5)

    def forward(self, x, attention_mask):
        return {"hidden": self.head(torch.relu(self.second(torch.relu(self.first(x))))), "sizes": x.mean(2)}


def test_step_sizes_are_chosen_by_the_tokens_that_count():
    torch.manual_seed(0)
    model, mask = Tokens().eval(), torch.zeros(8, 6, dtype=torch.int64)
    mask[:, :2] = 1
    x = torch.randn(8, 6, 12)
    x[:, 2:] *= 30  # far beyond what the few tokens that count have
    snn = convert(model, [{"x": x, "attention_mask": mask}], timesteps=16)
    error = search_schedule(snn, [{"x": x, "attention_mask": mask}])
    with torch.no_grad():
        found, wanted = (out["hidden"] for out in (snn(x=x, attention_mask=mask), model(x, mask)))
    of_these = (found - wanted)[:, :2].norm() ** 2
    # The other output is exact, and has no features of tokens that the mask would be of.
    assert error == pytest.approx((of_these / (wanted[:, :2].norm() ** 2 + x.mean(2).norm() ** 2)).sqrt().item(), 1e-3)
    assert error != pytest.approx(distance(found, wanted), 0.1)


def test_the_best_of_a_large_model_are_compared_on_more_samples(monkeypatch):
    model, snn = network("relu_cnn", timesteps=16, schedule=Constant(0.1))
    monkeypatch.setattr(search, "affordable", lambda *_: (1, 18))
    seen = []

    def recorded(output, target, mask):
        squares = squared_error(output, target, mask)
        seen.append((len(output), float((squares[0] / squares[1]).sqrt()), snn.schedule))
        return squares

    monkeypatch.setattr(search, "squared_error", recorded)
    error = search_schedule(snn, [images(3)])
    assert [size for size, *_ in seen] == [1] * 18 + [3] * search.FINALISTS
    first, last = seen[:18], seen[18:]
    assert {schedule for *_, schedule in last} == {schedule for *_, schedule in sorted(first, key=lambda s: s[1])[:4]}
    assert (error, snn.schedule) == min((found, schedule) for _, found, schedule in last)
    seen.clear()
    search_schedule(snn, [images(1)])
    assert len(seen) == 18

    # Items are gone on to where one holds too few samples; those of several count as those of one do.
    seen.clear()
    error = search_schedule(snn, iter([images(2), images(1), images(9)]))
    assert [size for size, *_ in seen] == [1] * 18 + [2, 1, 1] * search.FINALISTS
    with torch.no_grad():
        outputs, targets = ([of(x) for x in (images(2), images(1), images(1))] for of in (snn, model))
    # Batch normalisation is folded in one of them: a float32 rounding beside an error of a thousandth.
    assert error == pytest.approx(distance(torch.cat(outputs), torch.cat(targets)), 1e-3)


def test_the_likely_candidate_is_set_without_a_run_where_one_is_all_that_fits(monkeypatch):
    monkeypatch.setattr(search, "BUDGET", 1.0)
    _, snn = network("relu_cnn", timesteps=16)
    assert snn.schedule == candidates(16)[0]
    snn.set_schedule(Constant(0.1), 16)
    assert math.isnan(search_schedule(snn, [images()]))
    assert snn.schedule == candidates(16)[0]


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


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (Table((0.1, 0.2)), ValueError, "timesteps: expected at most 2, the step sizes given, got 16"),
        ("exp", TypeError, "schedule: expected one of snn_kernels.schedules, got str 'exp'"),
        (Exponential, TypeError, "schedule: expected one of snn_kernels.schedules, got type"),
    ],
)
def test_a_refused_schedule_leaves_the_network_as_it_was(schedule, error, message):
    snn = convert(gelu_mlp(), [images()], timesteps=4, schedule=Constant(0.1), onset_delay=1)
    wanted = snn(images())
    with pytest.raises(error, match=message):
        snn.set_schedule(schedule, 16, onset_delay=2)
    assert (snn.schedule, snn.timesteps, snn.onset_delay) == (Constant(0.1), 4, 1)
    assert torch.equal(snn(images()), wanted)


@pytest.mark.parametrize(("name", "value"), [("timesteps", 16), ("schedule", Constant(0.2)), ("onset_delay", 2)])
def test_steps_are_set_together(name, value):
    """A number of steps without their sizes is one that no run comes to."""
    snn = convert(gelu_mlp(), [images()], timesteps=4, schedule=Constant(0.1))
    with pytest.raises(AttributeError):
        setattr(snn, name, value)


def test_steps_beyond_the_latency():
    _, snn = network("residual", timesteps=16, onset_delay=5, schedule=Constant(0.1))
    with pytest.raises(ValueError, match="steps: expected integers from 1 to latency=26, got \\[27\\]"):
        snn.outputs_at(images(), steps=[27])
    with pytest.raises(ValueError, match="snn: expected onset_delay=0, got onset_delay=5"):
        single_step_loop(snn, images())


@pytest.mark.parametrize("delay", [0, 3, 12])
@pytest.mark.parametrize("name", ["residual", "vit"])
def test_one_step_at_a_time_comes_to_the_same(name, delay):
    _, snn = network(name, timesteps=12, onset_delay=delay, schedule=Exponential(0.5, 0.7))
    x = images()
    steps = [1, 7, 12, snn.latency]
    run, seen = snn.start(x), {}
    assert repr(run) == f"{type(run).__name__}(0 of {snn.latency} steps, samples: {len(x)})"
    for _ in range(snn.latency):
        run.step()
        seen[run.done] = run.output()
    # Matrix products of other sizes add in another order: where that decides a spike, see above.
    for step, expected in zip(steps, snn.outputs_at(x, steps=steps)):
        assert distance(seen[step], expected) < 1e-3
    for early in (run.step, lambda: run.advance_to(snn.latency + 1), lambda: run.advance_to(3)):
        with pytest.raises(ValueError, match=f"step: expected an integer from {snn.latency} to latency={snn.latency}"):
            early()
    for step in (2.5, "4", None):
        with pytest.raises(ValueError, match=f"expected an integer from 0 to latency={snn.latency}, got {step!r}"):
            snn.start(x).advance_to(step)


@pytest.mark.parametrize("delay", [0, 3, 12])
@pytest.mark.parametrize("name", ["residual", "vit", "squeeze and excite"])
def test_a_run_goes_on_with_some_of_its_samples(name, delay):
    _, snn = network(name, timesteps=12, onset_delay=delay, schedule=Exponential(0.5, 0.7))
    x, kept = images(), torch.tensor([4, 1])
    for step in (3, 9, snn.latency - 2):
        run = snn.start(x)
        run.advance_to(step)
        rest = run.select(kept)
        assert distance(rest.output(), run.output()[kept]) < 1e-5
        rest.advance_to(snn.latency)
        assert distance(rest.output(), snn(x)[kept]) < 1e-3


@pytest.mark.parametrize(
    ("recipe", "delay"), [("subgradient", None), ("subgradient", 2), ("integrate_and_fire", None), ("parallel", None)]
)
def test_steps_and_samples_of_other_dynamics(recipe, delay):
    _, snn = network("relu_cnn", timesteps=12, recipe=recipe, onset_delay=delay)
    x, kept = images(), torch.tensor([4, 1])
    wanted, run = snn(x), snn.start(x)
    for _ in range(snn.latency):
        run.step()
    assert distance(run.output(), wanted) < 1e-3
    run = snn.start(x)
    run.advance_to(snn.latency // 2 + 1)
    rest = run.select(kept)
    rest.advance_to(snn.latency)
    assert distance(rest.output(), wanted[kept]) < 1e-3


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_what_a_float_encoder_sends_lies_on_a_line(precision):
    """And is the same bit for bit wherever the steps are cut."""
    x, eta = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(precision), Exponential(0.4).table(19)
    emissions, estimate = encode("float", x.double(), torch.zeros(3, 5, dtype=torch.float64), eta.double())
    ramp, after = float_ramp(x, eta, slice(0, 19))
    few = 4 * torch.finfo(precision).eps
    torch.testing.assert_close(ramp.dense().double(), emissions, rtol=few, atol=few)
    torch.testing.assert_close(after.double(), estimate, rtol=few, atol=few)
    parts, (_, last) = (
        [float_ramp(x, eta, slice(*cut))[0] for cut in ((0, 8), (8, 9), (9, 19))],
        float_ramp(x, eta, slice(18, 19)),
    )
    assert torch.equal(torch.cat([part.dense() for part in parts]), ramp.dense())
    assert torch.equal(torch.cat([part.clone() for part in ramp.pieces(8)]), ramp.dense())
    assert torch.equal(last, after)


@pytest.mark.parametrize("timesteps", [8, 40])
def test_what_a_float_encoder_sends_passes_through_maps_at_two_ends(timesteps):
    """Whatever the number of steps: two layers' worth of them in a run, and the read-out."""
    model = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
    snn = convert(randomise_batch_norm(model.eval()), [images()], timesteps=timesteps, recipe="paper")
    x = images()
    with torch.no_grad(), FlopCounterMode(display=False) as ann:
        model(x)
    snn(x)  # what it finds out once is not counted
    with FlopCounterMode(display=False) as spiking:
        snn(x)
    assert spiking.get_total_flops() == 2 * ann.get_total_flops()


def test_float_encoded_inputs_that_meet():
    """Two maps of an input and the input itself, added and joined; a product of spikes with one added to it."""

    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(64, 20), nn.Linear(64, 20), nn.Linear(20, 64)

        def forward(self, image):
            x = image.flatten(1)
            joined = torch.cat([self.first(x) + self.second(x), x], 1)
            y = torch.relu(joined)
            return torch.maximum(self.third(y[:, :20]) + x, y[:, 20:]) + self.third(torch.relu(self.first(x)))

    torch.manual_seed(0)
    model, x = Meeting().eval(), images()
    snn = convert(model, [images(32, seed=2)], timesteps=33, recipe="paper")
    for output, wanted in zip(snn.outputs_at(x, steps=[5, 33]), oracle_outputs(model, x, snn, [5, 33])):
        assert distance(output, wanted) < 1e-3


def test_float_and_masked_inputs_of_some_samples():
    torch.manual_seed(0)
    _, snn = network("residual", timesteps=12, recipe="paper")
    run = snn.start(images())
    run.advance_to(5)
    rest = run.select(torch.tensor([2]))
    rest.advance_to(12)
    assert distance(rest.output(), snn(images())[2:3]) < 1e-3
    snn = convert(Encoder().eval(), [text(64, 2)], timesteps=12, schedule=Exponential(0.5, 0.7))
    run = snn.start(*text(6, 1))
    run.advance_to(5)
    rest = run.select(torch.tensor([5, 0, 3]))
    rest.advance_to(12)
    assert distance(rest.output(), snn(*text(6, 1))[[5, 0, 3]]) < 1e-3


class Windows(nn.Module):
    """Samples and windows in one dimension, as Swin has them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 8), nn.Linear(32, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.reshape(-1, 16))).reshape(-1, 32))


@pytest.mark.parametrize("delay", [0, 4, 24])
@pytest.mark.parametrize("name", ["residual", "windows"])
def test_samples_stop_when_they_are_sure(name, delay):
    torch.manual_seed(0)
    model = Windows() if name == "windows" else randomise_batch_norm(Residual())
    snn = convert(model, [images(64, seed=2)], timesteps=24, onset_delay=delay)
    x = images(40)
    checks = range(snn.latency - 16, snn.latency + 1, 8)
    every = dict(zip(checks, snn.outputs_at(x, steps=[*checks])))
    confidence = float(every[checks[0]].softmax(1).amax(1).median())
    output, stopped = snn.run_until(x, confidence=confidence)
    assert 15 <= int((stopped == checks[0]).sum()) <= 25
    for sample, step in enumerate(stopped.tolist()):
        sure = [early for early in checks if every[early][sample].softmax(0).max() >= confidence]
        assert step == min([*sure, snn.latency])
        assert distance(output[sample], every[step][sample]) < 1e-3
    assert snn.start(x).can_select == copy.deepcopy(snn).start(x).can_select == (name == "residual")


def test_who_has_stopped_costs_nothing():
    """With half of the batch gone after eight steps of 24, two thirds of the multiplications remain."""
    _, snn = network("relu_cnn", timesteps=24)
    x = images(40)
    snn.engine.amplitudes.clear()  # matrix products by PyTorch, which the counter sees
    probabilities = snn.outputs_at(x, steps=[8])[0].softmax(1).amax(1)

    def cost(confidence):
        with FlopCounterMode(display=False) as counter:
            _, stopped = snn.run_until(x, confidence=confidence, steps=[8])
        return counter.get_total_flops(), int((stopped == 8).sum())

    (everyone, none), (half, gone) = cost(1.0), cost(float(probabilities.median()))
    assert none == 0
    assert 15 <= gone <= 25
    # Selecting evaluates the network once more for those who stay, a step's worth of sixteen.
    assert half < 0.75 * everyone


def test_run_until_on_another_structure():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = gelu_mlp()

        def forward(self, x):
            return {"logits": self.body(x)}

    torch.manual_seed(0)
    snn = convert(Named(), [images()], timesteps=9, schedule=Exponential(0.5, 0.7))
    output, stopped = snn.run_until(images(), confidence=1.0, steps=[2])
    assert stopped.tolist() == [9] * 6
    assert distance(output["logits"], snn(images())["logits"]) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 0.0}, "confidence: expected a probability above 0 and up to 1, got 0.0"),
        ({"confidence": 1.2}, "confidence: expected a probability above 0 and up to 1, got 1.2"),
        ({"confidence": 0.9, "steps": [0]}, r"steps: expected integers from 1 to latency=4, got \[0\]"),
        ({"confidence": 0.9, "steps": [5]}, r"steps: expected integers from 1 to latency=4, got \[5\]"),
        ({"confidence": 0.9, "steps": 3}, r"steps: expected integers from 1 to latency=4, got 3"),
    ],
)
def test_run_until_with_arguments_that_do_not_fit(arguments, message):
    snn = convert(gelu_mlp(), [images()], timesteps=4, schedule=Constant(0.1))
    with pytest.raises(ValueError, match=message):
        snn.run_until(images(), **arguments)


class Twice(nn.Flatten):
    def forward(self, x):
        return super().forward(x), super().forward(-x)


@pytest.mark.parametrize(
    "model", [nn.Conv2d(1, 3, 3), nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Flatten(0)), Twice()]
)
def test_run_until_without_classes(model):
    snn = convert(nn.Sequential(nn.ReLU(), model), [images()], timesteps=4, schedule=Constant(0.1))
    with pytest.raises(ValueError, match=r"output: expected one tensor \['B', classes\], got \["):
        snn.run_until(images(), confidence=0.9)
