"""The nonlinearities a signGD neuron can chase, by name.

This table is the definition: a plain PyTorch function of the decoded inputs and the activation's parameters.
``csrc/core/activations.h`` and the Triton table restate each in one line, and a test compares the three lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation", "ActivationSpec", "resolve"]

ActivationSpec = Union[str, tuple]

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """One function ``h`` of ``arity`` decoded inputs.

    Attributes:
        name: what ``activation=`` takes.
        function: ``h(*x, *parameters)`` on float32 tensors.
        parameters: names and default values of its parameters, in order. Each may be a number or a tensor that
            broadcasts against the population (one value a channel, or a neuron).
        arity: 1 or 2 decoded inputs.
        exact: made of correctly rounded operations only, so that every backend agrees bit for bit. The others
            agree within :data:`BAND`.
    """

    name: str
    function: Callable[..., Tensor]
    parameters: tuple[tuple[str, float], ...] = ()
    arity: int = 1
    exact: bool = True


def _table(*rows: Activation) -> dict[str, Activation]:
    return {row.name: row for row in rows}


ACTIVATIONS: dict[str, Activation] = _table(
    Activation("identity", lambda x: x),
    Activation("relu", torch.relu),
    Activation("relu6", lambda x: x.clamp(0.0, 6.0)),
    Activation("hardtanh", lambda x, low, high: torch.minimum(torch.maximum(x, low), high), (("min", -1.0), ("max", 1.0))),
    Activation("leaky_relu", lambda x, slope: torch.where(x > 0, x, x * slope), (("slope", 0.01),)),
    Activation("hardsigmoid", lambda x: (x + 3.0).clamp(0.0, 6.0) / 6.0),
    Activation("hardswish", lambda x: x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
    Activation("abs", torch.abs),
    Activation("square", lambda x: x * x),
    Activation("sqrt", torch.sqrt),
    Activation("rsqrt", lambda x: 1.0 / torch.sqrt(x)),
    Activation("reciprocal", lambda x: 1.0 / x),
    Activation("elu", lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x)), (("alpha", 1.0),), exact=False),
    Activation("celu", lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x / alpha)), (("alpha", 1.0),), exact=False),
    Activation("selu", lambda x: SELU_SCALE * torch.where(x > 0, x, SELU_ALPHA * torch.expm1(x)), exact=False),
    Activation("gelu", F.gelu, exact=False),
    Activation("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), exact=False),
    Activation("gelu_sigmoid", lambda x: x * torch.sigmoid(1.702 * x), exact=False),
    Activation("silu", F.silu, exact=False),
    Activation("mish", F.mish, exact=False),
    Activation("softplus", F.softplus, exact=False),
    Activation("sigmoid", torch.sigmoid, exact=False),
    Activation("tanh", torch.tanh, exact=False),
    Activation("exp", torch.exp, exact=False),
    Activation("log", torch.log, exact=False),
    Activation("pow", lambda x, p: torch.pow(x, p), (("exponent", 2.0),), exact=False),
    Activation("maximum", torch.maximum, arity=2),
    Activation("minimum", torch.minimum, arity=2),
    Activation("multiply", torch.mul, arity=2),
    Activation("divide", torch.div, arity=2),
    Activation("multiply_rsqrt", lambda a, b: a / torch.sqrt(b), arity=2),
)


def resolve(activation: ActivationSpec, arity: int, name: str = "activation") -> tuple[Activation, tuple]:
    """The table row of ``activation`` and its parameters: ``"relu"`` or ``("leaky_relu", 0.2)``.

    Raises:
        ValueError: unknown name, wrong number of inputs or too many parameters.
    """
    key, *given = (activation,) if isinstance(activation, str) else activation
    row = ACTIVATIONS.get(key)
    if row is None or row.arity != arity:
        known = ", ".join(row.name for row in ACTIVATIONS.values() if row.arity == arity)
        raise ValueError(f"{name}: expected one of {known}; got {key!r}")
    if len(given) > len(row.parameters):
        raise ValueError(f"{name}: {key} takes {len(row.parameters)} parameters, got {len(given)}")
    return row, (*given, *(default for _, default in row.parameters[len(given) :]))
