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
    """A jitted ``h(x, a, b)`` or, with two decoded inputs, ``h(x, y)``; light where it is a handful of instructions."""

    function: triton.JITFunction
    arity: int
    light: bool


TRITON_ACTIVATIONS: dict[str, TritonActivation] = {}


def activation(function, light: bool):
    """Jit ``function`` and enter it in the table."""
    arity = 2 if function.__code__.co_varnames[:2] == ("x", "y") else 1
    TRITON_ACTIVATIONS[function.__name__] = TritonActivation(triton.jit(function), arity, light)
    return TRITON_ACTIVATIONS[function.__name__].function


def light(function):
    """A function of comparisons, sums and products."""
    return activation(function, light=True)


def heavy(function):
    """A function with a division, a square root or a polynomial."""
    return activation(function, light=False)


@light
def identity(x, a, b):
    return x


@light
def relu(x, a, b):
    return tl.where(x < 0.0, 0.0, x)


@light
def relu6(x, a, b):
    return m.clamp(x, 0.0, 6.0)


@light
def hardtanh(x, a, b):
    return m.clamp(x, a, b)


@light
def leaky_relu(x, a, b):
    return tl.where(x > 0.0, x, x * a)


@heavy
def hardsigmoid(x, a, b):
    return tl.math.div_rn(m.clamp(x + 3.0, 0.0, 6.0), 6.0)


@heavy
def hardswish(x, a, b):
    return tl.math.div_rn(x * m.clamp(x + 3.0, 0.0, 6.0), 6.0)


@light
def abs(x, a, b):
    return m.magnitude(x)


@light
def square(x, a, b):
    return x * x


@heavy
def sqrt(x, a, b):
    return tl.math.sqrt_rn(x)


@heavy
def sqrt_abs(x, a, b):
    return tl.math.sqrt_rn(m.magnitude(x))


@heavy
def rsqrt(x, a, b):
    return tl.math.div_rn(1.0, tl.math.sqrt_rn(x))


@heavy
def reciprocal(x, a, b):
    return tl.math.div_rn(1.0, x)


@heavy
def elu(x, a, b):
    return tl.where(x > 0.0, x, a * m.expm1_of_negative(x))


@heavy
def celu(x, a, b):
    return tl.where(x > 0.0, x, a * m.expm1_of_negative(tl.math.div_rn(x, a)))


@heavy
def selu(x, a, b):
    return tl.where(x > 0.0, x, m.expm1_of_negative(x) * 1.67326324) * 1.05070099


@heavy
def gelu(x, a, b):
    return m.gelu(x)


@heavy
def gelu_tanh(x, a, b):
    return m.gelu_tanh(x)


@heavy
def gelu_sigmoid(x, a, b):
    return x * m.sigmoid(x * 1.702)


@heavy
def silu(x, a, b):
    return x * m.sigmoid(x)


@heavy
def mish(x, a, b):
    return m.mish(x)


@heavy
def softplus(x, a, b):
    return m.softplus(x)


@heavy
def sigmoid(x, a, b):
    return m.sigmoid(x)


@heavy
def tanh(x, a, b):
    return m.tanh(x)


@heavy
def exp(x, a, b):
    return m.exp(x)


@heavy
def log(x, a, b):
    return m.log(x)


@heavy
def pow(x, a, b):
    return m.pow(x, a)


@heavy
def pow_abs(x, a, b):
    return m.pow(m.magnitude(x), a)


@light
def maximum(x, y):
    return tl.where((x > y) | (x != x), x, y)


@light
def minimum(x, y):
    return tl.where((x < y) | (x != x), x, y)


@light
def multiply(x, y):
    return x * y


@heavy
def divide(x, y):
    return tl.math.div_rn(x, y)


@heavy
def multiply_rsqrt(x, y):
    return tl.math.div_rn(x, tl.math.sqrt_rn(y))
