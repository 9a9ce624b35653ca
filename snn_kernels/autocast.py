"""Computing in the types of the operands, whatever ``torch.autocast`` there is around a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["without_autocast"]


@contextmanager
def without_autocast() -> Iterator[None]:
    """A context, or with parentheses a decorator. Where PyTorch's own products are an op's, they are of float32."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
