"""A converted network in half precision and on other devices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from converted import MODELS, converted
from models import gelu_mlp, images
from snn_convert import SpikingModel, convert
from snn_kernels.schedules import Exponential


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_half_precision(name, precision, tmp_path):
    """Outputs stay near the float32 ones: what differs is the rounding of weights and currents, and the spikes that
    it flips, each of which moves an estimate by two steps at most and is made good by those that follow."""
    snn = converted(name, timesteps=32, schedule=Exponential(0.3, 0.9))
    wanted, (ann,) = snn(images()), snn.network(images())
    half = copy.deepcopy(snn).to(precision)
    got = half(images().to(precision))
    assert got.dtype == precision
    # The conversion's own error bounds what flipped spikes can do; bfloat16 rounds the weights to 8 bits besides.
    own = (wanted - ann).norm() / ann.norm()
    rounding = 32 * torch.finfo(precision).eps
    assert (got.float() - wanted).norm() / wanted.norm() < own + rounding
    half.save(tmp_path / "half.snn")
    assert torch.equal(SpikingModel.load(tmp_path / "half.snn")(images().to(precision)), got)
    with pytest.raises(TypeError, match=f"expected a tensor of {precision}, got torch.float32"):
        half(images())


def test_a_precision_that_it_has():
    half = converted("vit").half()
    wanted = half(images().half())
    assert torch.equal(half.half()(images().half()), wanted)


def test_neurons_stay_in_float32():
    snn = converted("vit")
    before = {name: tensor.clone() for name, tensor in snn.named_buffers()}
    half = snn.half()
    assert half is snn
    assert snn.eta.dtype == torch.float32
    assert torch.equal(snn.eta, before["eta"])
    for name, population in snn.populations():
        for key, tensor in population.named_buffers():
            assert tensor.dtype == torch.float32
            if key == "scale":  # what a spike is worth in half precision is what it is worth to its own neuron
                assert torch.equal(tensor, before[f"network.populations.{name}.scale"].half().float())
            elif not key.startswith("offset"):
                assert torch.equal(tensor, before[f"network.populations.{name}.{key}"])
    assert {p.dtype for p in snn.network.parameters()} == {torch.float16}


def test_offsets_follow_the_rounded_weights():
    """The offset is what the rounded weights deliver: measured with the others, all neurons would drift."""
    snn = converted("cnn")
    before = [population.offset_0.clone() for _, population in snn.populations()]
    rounded = copy.deepcopy(snn)
    rounded.bfloat16()
    again = copy.deepcopy(rounded)
    again.measure_offsets(images().bfloat16())
    pairs = list(zip(rounded.populations(), again.populations()))
    assert all(torch.equal(a.offset_0, b.offset_0) for (_, a), (_, b) in pairs)
    assert not all(torch.equal(a, b.offset_0) for a, (_, b) in zip(before, rounded.populations()))


def test_back_to_float32():
    snn = converted("residual")
    wanted = snn(images())
    snn.half().float()
    # Weights and scales keep the rounding to 11 bits; a few spikes may flip.
    assert (snn(images()) - wanted).norm() / wanted.norm() < 0.05


def test_other_precisions_are_refused():
    snn = convert(gelu_mlp(), [images()], timesteps=3, schedule=Exponential())
    with pytest.raises(TypeError, match="dtype: expected float32, float16 or bfloat16"):
        snn.double()
    assert torch.isfinite(snn(images())).all()


def test_operations_that_name_a_device_follow():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return torch.relu(self.layer(x)) + torch.arange(x.shape[0], device=x.device)[:, None]

    snn = convert(Positions(), [torch.randn(3, 4)], timesteps=3, schedule=Exponential())
    snn.to("meta")
    devices = {node.kwargs["device"].type for node in snn.network.graph.nodes if "device" in node.kwargs}
    assert devices == {"meta"}


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu(name, precision, tmp_path):
    snn = converted(name)
    wanted = snn(images())
    moved = copy.deepcopy(snn).to("cuda", precision)
    got = moved(images().to("cuda", precision))
    assert got.device.type == "cuda"
    assert (got.float().cpu() - wanted).norm() / wanted.norm() < 0.2  # nine steps: each flipped spike is a large one
    moved.save(tmp_path / "model.snn")
    assert SpikingModel.load(tmp_path / "model.snn").eta.device.type == "cpu"
