"""Small networks of the families that conversion is for, in the way their authors write them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention, by PyTorch's function or written out."""

    def __init__(self, width: int, heads: int = 2, causal: bool = False, written_out: bool = False):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal, self.written_out = heads, causal, written_out

    def forward(self, x, mask=None):
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if self.written_out:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
            y = torch.softmax(scores, -1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, norm=nn.LayerNorm, **attention):
        super().__init__()
        self.norm1, self.attention = norm(width), Attention(width, **attention)
        self.norm2 = norm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x, mask=None):
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A class token, learned positions, blocks, and the head on the class token."""

    def __init__(self, width: int = 12, depth: int = 2, **block):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, **block) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Mixer(nn.Module):
    """MLP-Mixer: perceptrons over the tokens and over the channels in turn."""

    def __init__(self, width: int = 8, tokens: int = 4):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 10), nn.GELU(), nn.Linear(10, tokens))
        self.over_channels = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.over_channels(self.norm2(x))
        return self.head(self.norm(x).mean(1))


class ResMLP(nn.Module):
    """Affine maps in place of normalisation, and layer scale by ``addcmul``."""

    def __init__(self, width: int = 8, tokens: int = 4):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.alpha, self.beta = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))
        self.scale = nn.Parameter(torch.rand(width))
        self.over_tokens = nn.Linear(tokens, tokens)
        self.over_channels = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        mixed = self.over_tokens(torch.addcmul(self.beta, self.alpha, x).transpose(1, 2)).transpose(1, 2)
        x = torch.addcmul(x, self.scale, mixed)
        return self.head((x + self.scale * self.over_channels(x)).mean(1))


class DenseNet(nn.Module):
    """BatchNorm before the convolution, and concatenation."""

    def __init__(self, width: int = 6, growth: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + i * growth), nn.ReLU(), nn.Conv2d(width + i * growth, growth, 3, padding=1)
            )
            for i in range(2)
        )
        self.transition = nn.Sequential(nn.Conv2d(width + 2 * growth, width, 1), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(self.transition(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A MobileNetV3 / EfficientNet block: expand, depthwise, squeeze and excite, project."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(1, width, 1, bias=False), nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.squeeze, self.excite = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)
        self.project, self.head = nn.Conv2d(width, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = F.hardswish(self.expand_norm(self.expand(x)))
        x = F.silu(self.depthwise(x))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.project(x * gate).mean((2, 3)))


class Normalised(nn.Module):
    """A normalisation over channels and places between two convolutions."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 6, 3), norm, nn.Conv2d(6, 4, 3)

    def forward(self, x):
        x = F.gelu(self.norm(F.relu(self.first(x))))
        return F.interpolate(self.second(x), scale_factor=2, mode="bilinear").flatten(1)


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5),
    )  # fmt: skip
