"""Networks that read an image as a grid of patches: ConvNeXt, MLP-Mixer, ResMLP and ViT, small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import CLASSES

__all__ = ["convnext", "mlp_mixer", "resmlp", "vit"]

PATCH, STRIDE = 4, 2  # pixels a side: patches overlap by half
TOKENS = 9  # three patches a side


def perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, LayerNorm and a perceptron over the channels, beside an identity (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm, self.perceptron = nn.LayerNorm(width), perceptron(width, 4 * width)
        self.layer_scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.layer_scale * self.perceptron(self.norm(y))
        return x + y.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext(width: int = 24) -> nn.Module:
    """Two stages of one block, a patchifying stem and a downsampling convolution between the stages."""
    return nn.Sequential(
        nn.Conv2d(1, width, 2, 2),
        ConvNeXtBlock(width),
        ChannelNorm(width),
        nn.Conv2d(width, 2 * width, 2, 2),
        ConvNeXtBlock(2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(2 * width),
        nn.Linear(2 * width, CLASSES),
    )


class Patches(nn.Module):
    """The image as tokens ``[B, TOKENS, width]``, with learned positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(1, width, PATCH, STRIDE)
        self.positions = nn.Parameter(0.2 * torch.randn(1, TOKENS, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x).flatten(2).transpose(1, 2) + self.positions


class MixerBlock(nn.Module):
    """A perceptron over the tokens, then one over the channels, each after LayerNorm (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int, width: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_tokens, self.over_channels = perceptron(tokens, hidden[0]), perceptron(width, hidden[1])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


class Affine(nn.Module):
    """ResMLP's stand-in for normalisation: a factor and a shift a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class ResMLPBlock(nn.Module):
    """A linear map over the tokens and a perceptron over the channels, with layer scale (Touvron et al. 2021)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.affine1, self.affine2 = Affine(width), Affine(width)
        self.over_tokens, self.over_channels = nn.Linear(tokens, tokens), perceptron(width, 4 * width)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width,), 0.3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.over_tokens(self.affine1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.scale2 * self.over_channels(self.affine2(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries_keys_values(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """Attention, then a perceptron over the channels, each after LayerNorm (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.perceptron = Attention(width, heads), perceptron(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.perceptron(self.norm2(x))


class OfTokens(nn.Module):
    """Patches, blocks, and the head on the mean of all tokens."""

    def __init__(self, width: int, blocks: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.patches, self.blocks = Patches(width), nn.Sequential(*blocks)
        self.norm, self.head = norm, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(x))).mean(1))


def mlp_mixer(width: int = 48, depth: int = 2) -> nn.Module:
    blocks = [MixerBlock(TOKENS, width, (4 * TOKENS, 2 * width)) for _ in range(depth)]
    return OfTokens(width, blocks, nn.LayerNorm(width))


def resmlp(width: int = 48, depth: int = 2) -> nn.Module:
    return OfTokens(width, [ResMLPBlock(TOKENS, width) for _ in range(depth)], Affine(width))


def vit(width: int = 48, depth: int = 2, heads: int = 4) -> nn.Module:
    return OfTokens(width, [EncoderBlock(width, heads) for _ in range(depth)], nn.LayerNorm(width))
