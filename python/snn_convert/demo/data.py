"""The digits of scikit-learn, split once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["CLASSES", "Split", "load_split", "shifted"]

CLASSES = 10
TEST_SHARE = 0.25
SEED = 0


@dataclass(frozen=True)
class Split:
    """Images as float32 ``[N, 1, 8, 8]`` in [0, 1], labels as int64 ``[N]``.

    ``train_index`` and ``test_index`` are the samples' places in scikit-learn's data set.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    train_index: Tensor
    test_index: Tensor


def load_split(seed: int = SEED) -> Split:
    """The 1797 digits as a stratified split, 75 % to train on and 25 % held out; the same for the same seed.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy((digits.images / 16.0).astype(np.float32)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=digits.target, random_state=seed
    )
    train, test = torch.from_numpy(train), torch.from_numpy(test)
    return Split(images[train], labels[train], images[test], labels[test], train, test)


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image moved by its own random shift of at most one pixel; what leaves is lost, what enters is 0."""
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    every = torch.stack([padded[..., dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)])
    choice = torch.randint(0, len(every), (len(images),), generator=generator)
    return every[choice, torch.arange(len(images))]
