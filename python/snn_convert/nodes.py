"""What a node of a graph refers to and what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from snn_kernels.autocast import without_autocast

__all__ = ["PRECISIONS", "apart", "attribute", "call_node", "cast", "population_name"]

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def apart() -> Iterator[None]:
    """How networks are converted and run: without gradients, in their own types whatever ``torch.autocast`` says."""
    with torch.no_grad(), without_autocast():
        yield


def attribute(root: Any, path: str) -> Any:
    """The parameter or buffer that a ``get_attr`` node names."""
    for part in path.split("."):
        root = getattr(root, part)
    return root


def population_name(node: fx.Node) -> str:
    """What the user knows the population by that a ``call_module`` node calls."""
    return node.target.removeprefix("populations.")


def cast(value: Any, precision: torch.dtype) -> Any:
    """A tensor of float32 or half precision in ``precision``; anything else as it is."""
    return value.to(precision) if isinstance(value, Tensor) and value.dtype in PRECISIONS else value


def call_node(node: fx.Node, values: Mapping[fx.Node, Any], precision: torch.dtype = torch.float32) -> Any:
    """The value of a ``call_function`` node from those of its arguments, computed in ``precision``."""
    args = fx.node.map_arg(node.args, lambda source: cast(values[source], precision))
    kwargs = fx.node.map_arg(node.kwargs, lambda source: cast(values[source], precision))
    return node.target(*args, **kwargs)
