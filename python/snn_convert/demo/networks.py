"""The networks of the demo. Adding one is adding a row to ``NETWORKS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from .data import CLASSES

__all__ = ["NETWORKS", "Network"]


@dataclass(frozen=True)
class Network:
    """A network of the demo and how it is trained.

    Attributes:
        name: its key in the report.
        description: one sentence for the reader of the report.
        build: makes the untrained module; its input is ``[B, 1, 8, 8]``, its output ``[B, 10]``.
        epochs, learning_rate, weight_decay: AdamW under a one-cycle schedule.
    """

    name: str
    description: str
    build: Callable[[], nn.Module]
    epochs: int = 30
    learning_rate: float = 4e-3
    weight_decay: float = 1e-3


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (at stride 1) and its BatchNorm."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def vgg(width: int = 24) -> nn.Module:
    """Two stages of two convolutions, max pooling after each, and a hidden layer."""
    return nn.Sequential(
        *convolution(1, width),
        nn.ReLU(),
        *convolution(width, width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *convolution(width, 2 * width),
        nn.ReLU(),
        *convolution(2 * width, 2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 4, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, CLASSES),
    )


class BasicBlock(nn.Module):
    """The residual block of ResNet-18: two convolutions beside an identity, or beside a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolution(inputs, outputs, stride), nn.ReLU(), *convolution(outputs, outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(inputs, outputs, stride, kernel=1))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet(width: int = 16) -> nn.Module:
    """A stem, three residual blocks (two of them halve the image) and global average pooling."""
    return nn.Sequential(
        *convolution(1, width),
        nn.ReLU(),
        BasicBlock(width, width),
        BasicBlock(width, 2 * width, stride=2),
        BasicBlock(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


class MixerBlock(nn.Module):
    """The block of a ConvMixer, BatchNorm before GELU: a residual depthwise convolution, then a pointwise one."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(*convolution(width, width, kernel=kernel, groups=width), nn.GELU())
        self.pointwise = nn.Sequential(*convolution(width, width, kernel=1), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(x + self.depthwise(x))


def convmixer(width: int = 48, depth: int = 3) -> nn.Module:
    """A ConvMixer (Trockman & Kolter 2022) on patches of 2x2 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, width, kernel_size=3, stride=1, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.GELU(),
        nn.AvgPool2d(2),
        *(MixerBlock(width, kernel=3) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def _table(*rows: Network) -> dict[str, Network]:
    return {row.name: row for row in rows}


NETWORKS: dict[str, Network] = _table(
    Network("vgg", "VGG-style CNN: convolutions with BatchNorm and ReLU, max pooling, two linear layers", vgg),
    Network("resnet", "ResNet: residual blocks with BatchNorm and ReLU, global average pooling", resnet),
    Network("convmixer", "ConvMixer: depthwise and pointwise convolutions with BatchNorm and GELU", convmixer),
)
