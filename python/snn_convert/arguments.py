"""The arguments of a call, by position or by name, as those of the calibration data were."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch.utils import _pytree as pytree

__all__ = ["as_calibrated"]


def as_calibrated(
    args: tuple, kwargs: dict[str, Any], spec: pytree.TreeSpec, leaves: Sequence[str]
) -> tuple[tuple, dict[str, Any]]:
    """``args`` and ``kwargs`` in the order of ``spec``, where those it has by position may come by name.

    Args:
        leaves: the names of what ``spec`` holds, each that of its argument or the beginning of it.

    Raises:
        TypeError: other arguments.
    """
    positional, named = _names(spec, leaves)
    late = positional[len(args) :]
    if len(args) > len(positional) or kwargs.keys() != {*late, *named}:
        expected = _in_words(f"positional arguments {', '.join(positional)}" if positional else "", named)
        got = _in_words(f"{len(args)} by position" if args else "", kwargs)
        raise TypeError(f"inputs: expected {expected}; got {got}")
    return (*args, *(kwargs[name] for name in late)), {name: kwargs[name] for name in named}


def _names(spec: pytree.TreeSpec, leaves: Sequence[str]) -> tuple[list[str], list[str]]:
    """What the arguments by position are called, and the keywords of the others. Of a tuple or the like only the place
    is known."""
    by_position, by_name = spec.children()
    names, place = [], 0
    for number, argument in enumerate(by_position.children()):
        names.append(leaves[place] if argument.is_leaf() else f"number {number}")
        place += argument.num_leaves
    return names, list(by_name.context)


def _in_words(by_position: str, keywords: Collection[str]) -> str:
    by_name = f"keyword arguments {', '.join(keywords)}" if keywords else ""
    return " and ".join(filter(None, (by_position, by_name))) or "none"
