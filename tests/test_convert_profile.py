"""Profiles against counts by hand: neuron by neuron, spike by spike."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from converted import MODELS, converted
from models import gelu_mlp, images
from snn_convert import convert
from snn_convert.loop import single_step_loop
from snn_convert.profile import COUNTED, Profile, Row
from snn_kernels.schedules import Constant, Exponential

QUICK = {"timesteps": 11, "schedule": Exponential(0.3, 0.8)}


def spikes_of(snn, *inputs) -> dict[str, torch.Tensor]:
    """The number of spikes of every neuron, from the plain loop."""
    found: dict[str, torch.Tensor] = {}

    def record(t, name, x, target, v, spike):
        found[name] = found.get(name, 0) + spike.int()

    single_step_loop(snn, *inputs, record=record)
    return found


def rows(profile: Profile) -> dict[str, Row]:
    return {row.name: row for row in profile.rows}


def test_a_perceptron_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(6, 3)
    snn = convert(model, [x], **QUICK)
    profile, spikes = snn.profile(x), spikes_of(snn, x)
    first, second, read_out = profile.rows
    assert (profile.timesteps, profile.samples) == (11, 6)
    assert (first.name, first.function, first.neurons) == ("1", "relu", 4)
    assert (first.macs, first.ann_macs, first.synaptic_operations) == (12, 12, 0)  # once: the input is constant
    assert (second.neurons, second.macs, second.ann_macs) == (5, 0, 20)
    assert second.synaptic_operations == pytest.approx(5 * spikes["1"].sum().item() / 6)  # each meets 5 weights
    assert (read_out.name, read_out.neurons, read_out.macs, read_out.ann_macs) == ("read-out", 0, 10, 10)
    assert read_out.firing_rate is None
    assert first.firing_rate == pytest.approx(spikes["1"].sum().item() / (11 * 24))
    assert {row.name: row.firing_rate for row in profile.rows[:2]} == pytest.approx(snn.firing_rates(x))
    assert second.energy == pytest.approx(0.9 * second.synaptic_operations)
    assert (first.energy, second.ann_energy) == pytest.approx((12 * 4.6, 20 * 4.6))


def fan_out(size: int, kernel: int, stride: int, padding: int) -> torch.Tensor:
    """How many windows of a one-dimensional convolution hold each place."""
    found = torch.zeros(size)
    for start in range(-padding, size + padding - kernel + 1, stride):
        for place in range(start, start + kernel):
            if 0 <= place < size:
                found[place] += 1
    return found


@pytest.mark.parametrize(
    ("outputs", "kernel", "stride", "padding", "groups"),
    [(6, 3, 1, 1, 1), (8, 3, 2, 1, 4), (4, 2, 2, 0, 2), (4, 5, 3, 2, 1)],
)
def test_convolutions_spike_by_spike(outputs, kernel, stride, padding, groups):
    """A spike at the edge meets fewer weights than one in the middle."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, outputs, kernel, stride, padding, groups=groups)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), convolution, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    x = images(3)
    model(x)
    snn = convert(model, [x], **QUICK)
    profile, spikes = rows(snn.profile(x)), spikes_of(snn, x)["1"]
    places = fan_out(8, kernel, stride, padding)
    weights = places[:, None] * places * (outputs // groups)
    assert profile["3"].synaptic_operations == pytest.approx((spikes * weights).sum().item() / 3)
    assert profile["3"].ann_macs == 4 * weights.sum().item()
    assert profile["1"].ann_macs == 4 * 22 * 22  # 3x3 on 8x8: 22 of the 24 products of a line lie within


def test_padding_before_a_convolution_delivers_no_spikes():
    torch.manual_seed(0)
    padding, convolution = nn.ZeroPad2d(1), nn.Conv2d(4, 3, 3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), padding, convolution, nn.ReLU(), nn.Flatten(), nn.Linear(192, 2)
    )
    x = images(3)
    snn = convert(model, [x], **QUICK)
    row, places = rows(snn.profile(x))["4"], fan_out(8, 3, 1, 1)
    arriving = (spikes_of(snn, x)["1"] * places[:, None] * places).sum().item()
    assert row.synaptic_operations == pytest.approx(3 * arriving / 3)  # outputs a place, samples
    assert row.macs == 0


class Branches(nn.Module):
    """A residual sum, a mean over places, a factor per channel and a choice of channels before the next map."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
        self.factor, self.last = nn.Parameter(torch.tensor([2.0, 0.0, 1.0, 3.0])), nn.Linear(3, 7)
        self.head = nn.Linear(7, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + F.gelu(self.body(x))
        x = F.avg_pool2d(x, 2) * self.factor[:, None, None]
        x = self.last(x.mean((2, 3))[:, :3] - 1)
        return self.head(F.relu(x))


def test_spikes_on_branches():
    """What adds up, averages and moves spikes passes each of them on; a factor of 0 stops them."""
    torch.manual_seed(0)
    x = images(5)
    snn = convert(Branches(), [x], **QUICK)
    profile = snn.profile(x)
    first, second, third, read_out = profile.rows
    spikes = list(spikes_of(snn, x).values())
    assert second.synaptic_operations == pytest.approx(4 * spikes[0].sum().item() / 5)
    arriving = sum(s[:, [0, 2]].sum().item() for s in spikes[:2])
    assert third.synaptic_operations == pytest.approx(7 * arriving / 5)
    assert (first.ann_macs, second.ann_macs, third.ann_macs, read_out.ann_macs) == (36 * 9 * 4, 36 * 16, 21, 14)
    assert (second.macs, third.macs) == (0, 0)


def test_a_map_that_follows_a_map_multiplies_at_every_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(2, 3)
    snn = convert(model, [x], **QUICK)
    row = rows(snn.profile(x))["4"]
    assert row.synaptic_operations == pytest.approx(5 * spikes_of(snn, x)["1"].sum().item() / 2)
    assert row.macs == 11 * 30
    assert row.ann_macs == 20 + 30


def test_products_of_activations_multiply_at_every_step():
    snn = converted("vit")
    attention = [row for row in snn.profile(images()).rows if row.function == "matmul"]
    # Two heads of width 6 over five tokens: queries by keys, and weights by values.
    assert [row.macs for row in attention] == [9 * 2 * 5 * 5 * 6] * 4
    # The queries, keys and values of five tokens of width 12 come with the first product.
    assert [row.ann_macs for row in attention] == [300 + 5 * 12 * 36, 300] * 2


@pytest.mark.parametrize(("encoder", "macs"), [("direct", 12), ("float", 11 * 12), ("spike", 0)])
def test_encoders(encoder, macs):
    """A constant is multiplied once, an analog emission at every step, a spike of the input never."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(6, 3)
    row = convert(model, [x], encoder=encoder, **QUICK).profile(x).rows[0]
    assert (row.macs, row.ann_macs) == (macs, 12)
    assert (row.synaptic_operations > 0) == (encoder == "spike")
    assert row.synaptic_operations <= 11 * 12


