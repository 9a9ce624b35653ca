"""Converted networks whose maps have weights of 8 bits: the same network for whatever reads the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from converted import MODELS, converted
from models import images
from snn_convert import SpikingModel, convert, packed
from snn_kernels import QuantizedWeight, quantize_weight
from snn_kernels.schedules import Exponential
from test_convert_packed import Shortcuts, Wide, assert_agrees_with_the_oracle, vectors

SCHEDULE = Exponential(0.3, 0.9)


class Grouped(nn.Module):
    """Groups with weights that are worth something else in each, depthwise ones, and a map that two places share."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 12, 3), nn.Conv2d(12, 8, 3, groups=4, padding=1)
        self.third, self.shared = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        x = torch.relu(self.third(x)).flatten(2)
        x = torch.nn.functional.gelu(self.shared(x).mT * 30).mT
        return self.head(torch.relu(self.shared(x)).mean(1))


NETWORKS = {"wide": Wide, "shortcuts": Shortcuts, "grouped": Grouped}


def eight_bits(name: str, **options) -> tuple[nn.Module, SpikingModel]:
    """The model and its conversion."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    options = {"timesteps": 20, "schedule": SCHEDULE, "weight_bits": 8, **options}
    return model, convert(model, [images(16, seed=2)], **options)


def maps_of(snn: SpikingModel) -> dict:
    """The maps that read trains, by name, with their weights."""
    engine = snn.engine
    nodes = [node for node in engine.chunk_nodes if node.target in packed.PRODUCTS]
    return {node: engine.network.get_parameter(node.args[1].target) for node in nodes}


@vectors
@pytest.mark.parametrize("name", NETWORKS)
def test_every_map_that_reads_trains_has_weights_of_8_bits(name):
    _, snn = eight_bits(name)
    weights = maps_of(snn)
    assert snn.engine.quantized.keys() == weights.keys()
    assert len(weights) == {"wide": 3, "shortcuts": 4, "grouped": 4}[name]
    for node, weight in weights.items():
        amplitude = getattr(snn.network, snn.engine.amplitudes[node])
        values, scale = (getattr(snn.network, name) for name in snn.engine.quantized[node])
        assert values.dtype == torch.int8
        groups = node.args[6] if len(node.args) > 6 else 1
        if amplitude.ndim > 1:  # of rows: tokens
            amplitude = torch.ones(weight.shape[1])
        of_output = amplitude.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
        worth = weight.double() * of_output.reshape(*weight.shape[:2], *(1,) * (weight.ndim - 2))
        wanted = values * scale.double().reshape(-1, *(1,) * (weight.ndim - 1))
        assert ((worth - wanted).abs() <= 1e-6 * worth.abs()).all()


def test_weights_are_the_same_wherever_the_network_is_converted(monkeypatch):
    """On a device whose products read no trains, too."""
    _, here = eight_bits("grouped")
    monkeypatch.setattr("snn_convert.amplitudes._takes_trains", lambda *_: False)
    _, elsewhere = eight_bits("grouped")
    assert not elsewhere.engine.amplitudes
    for weight, other in zip(maps_of(here).values(), maps_of(elsewhere).values(), strict=True):
        assert torch.equal(weight, other)


def test_a_map_that_two_places_share_becomes_two():
    _, snn = eight_bits("grouped")
    weights = [node.args[1].target for node in snn.engine.nodes if node.target is torch.ops.aten.linear.default]
    assert len(set(weights)) == 3  # with the head
    read = {node.target for node in snn.engine.nodes if node.op == "get_attr"}
    assert read >= {name for name, _ in snn.network.named_parameters()}


@pytest.mark.parametrize("name", ["wide", "shortcuts"])
def test_the_spikes_are_those_of_a_network_with_these_weights(name):
    model, snn = eight_bits(name)
    before = copy.deepcopy(model)
    rounded = {name: value for name, value in snn.network.named_parameters() if name in model.state_dict()}
    assert rounded.keys() == model.state_dict().keys()
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, rounded[key])]
    assert (
        changed
        == {
            "wide": ["second.weight", "hidden.weight", "gate.weight"],
            "shortcuts": ["first.weight", "second.weight", "across.weight", "third.weight"],
        }[name]
    )
    for key in changed:  # the model itself is as it was
        assert torch.equal(before.state_dict()[key], model.state_dict()[key])
        assert 0 < (rounded[key] - model.state_dict()[key]).norm() / model.state_dict()[key].norm() < 0.05
    model.load_state_dict(rounded)
    assert_agrees_with_the_oracle(snn, model, images(5), [7, 20])


@vectors
@pytest.mark.parametrize("name", NETWORKS)
def test_products_take_them(name, monkeypatch):
    """In the fused ops and by themselves, projections included."""
    seen, fires, dense = [], packed.Product.fires, packed.Product.dense
    monkeypatch.setattr(packed.Product, "fires", lambda self, *a, **n: seen.append(self) or fires(self, *a, **n))
    monkeypatch.setattr(packed.Product, "dense", lambda self: seen.append(self) or dense(self))
    _, snn = eight_bits(name, onset_delay=0)
    seen.clear()
    snn(images(3))
    products = [*seen, *(product.residual for product in seen if isinstance(product.residual, packed.Product))]
    assert products
    assert all(isinstance(product.weight, QuantizedWeight) for product in products)
    of_rows = [product for product in products if product.amplitude is not None]  # tokens
    assert bool(of_rows) == (name == "grouped")


@pytest.mark.parametrize("recipe", ["default", "paper", "subgradient", "integrate_and_fire", "parallel"])
def test_every_recipe_comes_near_the_network_with_these_weights(recipe):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 24, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(7)]
    model, x = nn.Sequential(*layers).eval(), images(9)
    model(x)
    error = {}
    for bits in (None, 8):
        snn = convert(model, [images(64, seed=2)], timesteps=64, recipe=recipe, weight_bits=bits)
        wanted = snn.network(x)[0]
        error[bits] = ((snn(x) - wanted).norm() / wanted.norm()).item()
    # What the weights are makes no difference to how near their network the spikes come.
    assert error[8] < 1.5 * error[None] + 1e-3


@pytest.mark.parametrize("options", [{}, {"onset_delay": 9}, {"recipe": "paper"}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_saved_copied_and_loaded_networks_give_the_same_bits(name, options, tmp_path):
    snn = converted(name, weight_bits=8, **options)
    wanted = snn(images())
    snn.save(tmp_path / "x.snn")
    loaded = SpikingModel.load(tmp_path / "x.snn")
    other = converted(name, weight_bits=8, **options)
    other.load_state_dict(snn.state_dict())
    for again in (loaded, copy.deepcopy(snn), other):
        assert torch.equal(again(images()), wanted)
        assert again.engine.weight_bits == 8
        assert len(again.engine.quantized) == len(snn.engine.quantized)
    assert "weights of 8 bits" in repr(loaded)


def test_weights_that_are_no_longer_of_8_bits_are_used_as_they_are():
    """After a rounding to half precision, or where someone has changed them."""
    _, snn = eight_bits("wide")
    output = snn(images(5))
    snn.network.hidden.weight.mul_(1 + 0.1 * torch.rand_like(snn.network.hidden.weight))
    snn.refresh(offsets=True)
    assert "hidden.weight" not in {node.args[1].target for node in snn.engine.quantized}
    snn.half()
    assert not snn.engine.quantized
    assert snn(images(5).half()).isfinite().all()
    assert not torch.equal(snn(images(5).half()).float(), output)


def test_a_number_of_bits_that_there_is_not():
    with pytest.raises(ValueError, match="weight_bits: expected None or 8, got 4"):
        eight_bits("wide", weight_bits=4)


def test_channels_that_are_worth_nothing_keep_their_weights():
    from snn_convert.quantized import quantized_of, round_weights

    _, snn = eight_bits("wide")
    (node,) = [node for node in snn.engine.quantized if node.args[1].target == "hidden.weight"]
    snn.network.hidden.weight.copy_(torch.randn(snn.network.hidden.weight.shape))
    before, worth = snn.network.hidden.weight.clone(), torch.rand(before_inputs(snn))
    worth[3] = 0
    round_weights(snn.network, [node], {node: worth})
    after = snn.network.hidden.weight
    assert torch.equal(after[:, 3], before[:, 3])
    found = quantized_of(node, after, worth)
    assert torch.equal(found.values, quantize_weight(before * worth).values)


def before_inputs(snn: SpikingModel) -> int:
    return snn.network.hidden.weight.shape[1]
