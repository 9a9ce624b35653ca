"""The nonlinearities in Triton, one function each: the table of csrc/core/activations.h restated.

``x`` and ``y`` are the decoded inputs, ``a`` and ``b`` the parameters; the name of the function is the activation's.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from . import triton_math as m

__all__ = ["TRITON_ACTIVATIONS", "TritonActivation"]


class TritonActivation(NamedTuple):
    """A jitted ``h(x, a, b)`` or, with two decoded inputs, ``h(x, y)``."""

    function: triton.JITFunction
    arity: int


TRITON_ACTIVATIONS: dict[str, TritonActivation] = {}


def activation(function):
    """Jit ``function`` and enter it in the table."""
    jitted = triton.jit(function)
    arity = 2 if function.__code__.co_varnames[:2] == ("x", "y") else 1
    TRITON_ACTIVATIONS[function.__name__] = TritonActivation(jitted, arity)
    return jitted


@activation
def identity(x, a, b):
    return x


@activation
def relu(x, a, b):
    return tl.where(x < 0.0, 0.0, x)


@activation
def relu6(x, a, b):
    return m.clamp(x, 0.0, 6.0)


@activation
def hardtanh(x, a, b):
    return m.clamp(x, a, b)


@activation
def leaky_relu(x, a, b):
    return tl.where(x > 0.0, x, x * a)


@activation
def hardsigmoid(x, a, b):
    return tl.math.div_rn(m.clamp(x + 3.0, 0.0, 6.0), 6.0)


@activation
def hardswish(x, a, b):
    return tl.math.div_rn(x * m.clamp(x + 3.0, 0.0, 6.0), 6.0)


@activation
def abs(x, a, b):
    return m.magnitude(x)


@activation
def square(x, a, b):
    return x * x


@activation
def sqrt(x, a, b):
    return tl.math.sqrt_rn(x)


@activation
def rsqrt(x, a, b):
    return tl.math.div_rn(1.0, tl.math.sqrt_rn(x))


@activation
def reciprocal(x, a, b):
    return tl.math.div_rn(1.0, x)


@activation
def elu(x, a, b):
    return tl.where(x > 0.0, x, a * m.expm1_of_negative(x))


@activation
def celu(x, a, b):
    return tl.where(x > 0.0, x, a * m.expm1_of_negative(tl.math.div_rn(x, a)))


@activation
def selu(x, a, b):
    return tl.where(x > 0.0, x, m.expm1_of_negative(x) * 1.67326324) * 1.05070099


@activation
def gelu(x, a, b):
    return x * 0.5 * (m.erf(x * 0.707106781) + 1.0)


@activation
def gelu_tanh(x, a, b):
    return x * 0.5 * (m.tanh((x + x * x * x * 0.044715) * 0.797884561) + 1.0)


@activation
def gelu_sigmoid(x, a, b):
    return x * m.sigmoid(x * 1.702)


@activation
def silu(x, a, b):
    return tl.math.div_rn(x, m.exp(0.0 - x) + 1.0)


@activation
def mish(x, a, b):
    return m.mish(x)


@activation
def softplus(x, a, b):
    return tl.where(x > 0.0, x, 0.0) + m.log1p_of_positive(m.exp(0.0 - m.magnitude(x)))


@activation
def sigmoid(x, a, b):
    return m.sigmoid(x)


@activation
def tanh(x, a, b):
    return m.tanh(x)


@activation
def exp(x, a, b):
    return m.exp(x)


@activation
def log(x, a, b):
    return m.log(x)


@activation
def pow(x, a, b):
    return m.pow(x, a)


@activation
def maximum(x, y):
    return tl.where((x > y) | (x != x), x, y)


@activation
def minimum(x, y):
    return tl.where((x < y) | (x != x), x, y)


@activation
def multiply(x, y):
    return x * y


@activation
def divide(x, y):
    return tl.math.div_rn(x, y)


@activation
def multiply_rsqrt(x, y):
    return tl.math.div_rn(x, tl.math.sqrt_rn(y))
