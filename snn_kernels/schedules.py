"""Step-size tables ``eta[t]`` of the sign gradient descent update.

A schedule is computed once in float64 and rounded to float32, so that every backend reads the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

__all__ = ["Constant", "Exponential", "Inverse", "Polynomial", "RMSprop", "Schedule", "Table", "Uniform"]


class Schedule:
    """A step-size rule. Subclasses define :meth:`at`; :meth:`table` turns it into ``eta`` for ``T`` steps."""

    def at(self, t: Tensor) -> Tensor:
        """Step sizes at the float64 time-steps ``t``."""
        raise NotImplementedError

    def table(self, timesteps: int) -> Tensor:
        """``eta`` as float32 ``[T]`` on the CPU."""
        if not isinstance(timesteps, int) or timesteps < 0:
            raise ValueError(f"timesteps: expected an integer >= 0, got {timesteps!r}")
        return self.at(torch.arange(timesteps, dtype=torch.float64, device="cpu")).float()


class _Formula(Schedule):
    """A step-size rule of numbers. Their ranges keep step sizes finite and not negative.

    Raises:
        ValueError: a number out of its range.
    """

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = "above 0" if name == "start" else ">= 0"
            most = 1 if name == "alpha" else math.inf
            if not isinstance(value, Real) or not 0 <= value < most or (name == "start" and value == 0):
                raise ValueError(f"{name}: expected a number {least} and below {most}, got {value!r}")


@dataclass(frozen=True)
class Exponential(_Formula):
    """``eta[t] = lr * gamma**t``. The defaults are the ones of Oh & Lee (ICML 2024)."""

    lr: float = 0.15
    gamma: float = 0.95

    def at(self, t: Tensor) -> Tensor:
        return self.lr * self.gamma**t


@dataclass(frozen=True)
class Inverse(_Formula):
    """``eta[t] = lr / (t + start)``; ``Inverse(1.0)`` is the running mean, i.e. rate coding."""

    lr: float = 1.0
    start: float = 1.0

    def at(self, t: Tensor) -> Tensor:
        return self.lr / (t + self.start)


@dataclass(frozen=True)
class Constant(_Formula):
    """``eta[t] = lr``."""

    lr: float

    def at(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.lr)


@dataclass(frozen=True)
class Polynomial(_Formula):
    """``eta[t] = lr / (t + start)**power``."""

    lr: float
    power: float
    start: float = 1.0

    def at(self, t: Tensor) -> Tensor:
        return self.lr / (t + self.start) ** self.power


@dataclass(frozen=True)
class RMSprop(_Formula):
    """``eta[t] = lr / sqrt(1 - alpha**(t + 1))``: RMSprop on sign gradients.

    The running mean of the squares of gradients that are all 1 or -1 is ``1 - alpha**(t + 1)``, the same for every
    neuron, so that RMSprop is a table of step sizes here and receivers decode with the same one.
    """

    lr: float
    alpha: float = 0.99

    def at(self, t: Tensor) -> Tensor:
        return self.lr / (1 - self.alpha ** (t + 1)).sqrt()


@dataclass(frozen=True)
class Uniform(Schedule):
    """``eta[t] = 1 / T``: every step of a train of ``T`` counts alike."""

    def at(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 1.0 / max(t.numel(), 1))


@dataclass(frozen=True)
class Table(Schedule):
    """``eta[t] = values[t]``: step sizes given one by one.

    Raises:
        ValueError: a value is no finite number >= 0, or :meth:`table` is asked for more steps than there are values.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        for value in self.values:
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"values: expected numbers in [0, inf), got {value!r}")

    def at(self, t: Tensor) -> Tensor:
        if len(t) > len(self.values):
            raise ValueError(f"timesteps: expected at most {len(self.values)}, the step sizes given, got {len(t)}")
        return torch.tensor(self.values, dtype=torch.float64, device=t.device)[t.long()]
