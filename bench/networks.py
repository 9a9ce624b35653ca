"""Whole converted networks against the plain PyTorch loop that runs the same dynamics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snn_convert import convert
from snn_convert.loop import single_step_loop
from snn_kernels.schedules import Exponential

from .runner import Comparison, Setting, Variant, Work

__all__ = ["networks"]


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18() -> nn.Module:
    """ResNet-18 for 32x32 images, as it is used on CIFAR."""
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(width, outputs, stride), BasicBlock(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def networks(setting: Setting) -> Iterator[Comparison]:
    """ResNet-18 with random weights. The loop is what published code does: one network pass a step."""
    for size, batch, timesteps in setting.choose(((16, 2, 3),), ((32, 4, 8),), ((32, 8, 8), (32, 8, 32), (32, 8, 64))):
        for recipe in ("paper", "default"):
            yield _network(size, batch, timesteps, recipe, setting)


def _network(size: int, batch: int, timesteps: int, recipe: str, setting: Setting) -> Comparison:
    torch.manual_seed(0)
    model = resnet18().eval().to(setting.device)
    x, calibration = (torch.randn(count, 3, size, size, device=setting.device) for count in (batch, 16))
    snn = convert(model, [calibration], timesteps=timesteps, recipe=recipe, schedule=Exponential())
    wanted = single_step_loop(snn, x)

    @torch.no_grad()
    def network() -> Tensor:
        return snn.network(x)[0]  # the ANN with BatchNorm folded

    with FlopCounterMode(display=False) as flops:
        ann = network()

    def accept(name: str, output: Tensor) -> str:
        target = ann if name == "ANN" else wanted
        error = ((output - target).norm() / target.norm()).item()
        # Another order of addition moves a current by an ulp and so, through ties, single spikes.
        if not error < 2e-2:
            raise AssertionError(f"relative error {error:.1e}")
        return f"relative error {error:.1e}"

    once = flops.get_total_flops()
    variants = {
        "single-step loop": lambda: single_step_loop(snn, x),
        "snn_convert": lambda: snn(x),
        "ANN": Variant(network, Work(operations=once)),
    }
    return Comparison(
        f"ResNet-18, {size}x{size}, batch {batch}, T={timesteps}, {recipe} recipe",
        variants,
        "single-step loop",
        accept,
        shape=tuple(x.shape),
        timesteps=timesteps,
        work=Work(operations=once * timesteps),  # of a network pass a step
    )
