"""How inputs and outputs are nested, as text: classes by name, so that nothing in a file is code."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import namedtuple
from typing import Any

from torch.utils import _pytree as pytree

__all__ = ["outputs_from_text", "structure_from_text", "structure_to_text"]

NAMED = re.compile(r"(?P<path>[\w.<>]+)\((?P<fields>[\w, ]*)\)")  # a class of namedtuple


def structure_to_text(structure: pytree.TreeSpec) -> str:
    for kind in _kinds(pytree.tree_unflatten([0] * structure.num_leaves, structure)):
        if hasattr(kind, "_fields") and kind not in pytree.SUPPORTED_SERIALIZED_TYPES:
            _name(kind, f"{kind.__module__}.{kind.__qualname__}({', '.join(kind._fields)})")
    return pytree.treespec_dumps(structure)


def structure_from_text(text: str) -> pytree.TreeSpec:
    for name in _namedtuples(json.loads(text)[1]):
        found = NAMED.fullmatch(name) if name not in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE else None
        if found:
            _name(_namedtuple(found["path"], tuple(filter(None, found["fields"].split(", ")))), name)
    try:
        return pytree.treespec_loads(text)
    except NotImplementedError as error:
        raise ValueError(
            f"its inputs or outputs are of a class that is not known here ({error}): import the module that defines "
            "it before loading"
        ) from error


def outputs_from_text(text: str) -> pytree.TreeSpec:
    """A structure in which mappings of classes that are not known here, such as the outputs of Hugging Face's models
    before ``transformers`` is imported, are dicts. Nothing is imported because a file names it."""
    version, structure = json.loads(text)
    foreign = []

    def known(node: dict[str, Any]) -> dict[str, Any]:
        name, children = node["type"], [known(child) for child in node["children_spec"]]
        if name is not None and name not in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE and _has_keys(node):
            foreign.append(name)
            name = "builtins.dict"
        return {**node, "type": name, "children_spec": children}

    text = json.dumps([version, known(structure)])
    if foreign:
        warnings.warn(
            f"the outputs of class {', '.join(foreign)} are dicts here; they are what they were if the module that "
            "defines it is imported before loading",
            stacklevel=6,
        )
    return structure_from_text(text)


def _has_keys(node: dict[str, Any]) -> bool:
    """Whether a class wrote of itself what a dict does: a name for each of its values."""
    try:
        keys = json.loads(node["context"])
    except (TypeError, ValueError):
        return False
    return isinstance(keys, list) and [type(key) for key in keys] == [str] * len(node["children_spec"])


# Classes of namedtuple, which PyTorch writes down by names that somebody has to give them


def _name(kind: type, name: str) -> None:
    pytree._register_namedtuple(kind, serialized_type_name=name)


def _kinds(value: Any) -> set[type]:
    """The classes that it is made of."""
    kinds: set[type] = set()
    pytree.tree_leaves(value, is_leaf=lambda part: kinds.add(type(part)))  # never true: every part is looked at
    return kinds


def _namedtuples(node: dict[str, Any]) -> list[str]:
    own = [node["context"]] if node["type"] == "collections.namedtuple" else []
    return [*own, *(name for child in node["children_spec"] for name in _namedtuples(child))]


def _namedtuple(path: str, fields: tuple[str, ...]) -> type:
    """The class itself if its module is here, otherwise one like it."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if getattr(found, "_fields", None) == fields else namedtuple(name, fields)
