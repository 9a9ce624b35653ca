"""torchvision's and timm's models, where these are installed: they convert, run as the value-domain oracle does, and
reach the ANN in a few steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import as_trained
from snn_convert import convert
from snn_kernels.schedules import Exponential
from witness import witnessed

SWIN = {"patch_size": [2, 2], "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]}
VIT = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
TORCHVISION = {
    "resnet18": {},
    "densenet121": {},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "efficientnet_b0": {},
    "regnet_y_400mf": {},
    "convnext_tiny": {},
    "VisionTransformer": VIT,
    "SwinTransformer": SWIN,
}
TIMM = {
    "mixer_s32_224": {"img_size": 64},
    "resmlp_12_224": {"img_size": 32},
    "convnext_atto": {},
    "deit_tiny_patch16_224": {"img_size": 32},
    "mobilenetv3_small_050": {},
    "efficientnet_lite0": {},
}


def images(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def assert_converts(model: nn.Module, size: int, seen_through: bool = True) -> None:
    """The same function first; then the same spikes, and sixteen steps, one population after the other."""
    calibration = images(16, size, seed=2)
    x = calibration[:3]  # within the ranges found: with random weights other images lie far outside
    model = as_trained(model, {"x": calibration})
    snn = convert(model, [calibration], timesteps=16, onset_delay=16)
    with torch.no_grad():
        wanted, network, reached = model(x), snn.network(x)[0], snn(x)
    assert (network - wanted).norm() < 1e-4 * wanted.norm()
    assert (reached - wanted).norm() < 0.1 * wanted.norm()
    if not seen_through:
        return
    snn = convert(model, [calibration], timesteps=9, schedule=Exponential(0.5, 0.75))
    for output, expected in zip(*witnessed(model, x, snn, [1, 2, 9], "vector")):
        assert (output - expected).norm() < 1e-5 * expected.norm()  # float32 roundings of up to a hundred layers


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5, **TORCHVISION[name])
    size = TORCHVISION[name].get("image_size", 32 if "Swin" in name else 64)
    # nn.MultiheadAttention hides the functions it calls from the oracle.
    assert_converts(model, size, seen_through=name != "VisionTransformer")


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    assert_converts(timm.create_model(name, num_classes=5, **TIMM[name]), TIMM[name].get("img_size", 64))
