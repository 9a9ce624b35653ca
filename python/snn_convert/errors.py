"""What conversion says when it cannot go on, in the terms of the user's model."""

from __future__ import annotations

from torch import fx

__all__ = ["CalibrationError", "ModelFileError", "UnsupportedOperation", "WithoutRule", "place_of"]


class UnsupportedOperation(NotImplementedError):
    """An operation of the model that has no spiking counterpart here.

    Attributes:
        operation: the aten operation.
    """

    def __init__(self, node: fx.Node, hint: str):
        self.operation = node.target
        super().__init__(f"{node.target} at {place_of(node)} cannot be converted: {hint}")


class WithoutRule(UnsupportedOperation):
    """An operation that no rule of the converter knows; a rule that refuses one has its own reason."""


class CalibrationError(ValueError):
    """The calibration data is missing, refused by the model, or not finite."""


class ModelFileError(ValueError):
    """A file that is no converted network, or is damaged; the message begins with its path."""


def place_of(node: fx.Node) -> str:
    """Where a node comes from: the module's path in the user's model and the source line that called it."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple) and entry[0]]
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    source = next((i for i in range(len(lines) - 1, -1, -1) if lines[i].startswith("File ")), None)
    where = f"module '{paths[-1]}'" if paths else "the model's own forward"
    if source is None:
        return where
    code = f": `{lines[source + 1]}`" if source + 1 < len(lines) else ""
    return f"{where} ({lines[source]}{code})"
