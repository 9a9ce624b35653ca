"""The networks of the demo. Adding one is adding a row to ``NETWORKS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from .data import CLASSES
from .tokens import convnext, mlp_mixer, resmlp, vit

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


def _table(*rows: Network) -> dict[str, Network]:
    return {row.name: row for row in rows}


NETWORKS: dict[str, Network] = _table(
    Network("vgg", "VGG-style CNN: convolutions with BatchNorm and ReLU, max pooling, two linear layers", vgg),
    Network("resnet", "ResNet: residual blocks with BatchNorm and ReLU, global average pooling", resnet),
    Network(
        "convnext",
        "ConvNeXt: residual blocks of depthwise convolution, LayerNorm, GELU and layer scale",
        convnext,
        epochs=40,
        learning_rate=6e-3,
    ),
    Network(
        "mlp_mixer",
        "MLP-Mixer: perceptrons over the patches and over the channels in turn, LayerNorm and GELU",
        mlp_mixer,
        epochs=40,
        learning_rate=8e-3,
    ),
    Network(
        "resmlp",
        "ResMLP: linear maps over the patches, perceptrons over the channels, GELU, no normalisation",
        resmlp,
        epochs=40,
        learning_rate=1e-2,
    ),
    Network(
        "vit",
        "ViT: self-attention between the patches, perceptrons over the channels, LayerNorm and GELU",
        vit,
        epochs=40,
        learning_rate=3e-3,
    ),
)
