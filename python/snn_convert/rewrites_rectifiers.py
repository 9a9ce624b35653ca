"""Nonlinearities as ReLUs and affine maps, for neurons that follow a clipped ReLU and nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import fx

from .errors import UnsupportedOperation
from .qcfs import qcfs_op
from .rectifiers import QCFSPopulation

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["HINT", "RECTIFIERS", "rectified"]

aten = torch.ops.aten

HINT = (
    "{dynamics} neurons follow clip(x, 0, c): of the activations only relu, relu6, hardtanh, leaky_relu, abs, maximum "
    "and minimum are made of that; recipe='default' converts the others"
)


def rectified(
    lowering: Lowering, like: fx.Node, activation: tuple, *inputs: fx.Node, channel_dim: int | None
) -> fx.Node:
    """``activation`` of ``inputs`` with populations of ReLU and ``clip(x, 0, c)`` alone.

    Raises:
        UnsupportedOperation: it is not made of these.
    """
    name, *parameters = activation

    def relu(x: fx.Node, most: float = math.inf) -> fx.Node:
        spec = ("relu",) if most == math.inf else ("hardtanh", 0.0, most)
        return lowering.plain_population(like, spec, x, channel_dim=channel_dim)

    def call(target, *arguments) -> fx.Node:
        return lowering.call(like, target, *arguments)

    if any(not isinstance(parameter, (int, float)) for parameter in parameters):
        raise UnsupportedOperation(like, HINT.format(dynamics=lowering.dynamics))
    if name == "relu":
        return relu(*inputs)
    if name == "relu6":
        return relu(*inputs, 6.0)
    if name == "hardtanh":
        low, high = parameters
        if low == -math.inf:  # high - relu(high - x)
            return call(aten.rsub.Scalar, relu(call(aten.rsub.Scalar, inputs[0], high)), high)
        x = inputs[0] if low == 0 else call(aten.sub.Tensor, inputs[0], low)
        y = relu(x, high - low)
        return y if low == 0 else call(aten.add.Tensor, y, low)
    if name == "leaky_relu":  # slope * x + (1 - slope) * relu(x)
        (slope,) = parameters
        positive = call(aten.mul.Scalar, relu(*inputs), 1 - slope)
        return call(aten.add.Tensor, positive, call(aten.mul.Scalar, inputs[0], slope))
    if name == "abs":  # 2 * relu(x) - x
        return call(aten.sub.Tensor, call(aten.mul.Scalar, relu(*inputs), 2.0), inputs[0])
    if name in ("maximum", "minimum"):  # b + relu(a - b), a - relu(a - b)
        a, b = inputs
        excess = relu(call(aten.sub.Tensor, a, b))
        return call(aten.add.Tensor, b, excess) if name == "maximum" else call(aten.sub.Tensor, a, excess)
    raise UnsupportedOperation(like, HINT.format(dynamics=lowering.dynamics))


def qcfs(lowering: Lowering, node: fx.Node) -> None:
    """A population with the learned threshold."""
    x, threshold, levels = node.args
    if lowering.dynamics != "parallel":
        raise UnsupportedOperation(node, "networks with QCFS convert by recipe='parallel'")
    population = QCFSPopulation(lowering.tensor(threshold), levels, lowering.channel_dims(x))
    lowering.replace(node, lowering.insert(node, population, (x,), lambda x: x))


RECTIFIERS = {qcfs_op: qcfs}
