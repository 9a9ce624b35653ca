"""Checks of arguments that several ops take. Each error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["DTYPES", "Field", "checked_currents", "checked_eta", "checked_field", "kind"]

# What currents, weights and dense spikes are of, and the names that kernels know the types by.
DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}

Field = Tensor | float  # what broadcasts to a population


def kind(value: object) -> str:
    """A value in an error message: a tensor by its dtype, shape and device."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} on {value.device}"
    return f"{type(value).__name__} {value!r}"


def checked_currents(currents: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Currents ``[T, *shape]`` of one shape, dtype and device; the first of them."""
    first = currents[0]
    for name, current in zip(names, currents):
        if not isinstance(current, Tensor) or current.dtype not in DTYPES:
            raise TypeError(f"{name}: expected a float32, float16 or bfloat16 tensor, got {kind(current)}")
        if current.ndim == 0:
            raise ValueError(f"{name}: expected [T, *shape], got a tensor without dimensions")
        if (current.shape, current.dtype, current.device) != (first.shape, first.dtype, first.device):
            raise ValueError(f"{name}: expected the shape, dtype and device of {names[0]}, got {kind(current)}")
    return first


def checked_eta(eta: Tensor, timesteps: int, device: torch.device) -> None:
    """Step sizes: float32 ``[T]`` on the device."""
    if not isinstance(eta, Tensor) or eta.dtype != torch.float32:
        raise TypeError(f"eta: expected a float32 tensor, got {kind(eta)}")
    if eta.shape != (timesteps,) or eta.device != device:
        raise ValueError(f"eta: expected shape ({timesteps},) on {device}, got {kind(eta)}")


def checked_field(name: str, value: Field, shape: Sequence[int], device: torch.device) -> Tensor:
    """A number or a float32 tensor that broadcasts to the population ``shape``, as a tensor."""
    if not isinstance(value, Tensor):
        if not isinstance(value, (int, float)):
            raise TypeError(f"{name}: expected a number or a tensor, got {kind(value)}")
        return torch.full((), value, dtype=torch.float32, device=device)
    if value.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got {kind(value)}")
    fits = value.ndim <= len(shape) and all(a in (1, b) for a, b in zip(reversed(value.shape), reversed(shape)))
    if not fits:
        raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(shape)}, got {kind(value)}")
    if value.dtype != torch.float32:
        raise TypeError(f"{name}: expected float32, got {kind(value)}")
    return value