@pytest.mark.parametrize(("delay", "evaluations"), [(3, 9), (9, 1)])
def test_staggered_windows(delay, evaluations):
    """Spikes meet the weights they meet; products are taken once where windows open after their operands are there."""
    snn = converted("vit", onset_delay=delay)
    profile = rows(snn.profile(images()))
    assert profile["blocks_0_attention"].macs == evaluations * 300
    assert {name: row.firing_rate for name, row in profile.items() if row.neurons} == pytest.approx(
        snn.firing_rates(images())
    )
    mlp, norm = profile["blocks_0_mlp_1"], profile["blocks_0_norm2"]
    assert mlp.synaptic_operations == pytest.approx(24 * 9 * norm.firing_rate * norm.neurons)


@pytest.mark.filterwarnings("ignore:populations that never moved")
def test_how_products_were_taken(monkeypatch):
    """Two chunks of steps: signGD neurons fuse with their product, sparse trains are read event by event."""
    torch.manual_seed(0)
    monkeypatch.setattr("snn_convert.run.SAMPLE_STEPS", 0)
    model = nn.Sequential(nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 2))
    x = torch.randn(16, 9)
    for recipe, bias, taken in (
        ("default", 0.0, "fused"),
        ("integrate_and_fire", 0.0, "dense"),
        ("integrate_and_fire", -2.0, "event"),
    ):
        model[0].bias.data.fill_(bias)
        profile = convert(model, [x], timesteps=16, recipe=recipe).profile(x)
        assert [row.products for row in profile.rows] == [{}, {taken: 2}, {}], profile.rows[0].firing_rate
        assert profile.total.products == {taken: 2}
        assert f"2 {taken}" in str(profile)


def test_silent_bytes():
    """Estimates far below their targets never fire: every byte is silent."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([100.0, 100.0, -100.0]))
    x = torch.zeros(4, 2)
    snn = convert(model, [x], timesteps=8, schedule=Constant(0.1), scale=1.0, v0="zero")
    row = snn.profile(x).rows[0]
    # The third neuron's target is 0: it fires at the first step, and at every second one.
    assert row.silent_bytes == pytest.approx(2 / 3)
    assert 0 < row.firing_rate <= 2 / 9


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_all_counts_of_larger_networks_are_bounded(name, precision):
    """No spike can bring more than every neuron firing at every step would: the MACs of the ANN, at each step."""
    snn = converted(name).to(precision)
    profile = snn.profile(images().to(precision))
    for row in profile.rows:
        assert row.synaptic_operations <= snn.timesteps * row.ann_macs
        assert row.macs <= (snn.timesteps + 1) * row.ann_macs
        assert row.macs + row.synaptic_operations > 0 or not row.ann_macs
    total = profile.total
    assert total.energy == pytest.approx(sum(row.energy for row in profile.rows))
    assert total.neurons == sum(row.neurons for row in profile.rows)


def test_the_verdict_says_when_the_ann_is_cheaper():
    snn = convert(gelu_mlp(), [images()], **QUICK)
    snn.set_schedule(snn.schedule, 2)
    cheap = snn.profile(images())
    assert cheap.total.energy < cheap.total.ann_energy
    assert "it saves" in cheap.verdict
    snn.set_schedule(snn.schedule, 64)
    dear = snn.profile(images())
    assert dear.total.energy > dear.total.ann_energy
    assert "costs more than the ANN" in dear.verdict
    steps = 4.6 / (0.9 * dear.total.firing_rate)
    assert f"from T = {int(steps) + 1} on" in dear.verdict


def test_table_and_json(tmp_path):
    profile = converted("cnn").profile(images())
    printed = str(profile)
    console = Console(width=200, record=True)
    with console.capture() as capture:
        console.print(profile)
    for text in (printed, capture.get()):
        for row in profile.rows:
            line = next(line for line in text.splitlines() if f" {row.name} " in line)
            assert row.function in line
        assert " ".join(profile.verdict.split()) in " ".join(text.split())
        assert "Horowitz, ISSCC 2014" in text
    profile.to_json(tmp_path / "profile.json")
    read = json.loads((tmp_path / "profile.json").read_text())
    assert read == json.loads(json.dumps(profile.to_dict()))
    assert [row["name"] for row in read["rows"]] == [row.name for row in profile.rows]
    assert (read["counted"], read["verdict"], read["energy_per_ac_pj"]) == (COUNTED, profile.verdict, 0.9)


def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match="input: expected shape"):
        converted("cnn").profile(torch.zeros(2, 1, 8, 9))
