"""Checks of arguments that several places take. Each error names the argument, what was expected and what came."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

__all__ = ["steps_up_to", "whole"]


def whole(name: str, value: Any, least: int, most: int | None = None, called: str = "") -> int:
    """``value`` as an ``int`` from ``least`` to ``most``, whether it is Python's, NumPy's or torch's.

    Raises:
        ValueError: it is none, or beyond; the message has ``most`` as what it is ``called``.
    """
    number = _index(value)
    if number is None or number < least or (most is not None and number > most):
        expected = f">= {least}" if most is None else f"from {least} to {called}={most}"
        raise ValueError(f"{name}: expected an integer {expected}, got {value!r}")
    return number


def steps_up_to(last: int, called: str, steps: Any) -> list[int]:
    """``steps`` as integers from 1 to ``last``.

    Raises:
        ValueError: they are none, none at all, or beyond; the message has ``last`` as what it is ``called``.
    """
    given = list(steps) if isinstance(steps, Iterable) and getattr(steps, "ndim", 1) else steps
    numbers = [_index(step) for step in given] if isinstance(given, list) else []
    if not numbers or any(number is None or not 1 <= number <= last for number in numbers):
        raise ValueError(f"steps: expected integers from 1 to {called}={last}, got {given!r}")
    return numbers


def _index(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
