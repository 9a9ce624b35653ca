"""A lowered graph as JSON and back: operations by name, so that nothing in a file is code."""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from .population import Population
from .rectifiers import DYNAMICS, QCFSPopulation
from .rules import einsum_of_two
from .vector_population import VectorPopulation

__all__ = ["graph_from_json", "graph_to_json", "populations_from_json", "populations_to_json"]

POPULATIONS = {**DYNAMICS, "vector": VectorPopulation, "qcfs": QCFSPopulation}
SIZES = ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge", "getitem")
# What a graph calls beside aten operations: arithmetic of sizes, and functions of this package.
FUNCTIONS: dict[str, Callable] = {
    **{f"operator.{name}": getattr(operator, name) for name in SIZES},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_max", "sym_min", "sym_int", "sym_float", "sym_not")},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "einsum_of_two": einsum_of_two,
}
NAMES = {function: name for name, function in FUNCTIONS.items()}
OF_FILES = {"from_file"}  # aten operations that open files: a network computes with its inputs
CONSTANTS = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format"}
PART_OF_PATH = re.compile(r"\w+")


def populations_to_json(network: fx.GraphModule) -> dict[str, Any]:
    """The settings of every population by its path."""
    kinds = {kind: name for name, kind in POPULATIONS.items()}
    return {
        path: {"kind": kinds[type(module)], **module.settings()}
        for path, module in network.named_modules()
        if isinstance(module, Population)
    }


def populations_from_json(network: torch.nn.Module, described: dict[str, Any]) -> None:
    for path, settings in described.items():
        population = POPULATIONS[settings["kind"]].from_settings(settings)
        parent, _, name = _checked_path(path).rpartition(".")
        submodule(network, parent).add_module(name, population)


def submodule(root: torch.nn.Module, path: str) -> torch.nn.Module:
    """The module at ``path``, made of empty ones as far as it is missing."""
    for part in filter(None, path.split(".")):
        if part not in root._modules:
            root.add_module(part, torch.nn.Module())
        root = root._modules[part]
    return root


# From a graph


def graph_to_json(graph: fx.Graph) -> list[dict[str, Any]]:
    """Every node, in order.

    Raises:
        TypeError: a node calls something or holds an argument that has no name in the format.
    """
    return [_node_to_json(node) for node in graph.nodes]


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    target = _name_of(node) if node.op == "call_function" else node.target
    found = {"name": node.name, "op": node.op, "target": target}
    if node.args:
        found["args"] = [_value_to_json(node, arg) for arg in node.args]
    if node.kwargs:
        found["kwargs"] = {key: _value_to_json(node, arg) for key, arg in node.kwargs.items()}
    if _shape_matters(node):
        found["value"] = _kind_to_json(node, node.meta["val"])
    return found


def _shape_matters(node: fx.Node) -> bool:
    """Inputs are checked against their shapes, and offsets against those of what a population receives."""
    return node.op == "placeholder" or any(user.op == "call_module" for user in node.users)


def _kind_to_json(node: fx.Node, value: Any) -> dict[str, Any]:
    if not isinstance(value, Tensor):
        return {"constant": _value_to_json(node, value)}
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    return {"tensor": {"dtype": _short(value.dtype), "shape": sizes}}


def _name_of(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
        return str(node.target)
    if node.target in NAMES:
        return NAMES[node.target]
    raise TypeError(f"network: {node.target} (node {node.name}) is none of the operations that a file can hold")


def _value_to_json(node: fx.Node, value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        items = [_value_to_json(node, item) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if type(value) in CONSTANTS:
        return {CONSTANTS[type(value)]: _short(value)}
    raise TypeError(f"network: the argument {value!r} of {node.name} is nothing that a file can hold")


def _short(constant: Any) -> str:
    return str(constant).removeprefix("torch.")


# To a graph


def graph_from_json(described: list[dict[str, Any]]) -> fx.Graph:
    """The graph that :func:`graph_to_json` described.

    Raises:
        ValueError, KeyError: something is named that the format has no place for.
    """
    graph, nodes = fx.Graph(), {}
    mode = FakeTensorMode(shape_env=ShapeEnv())
    for found in described:
        args = tuple(_value_from_json(arg, nodes) for arg in found.get("args", ()))
        kwargs = {_identifier(key): _value_from_json(arg, nodes) for key, arg in found.get("kwargs", {}).items()}
        op, target = found["op"], found["target"]
        if op == "call_function":
            target = _function(target)
        elif op in ("get_attr", "call_module"):
            target = _checked_path(target)
        elif op in ("placeholder", "output"):
            target = _identifier(target)
        else:
            raise ValueError(f"the operation {op!r} is not known")
        node = graph.create_node(op, target, args, kwargs, name=_identifier(found["name"]))
        if op == "placeholder" or "value" in found:
            node.meta["val"] = _kind_from_json(found["value"], mode)
        nodes[found["name"]] = node
    graph.lint()
    return graph


def _function(name: str) -> Callable:
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace != "aten" or operation in OF_FILES:
        raise ValueError(f"the operation {name!r} is not known")
    found = getattr(getattr(torch.ops.aten, operation), overload)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"the operation {name!r} is not known")
    return found


def _value_from_json(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_value_from_json(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "tuple":
        return tuple(_value_from_json(item, nodes) for item in content)
    if kind == "float":
        return float(content)
    if kind == "device":
        return torch.device(content)
    wanted = next((cls for cls, name in CONSTANTS.items() if name == kind), None)
    return constant(content, wanted)


def constant(name: str, kind: type) -> Any:
    """``torch.<name>``, which has to be of ``kind``: a dtype, a layout or a memory format."""
    found = getattr(torch, name, None)
    if kind is None or not isinstance(found, kind):
        raise ValueError(f"{name!r} is no constant of torch")
    return found


def _kind_from_json(value: dict[str, Any], mode: FakeTensorMode) -> Any:
    """What the export knew of a value: its dtype and its sizes, symbols for those that depend on the batch."""
    if "constant" in value:
        return _value_from_json(value["constant"], {})
    sizes, dtype = value["tensor"]["shape"], constant(value["tensor"]["dtype"], torch.dtype)
    example = torch.empty([2 if size is None else size for size in sizes], dtype=dtype)
    dynamic = [DimDynamic.DYNAMIC if size is None else DimDynamic.STATIC for size in sizes]
    return mode.from_tensor(example, symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic))


def _checked_path(path: str) -> str:
    """Paths and names become Python code when a graph module is compiled: nothing but names may stand in them."""
    if not all(PART_OF_PATH.fullmatch(part) for part in path.split(".")):
        raise ValueError(f"{path!r} is no path of a module")
    return path


def _identifier(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name")
    return name
