"""Trains stay packed between the layers of a converted network, and the spikes are the same as without that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import images
from snn_convert import convert, packed
from snn_kernels import _C
from snn_kernels.schedules import Exponential
from witness import witnessed

vectors = pytest.mark.skipif(_C.isa == "portable", reason="packed products are used with AVX-512 and AVX2")


class Wide(nn.Module):
    """Convolutions and linear maps behind neurons, directly and through reshapes, one of them with two users."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20, 24, 3, stride=2, padding=1)
        self.hidden, self.gate = nn.Linear(24 * 16, 33), nn.Linear(33, 33)
        self.head = nn.Linear(33, 17)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        x = torch.nn.functional.gelu(self.hidden(x.transpose(1, 2).transpose(1, 2).flatten(1)))
        y = self.gate(x)
        return self.head(torch.relu(y) + y)


def converted(**options):
    torch.manual_seed(0)
    model = Wide().eval()
    return model, convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9), **options)


def assert_agrees_with_the_oracle(snn, model, x, steps):
    for output, wanted in zip(*witnessed(model, x, snn, steps, "decomposed")):
        assert (output - wanted).norm() <= 1e-6 * wanted.norm()  # a few float32 roundings


@vectors
def test_products_are_taken_from_packed_trains():
    model, snn = converted()
    by_target = [str(node.target) for node in snn.engine.amplitudes]
    assert by_target == ["aten.conv2d.default", "aten.linear.default", "aten.linear.default"]
    assert_agrees_with_the_oracle(snn, model, images(5), [7, 20])


@vectors
def test_packed_and_dense_products_agree(monkeypatch):
    _, snn = converted()
    x = images(5)
    output = snn(x)
    monkeypatch.setattr(packed, "PRODUCTS", {})
    _, dense = converted()
    assert snn.engine.amplitudes
    assert not dense.engine.amplitudes
    assert (output - dense(x)).norm() <= 1e-3 * output.norm()


@vectors
def test_currents_of_fused_layers_never_exist(monkeypatch):
    """Only the product with two users, and no other, is ever taken apart from its neurons."""
    _, snn = converted()
    taken = []
    original = packed.Product.dense
    monkeypatch.setattr(packed.Product, "dense", lambda self: taken.append(self.weight.shape) or original(self))
    snn(images(5))
    assert set(taken) <= {(33, 33)}


class Shortcuts(nn.Module):
    """Residual sums of a product and a train, of two products, and of a product that is read twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1)
        self.second, self.across = nn.Conv2d(20, 24, 3, 2, 1), nn.Conv2d(20, 24, 1, 2)
        self.third, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.first(x) + x)
        x = torch.relu(self.across(x) + self.second(x))
        y = self.third(x)
        x = torch.relu(torch.relu(y) + y + x)
        return self.head(x.mean((2, 3)))


@vectors
def test_depthwise_convolutions_read_trains():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU(), nn.Conv2d(12, 6, 1)]
    model, x = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval(), images(5)
    model(x)
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9))
    assert sum("conv2d" in str(node.target) for node in snn.engine.amplitudes) == 2
    assert_agrees_with_the_oracle(snn, model, x, [12])


@vectors
def test_residual_sums_are_part_of_the_fused_op(monkeypatch):
    torch.manual_seed(0)
    model, x = Shortcuts().eval(), images(5)
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9))
    fused, original = [], packed.Product.fires
    monkeypatch.setattr(
        packed.Product,
        "fires",
        lambda self, *a, **k: fused.append(self.residual is not None) or original(self, *a, **k),
    )
    snn(x)
    assert sum(fused) == 2 * 3  # the first two sums, in three rounds of at most eight steps
    assert_agrees_with_the_oracle(snn, model, x, [20])


class Mixer(nn.Module):
    """Residual sums of a train that has changed its layout, of a scaled train, and along another dimension."""

    def __init__(self):
        super().__init__()
        self.stem, self.tokens = nn.Conv2d(1, 20, 4, 4), nn.Linear(4, 4)
        self.features, self.again, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        x = torch.relu(self.features(x) + x)
        x = torch.relu(0.5 * x + self.again(x)).transpose(1, 2)
        x = torch.relu(x + self.tokens(x))
        return self.head(x.mean(1))


def steps_of(model: nn.Module, x: torch.Tensor, **options) -> list[torch.Tensor]:
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9), **options)
    return snn.outputs_at(x, steps=[3, 8, 20])


@vectors
@pytest.mark.parametrize("network", [Shortcuts, Mixer])
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_a_residual_train_gives_the_bits_of_its_currents(monkeypatch, network, recipe):
    torch.manual_seed(0)
    model, x = network().eval(), images(5)
    residuals, original = [], packed.Product.fires

    def fires(self, *args, **kwargs):
        residuals.append(self.residual_amplitude is not None)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(packed.Product, "fires", fires)
    outputs = steps_of(model, x, recipe=recipe)
    # One sum of each network adds a train with a scale a feature, in four rounds; the paper's scales are one a neuron.
    assert sum(residuals) == (4 if recipe == "default" else 0)
    monkeypatch.setattr(packed, "_amplitude_in_sum", lambda *_: None)
    residuals.clear()
    for output, dense in zip(outputs, steps_of(model, x, recipe=recipe)):
        assert torch.equal(output, dense)
    assert not any(residuals)


@vectors
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_residuals_in_half_precision(precision):
    """A scaled train is a current of that precision, the product it is added to is float32."""
    torch.manual_seed(0)
    model, x = Mixer().eval(), images(5)
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9))
    wanted = snn(x)
    output = snn.to(precision)(x.to(precision))
    assert output.dtype == precision
    assert (output.float() - wanted).norm() <= 0.1 * wanted.norm()


def test_a_scale_per_neuron_is_not_folded():
    """The paper's scales differ from position to position, so convolutions of them cannot read trains."""
    _, snn = converted(recipe="paper")
    assert not any("conv2d" in str(node.target) for node in snn.engine.amplitudes)


def test_common_amplitude():
    scale = torch.rand(1, 4, 1, 1).expand(2, 4, 3, 3)
    assert torch.equal(packed.common_amplitude(scale, 1), scale[0, :, 0, 0])
    assert packed.common_amplitude(scale, -1) is None
    assert packed.common_amplitude(torch.rand(2, 4), -1) is None
