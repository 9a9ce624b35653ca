"""Converted networks without a GPU, with the kernels of the backend that the environment variable BACKEND names.

Run in a process of its own like products_without_gpu.py.
"""

import os

import pytest
import torch
from torch import nn

from cuda_kernels import kernels_of
from models import images
from snn_convert import convert
from snn_kernels import SpikeTrain
from snn_kernels.backends import FASTEST_FIRST
from snn_kernels.ops.spike_gemm import gpu
from snn_kernels.schedules import Exponential
from test_convert_packed import Attending, Mixer, Shortcuts, assert_agrees_with_the_oracle

BACKEND = os.environ["BACKEND"]


@pytest.fixture(autouse=True)
def fastest_here(monkeypatch):
    """What is chosen for tensors on the CPU is what would be for those on a GPU."""
    monkeypatch.setitem(FASTEST_FIRST, "cpu", (BACKEND,))
    with kernels_of(BACKEND):
        yield


@pytest.fixture
def products(monkeypatch) -> list[str]:
    """The tensor cores' products as they are taken, by name."""
    taken = []

    def recorded(name):
        original = getattr(gpu, name)
        return lambda *arguments: taken.append(name) or original(*arguments)

    for name in ("linear", "linear_signgd", "convolution", "convolution_signgd"):
        monkeypatch.setattr(gpu, name, recorded(name))
    return taken


def converted(model: nn.Module, **options):
    torch.manual_seed(0)
    return convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9), **options)


@pytest.mark.parametrize("weight_bits", [None, 8])
def test_trains_stay_packed_between_layers(weight_bits, products):
    torch.manual_seed(0)
    model = Shortcuts().eval()
    snn = converted(model, weight_bits=weight_bits)
    if weight_bits:
        assert snn.engine.quantized.keys() == {node for node in snn.engine.amplitudes if node.args[1].op == "get_attr"}
        model.load_state_dict(dict(snn.network.named_parameters()))
    products.clear()
    assert_agrees_with_the_oracle(snn, model, images(3), [12])
    assert "convolution_signgd" in products
    assert set(products) <= {"convolution", "convolution_signgd"}


def test_tokens_are_mixed_from_packed_trains(products):
    torch.manual_seed(0)
    model = Mixer().eval()
    snn = converted(model)
    products.clear()
    assert_agrees_with_the_oracle(snn, model, images(3), [12])
    assert "linear" in products


def test_attention_unpacks_no_train(monkeypatch):
    model = Attending().eval()
    snn = converted(model)
    assert_agrees_with_the_oracle(snn, model, images(2), [12], "vector")
    monkeypatch.setattr(SpikeTrain, "unpack", None)
    snn(images(2))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2)
        self.point, self.head = nn.Conv2d(4, 6, 1), nn.Linear(6 * 16, 3)

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.point(x)).flatten(1))


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_groups_are_fused_and_scales_of_neurons_left_to_pytorch(recipe, products):
    """Tensor cores know no amplitude for each neuron."""
    torch.manual_seed(0)
    model = Grouped().eval()
    snn = converted(model, recipe=recipe)
    assert len(snn.engine.amplitudes) == (2 if recipe == "default" else 0)
    products.clear()
    assert_agrees_with_the_oracle(snn, model, images(2), [12])
    assert products == (["convolution_signgd"] * 2 if recipe == "default" else [])


def test_neurons_that_the_tensor_cores_do_not_have(products):
    """Their products are taken by themselves. Such trains are sparse; a GPU does not count them to choose a method."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)]
    model = nn.Sequential(*layers).eval()
    snn = convert(model, [images(16, seed=2)], timesteps=8, recipe="subgradient", scale="channel")
    products.clear()
    output = snn(images(2))
    assert products == ["convolution"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FASTEST_FIRST, "cpu", ("cpu",))
        snn.refresh()
        wanted = snn(images(2))
    assert (output - wanted).norm() <= 1e-3 * wanted.norm()
