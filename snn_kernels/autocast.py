"""Computing in the types of the operands, whatever ``torch.autocast`` there is around a call and cuDNN may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["without_autocast", "without_tf32"]


@contextmanager
def without_autocast() -> Iterator[None]:
    """A context, or with parentheses a decorator. Where PyTorch's own products are an op's, they are of float32."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def without_tf32() -> Iterator[None]:
    """A context, or with parentheses a decorator, in which cuDNN's convolutions do not round float32 to 10 bits, as by
    PyTorch's default they do."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
