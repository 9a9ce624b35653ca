"""The nonlinearities a signGD neuron can chase, by name.

This table is the definition: a plain PyTorch function of the decoded inputs and the activation's parameters.
``csrc/core/activations.h`` and the Triton table restate each in one line, and a test compares the three lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation", "ActivationSpec", "resolve", "sqrt"]

ActivationSpec = str | tuple

SQRT_HALF = 0.7071067811865476
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
        ulps: 0 for a function of correctly rounded operations only: every backend computes the same bits. For the
            others it bounds, through :meth:`band`, how far any backend's ``h`` lies from the real function.
        power: ``h`` is ``exp(p * log|x|)`` of its parameter ``p``, whose error grows with the exponent.
    """

    name: str
    function: Callable[..., Tensor]
    parameters: tuple[tuple[str, float], ...] = ()
    arity: int = 1
    ulps: int = 0
    power: bool = False

    @property
    def exact(self) -> bool:
        """Whether every backend gives the same spikes, bit for bit."""
        return self.ulps == 0

    def band(self, h: Tensor, *parameters: Tensor) -> Tensor:
        """Bound on the error of a backend's ``h`` where the real value is ``h``: the only place for a spike to flip.

        ``ulps * 2**-23 * max(1, |h|)``, for powers times ``1 + |p| + |ln |h||``. Two backends that are both within it
        can answer ``v >= h`` differently only where ``|v - h|`` is within it too.

        Why 2 do: past its polynomial (fit error below 0.3 units of 2**-23) each function adds up to at most four
        roundings, each half a unit of a result no larger than ``max(1, |h|)``; the others reach ``h`` damped, as
        those of an exponential inside ``1 - exp`` or ``1 / (1 + exp)`` (whose own fit is off by 0.8 units), or of the
        eighth power in ``gelu``, which times ``|x|`` is at most 0.17. Over every 311th float32 and a million numbers
        around 0 the worst measured is 1.6 (celu with an alpha of 5), at most 1.4 for the rest. In a power,
        ``log2|x|`` is off by ``2 * max(1, |log2 |x||)`` units, and ``p`` times that, an error of the exponent,
        becomes a relative error of the result.
        tests/test_accuracy.py holds every function to its band.
        """
        size = h.abs()
        band = self.ulps * 2.0**-23 * size.clamp(min=1.0)
        if not self.power:
            return band
        return band * (1.0 + parameters[0].abs() + size.log().abs().nan_to_num(0.0, 0.0, 0.0))


def sqrt(x: Tensor) -> Tensor:
    """The square root, correctly rounded: by MKL, ``torch.sqrt`` of float32 is an ulp off one time in six."""
    return torch.sqrt(x.double()).to(x.dtype)


def sixth(x: Tensor) -> Tensor:
    """A quotient, correctly rounded: on a GPU PyTorch multiplies by the rounded inverse of a number."""
    return x / x.new_full((), 6.0)


def _table(*rows: Activation) -> dict[str, Activation]:
    return {row.name: row for row in rows}


ACTIVATIONS: dict[str, Activation] = _table(
    Activation("identity", lambda x: x),
    Activation("relu", torch.relu),
    Activation("relu6", lambda x: x.clamp(0.0, 6.0)),
    Activation(
        "hardtanh", lambda x, low, high: torch.minimum(torch.maximum(x, low), high), (("min", -1.0), ("max", 1.0))
    ),
    Activation("leaky_relu", lambda x, slope: torch.where(x > 0, x, x * slope), (("slope", 0.01),)),
    Activation("hardsigmoid", lambda x: sixth((x + 3.0).clamp(0.0, 6.0))),
    Activation("hardswish", lambda x: sixth(x * (x + 3.0).clamp(0.0, 6.0))),
    Activation("abs", torch.abs),
    Activation("square", lambda x: x * x),
    Activation("sqrt", sqrt),
    # Of magnitudes: what is decoded falls below 0 now and then where the input of a root or a power never does.
    Activation("sqrt_abs", lambda x: sqrt(x.abs())),
    Activation("rsqrt", lambda x: 1.0 / sqrt(x)),
    Activation("reciprocal", lambda x: 1.0 / x),
    Activation("elu", lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x)), (("alpha", 1.0),), ulps=2),
    Activation(
        "celu", lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x / alpha)), (("alpha", 1.0),), ulps=2
    ),
    Activation("selu", lambda x: SELU_SCALE * torch.where(x > 0, x, SELU_ALPHA * torch.expm1(x)), ulps=2),
    # F.gelu in float32 is off by ten units near -3.5: its erf is a faster one than torch.erf.
    Activation("gelu", lambda x: 0.5 * x * (1.0 + torch.erf(x * SQRT_HALF)), ulps=2),
    Activation("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), ulps=2),
    Activation("gelu_sigmoid", lambda x: x * torch.sigmoid(1.702 * x), ulps=2),
    Activation("silu", F.silu, ulps=2),
    Activation("mish", F.mish, ulps=2),
    Activation("softplus", F.softplus, ulps=2),
    Activation("sigmoid", torch.sigmoid, ulps=2),
    Activation("tanh", torch.tanh, ulps=2),
    Activation("exp", torch.exp, ulps=2),
    Activation("log", torch.log, ulps=2),
    Activation("pow", lambda x, p: torch.pow(x, p), (("exponent", 2.0),), ulps=2, power=True),
    Activation("pow_abs", lambda x, p: torch.pow(x.abs(), p), (("exponent", 0.5),), ulps=2, power=True),
    Activation("maximum", torch.maximum, arity=2),
    Activation("minimum", torch.minimum, arity=2),
    Activation("multiply", torch.mul, arity=2),
    Activation("divide", torch.div, arity=2),
    Activation("multiply_rsqrt", lambda a, b: a / sqrt(b), arity=2),
)


def resolve(activation: ActivationSpec, arity: int, name: str = "activation") -> tuple[Activation, tuple]:
    """The table row of ``activation`` and its parameters: ``"relu"`` or ``("leaky_relu", 0.2)``.

    Raises:
        TypeError: neither a name nor a tuple.
        ValueError: unknown name, wrong number of inputs or too many parameters.
    """
    if not isinstance(activation, (str, tuple)) or not activation:
        raise TypeError(f"{name}: expected a name or a tuple of a name and parameters, got {activation!r}")
    key, *given = (activation,) if isinstance(activation, str) else activation
    row = ACTIVATIONS.get(key) if isinstance(key, str) else None
    if row is None or row.arity != arity:
        known = ", ".join(row.name for row in ACTIVATIONS.values() if row.arity == arity)
        raise ValueError(f"{name}: expected one of {known}; got {key!r}")
    if len(given) > len(row.parameters):
        raise ValueError(f"{name}: {key} takes {len(row.parameters)} parameters, got {len(given)}")
    return row, (*given, *(default for _, default in row.parameters[len(given) :]))
