"""How the cost of a whole converted network grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from .architectures import plain
from .networks import whole_network
from .runner import Comparison, Setting

__all__ = ["scaling"]

SIZE = 16  # pixels a side
MIDDLE = {"T": 8, "batch": 4, "width": 32, "depth": 8}
# For each quantity, what it takes while the others stay: for tests, for all runs, and for full ones besides.
VALUES = {
    "T": ((3, 9), (8, 32, 128), (512,)),
    "batch": ((1, 2), (1, 4, 16), (64,)),
    "width": ((3, 4), (16, 32, 128), (256,)),
    "depth": ((1, 2), (2, 8, 32), (64,)),
}


def scaling(setting: Setting) -> Iterator[Comparison]:
    """A plain convolutional network; steps, batch, width and depth vary one at a time."""
    middle = {name: values[0][0] for name, values in VALUES.items()} if setting.size == "tiny" else MIDDLE
    for name, values in VALUES.items():
        for value in setting.choose(*values):
            sizes = {**middle, name: value}
            model = plain(sizes["width"], sizes["depth"]).to(setting.device)
            x = torch.randn(sizes["batch"], 3, SIZE, SIZE, device=setting.device)
            others = ", ".join(f"{other} {sizes[other]}" for other in sizes if other != name)
            comparison = whole_network(f"{name} {value}, with {others}", model, x, sizes["T"], "default")
            variants = {key: comparison.variants[key] for key in ("ANN", "snn_convert")}
            yield replace(comparison, variants=variants, baseline="ANN", sweep=name, facts=sizes)
