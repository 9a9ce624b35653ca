"""The networks that are measured as wholes, with random weights, at their published depths and widths."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_convert.demo.networks import BasicBlock, convolution
from snn_convert.demo.tokens import Affine, MixerBlock, ResMLPBlock

from .runner import Setting

__all__ = ["ARCHITECTURES", "Architecture", "plain"]

CLASSES = 1000
PATCH = 16  # pixels a side, not overlapping


@dataclass(frozen=True)
class Architecture:
    """A network and its images.

    Attributes:
        build: ``build(size, **options)``, a network of images ``[B, 3, size, size]``; ``ImportError`` where it is made
            of a library that is not installed.
        size: pixels a side that a CPU stands; a GPU gets 224.
        small: options that make it as small as tests need it.
    """

    build: Callable[..., nn.Module]
    size: int
    small: dict[str, Any] = field(default_factory=dict)

    def made(self, setting: Setting) -> tuple[nn.Module, int]:
        """The network of this setting in evaluation, and the pixels of its images a side."""
        torch.manual_seed(0)
        size = 224 if setting.device == "cuda" else self.size
        model = self.build(size, **(self.small if setting.size == "tiny" else {}))
        return model.eval().requires_grad_(False).to(setting.device), size


def _initialised(model: nn.Module) -> nn.Module:
    """By He et al. 2015: under PyTorch's defaults what comes through a dozen convolutions is next to nothing."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


def plain(width: int, depth: int) -> nn.Module:
    """Convolutions of one width, no more: what grows with its sizes does so for no other reason."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(width if layer else 3, width, 3, padding=1) for layer in range(depth)]
    body = [module for layer in layers for module in (layer, nn.ReLU())]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))
    return _initialised(nn.Sequential(*body, *head)).eval().requires_grad_(False)


def _vgg16(size: int, width: int = 64) -> nn.Module:
    """Simonyan & Zisserman 2015, configuration D, with BatchNorm; its classifier takes what the pooling leaves."""
    layers, inputs = [], 3
    for count, outputs in ((2, width), (2, 2 * width), (3, 4 * width), (3, 8 * width), (3, 8 * width)):
        for _ in range(count):
            layers += [*convolution(inputs, outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    hidden = 64 * width
    layers += [nn.Flatten(), nn.Linear(inputs * (size // 32) ** 2, hidden), nn.ReLU()]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)]
    return _initialised(nn.Sequential(*layers))


def _resnet(size: int, blocks: tuple[int, ...], width: int = 64) -> nn.Module:
    """He et al. 2016; images of 32 pixels a side keep their size in the stem, as it is used on CIFAR."""
    layers = [*convolution(3, width), nn.ReLU()]
    if size > 32:
        layers = [*convolution(3, width, 2, kernel=7), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, count in enumerate(blocks):
        outputs = width * 2**stage
        for block in range(count):
            layers.append(BasicBlock(inputs, outputs, stride=2 if stage and not block else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)]
    return _initialised(nn.Sequential(*layers))


class _Tokens(nn.Module):
    """Patches as tokens, blocks, and the head on the mean of all tokens."""

    def __init__(self, width: int, blocks: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, width, PATCH, PATCH), nn.Sequential(*blocks)
        self.norm, self.head = norm, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(x).flatten(2).transpose(1, 2))).mean(1))


def _mlp_mixer(size: int, width: int = 768, depth: int = 12) -> nn.Module:
    """Tolstikhin et al. 2021: perceptrons over the tokens are half as wide as the network, over channels four times."""
    tokens, hidden = (size // PATCH) ** 2, (width // 2, 4 * width)
    return _Tokens(width, [MixerBlock(tokens, width, hidden) for _ in range(depth)], nn.LayerNorm(width))


def _resmlp(size: int, width: int = 384, depth: int = 24) -> nn.Module:
    """Touvron et al. 2021."""
    tokens = (size // PATCH) ** 2
    return _Tokens(width, [ResMLPBlock(tokens, width) for _ in range(depth)], Affine(width))


class _Logits(nn.Module):
    """A classifier of the transformers library, called with the images and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).logits


def _convnext(size: int, width: int = 96, blocks: tuple[int, ...] = (3, 3, 9, 3)) -> nn.Module:
    """Liu et al. 2022; layers scaled by 0.3, since by the 1e-6 of fresh networks they would not count."""
    transformers = importlib.import_module("transformers")
    widths = [width * 2**stage for stage in range(len(blocks))]
    options = {"num_stages": len(blocks), "layer_scale_init_value": 0.3, "num_labels": CLASSES, "image_size": size}
    config = transformers.ConvNextConfig(hidden_sizes=widths, depths=list(blocks), **options)
    return _Logits(transformers.ConvNextForImageClassification(config))


def _vit(size: int, width: int = 384, depth: int = 12, heads: int = 6) -> nn.Module:
    """Dosovitskiy et al. 2021; the small one of Touvron et al. 2021."""
    transformers = importlib.import_module("transformers")
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 4 * width, "image_size": size, "patch_size": PATCH, "num_labels": CLASSES}
    return _Logits(transformers.ViTForImageClassification(transformers.ViTConfig(**sizes)))


ARCHITECTURES = {
    "ResNet-18": Architecture(partial(_resnet, blocks=(2, 2, 2, 2)), 32, {"width": 4, "blocks": (1, 1)}),
    "ResMLP-24": Architecture(_resmlp, 64, {"width": 8, "depth": 1}),
    "VGG-16": Architecture(_vgg16, 32, {"width": 1}),
    "ResNet-34": Architecture(partial(_resnet, blocks=(3, 4, 6, 3)), 32, {"width": 4, "blocks": (1, 2)}),
    "ConvNeXt-T": Architecture(_convnext, 64, {"width": 8, "blocks": (1, 1)}),
    "MLP-Mixer-B": Architecture(_mlp_mixer, 64, {"width": 8, "depth": 1}),
    "ViT-S": Architecture(_vit, 64, {"width": 12, "depth": 1, "heads": 2}),
}
