"""Where a network starts, as far as no input moves it, is computed once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from architectures import SqueezeExcite, ViT
from models import Residual, gelu_mlp, images, pooled_cnn, randomise_batch_norm
from snn_convert import SpikingModel, convert
from snn_convert.engine import Kind
from snn_convert.rest import Rest
from snn_kernels.schedules import Exponential
from test_convert_time import Windows


class ByCount(nn.Module):
    """A network that the number of samples enters as a coefficient."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 5)

    def forward(self, x):
        y = torch.relu(self.body(x.flatten(1)))
        return self.head(torch.relu(self.head.weight.mean() + y / x.shape[0]))


class Static(nn.Module):
    """What no neuron carries is added to what neurons send, twice, the second time behind a population."""

    def __init__(self):
        super().__init__()
        self.embed, self.first, self.second = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.embed(x.flatten(1))
        y = x + self.first(torch.relu(x))
        return self.head(torch.relu(y + self.second(torch.nn.functional.gelu(y))))


NETWORKS = {
    "mlp": gelu_mlp,
    "cnn": pooled_cnn,
    "residual": Residual,
    "vit": ViT,
    "squeeze and excite": SqueezeExcite,
    "windows": Windows,
    "static": Static,
    "by count": ByCount,
}


def network(name: str, recipe: str = "default") -> SpikingModel:
    torch.manual_seed(0)
    model = randomise_batch_norm(NETWORKS[name]())
    return convert(model, [images(16, seed=2)], timesteps=9, schedule=Exponential(0.3, 0.9), recipe=recipe)


def known(snn: SpikingModel, x: torch.Tensor) -> dict:
    return snn.rest.values([x], x.device)


@pytest.fixture
def computed(monkeypatch):
    """Calls a function with everything computed in every run."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(Rest, "values", lambda *_: {})
            return function(*args)

    return call


CASES = [(name, recipe) for name in NETWORKS for recipe in ("default", "paper")]
CASES += [("residual", "subgradient"), ("windows", "subgradient")]


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_values_at_rest_are_those_of_every_run(name, recipe, computed):
    """With one sample bit for bit, with others up to the rounding of products of another size: 1e-5 is far above that
    of these few summands. Outputs then differ by spikes at ties, each of which is made good by those that follow."""
    snn = network(name, recipe)
    for batch in (1, 2, 5):
        x = images(batch)
        values = known(snn, x)
        wanted = snn.engine.at_rest([x])
        for node, value in values.items():
            assert value.shape == wanted[node].shape
            assert (value - wanted[node]).norm() <= (0 if batch == 1 else 1e-5) * wanted[node].norm()
        output, wanted = snn(x), computed(snn, x)
        assert torch.equal(output, wanted) if batch == 1 else (output - wanted).norm() <= 1e-2 * wanted.norm()
    if name not in ("by count", "windows"):
        assert {node for node in snn.engine.neurons if node.op == "call_module"} <= values.keys()


def test_no_samples():
    snn = network("residual")
    assert snn(images(0)).shape == (0, 5)


@pytest.mark.parametrize(("name", "count"), [("static", 2), ("by count", 2), ("windows", 2)])
def test_what_the_input_or_the_batch_moves_is_not_known(name, count):
    """The two sums of the embedding; the quotient and what it is added to; the windows and the map of them."""
    snn = network(name)
    missing = [node for node in snn.engine.nodes if node not in known(snn, images(3)) and node.op == "call_function"]
    assert sum(snn.engine.kinds[node] == Kind.CURRENT for node in missing) == count


def test_inputs_of_different_lengths_are_not_expanded():
    snn = network("mlp")
    assert snn.rest.values([images(2), images(3)], torch.device("cpu")) == {}


def test_a_run_computes_what_the_input_moves_alone():
    snn, x = network("residual"), images(4)
    snn.start(x)
    with FlopCounterMode(display=False) as flops:
        snn.start(x)
    assert flops.get_total_flops() == 2 * 4 * 64 * 8 * 9  # the stem: 8 channels, windows of 9


@pytest.mark.parametrize("in_place", [True, False])
def test_a_change_of_an_initial_estimate_is_seen(in_place, computed):
    snn, x = network("residual"), images(1)
    before = snn(x)
    for _, population in snn.populations():
        if in_place:
            population.v0.mul_(0.5)
        else:
            population.v0 = 0.5 * population.v0
    assert not torch.equal(snn(x), before)
    assert torch.equal(snn(x), computed(snn, x))


def test_other_weights_and_precisions_are_seen(computed):
    snn, x = network("residual"), images(1)
    snn(x)
    other = network("residual")
    other.network.get_parameter(next(name for name, _ in other.network.named_parameters())).mul_(0.5)
    other.measure_offsets(images())
    snn.load_state_dict(other.state_dict())
    assert torch.equal(snn(x), other(x))
    half = copy.deepcopy(snn)
    assert torch.equal(half(x), snn(x))
    half.bfloat16()
    assert torch.equal(half(x.bfloat16()), computed(half, x.bfloat16()))
    half.float()
    assert torch.equal(half(x), computed(half, x))


def test_a_network_that_was_converted_in_inference_mode(computed):
    with torch.inference_mode():
        snn = network("residual")
        before = snn(images(1))
        for _, population in snn.populations():
            population.v0.mul_(0.5)
        assert not torch.equal(snn(images(1)), before)
        assert torch.equal(snn(images(1)), computed(snn, images(1)))
