"""Small models with the features that conversion has to get right."""

from __future__ import annotations

import torch
from torch import nn


def randomise_batch_norm(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and weights as training leaves them: nothing at its default, where folding could hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


class Residual(nn.Module):
    """A residual network with BatchNorm, a downsampling shortcut and global average pooling."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(2 * channels)
        self.second = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2)
        self.shortcut = nn.Conv2d(channels, 2 * channels, 1, stride=2)
        self.head = nn.Linear(2 * channels, 5)
        self.relu = nn.ReLU(inplace=True)  # shared by three places

    def forward(self, x):
        x = self.relu(self.stem_norm(self.stem(x)))
        y = self.relu(self.first_norm(self.first(x)))
        x = self.relu(self.second(y) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


def relu_cnn() -> nn.Module:
    """A ReLU CNN with BatchNorm, depthwise and grouped convolutions and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def pooled_cnn(activation: nn.Module | None = None, **pool) -> nn.Module:
    """Max pooling between convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), activation or nn.ReLU(), nn.MaxPool2d(**(pool or {"kernel_size": 2})),
        nn.Conv2d(4, 6, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def gelu_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 5))


def images(count: int = 6, size: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def as_trained(model: nn.Module, sample: dict, seed: int = 0) -> nn.Module:
    """Weights of the size that training leaves: activations of unit scale everywhere, norms and tokens off their
    defaults. A fresh Hugging Face model has weights so small that its outputs hardly depend on its inputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and name.endswith("weight") and "_embeddings." not in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            elif parameter.ndim >= 2:
                parameter.normal_(0, 0.5, generator=generator)
            elif name.endswith(("weight", "gamma")):
                parameter.uniform_(0.6, 1.4, generator=generator)
            elif name.endswith(("bias", "beta")):
                parameter.normal_(0, 0.1, generator=generator)
            else:
                parameter.normal_(0, 0.5, generator=generator)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        if norms:
            model.train()(**sample)
            model.train()(**sample)
    return model.eval()
