"""Checks of arguments that several places take. Each error names the argument, what was expected and what came."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["whole"]


def whole(name: str, value: Any, least: int) -> int:
    """``value`` as an ``int`` of at least ``least``, whether it is Python's, NumPy's or torch's.

    Raises:
        ValueError: it is none, or less.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    return number
