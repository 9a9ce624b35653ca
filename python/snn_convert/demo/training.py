"""Training of the demo's networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Split, shifted
from .networks import Network

__all__ = ["BATCH_SIZE", "SEED", "accuracy", "build", "train", "training_steps"]

BATCH_SIZE = 64
SEED = 0


def training_steps(network: Network, split: Split) -> int:
    """How many batches :func:`train` goes through."""
    return network.epochs * -(-len(split.train_labels) // BATCH_SIZE)


def build(network: Network) -> nn.Module:
    """The untrained module, the same every time; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return network.build()


def train(network: Network, split: Split, on_step: Callable[[], None] = lambda: None) -> nn.Module:
    """Trains with AdamW, a one-cycle schedule and one-pixel shifts; returns the module in evaluation mode.

    Args:
        on_step: called after every batch.
    """
    model = build(network).train()
    steps = training_steps(network, split)
    optimizer = torch.optim.AdamW(model.parameters(), network.learning_rate, weight_decay=network.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, network.learning_rate, total_steps=steps)
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for _ in range(network.epochs):
            for batch in torch.randperm(len(split.train_labels), generator=generator).split(BATCH_SIZE):
                logits = model(shifted(split.train_images[batch], generator))
                loss = F.cross_entropy(logits, split.train_labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                on_step()
    return model.eval().requires_grad_(False)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the samples whose largest output is at the label."""
    return (logits.argmax(-1) == labels).double().mean().item()
