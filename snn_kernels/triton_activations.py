"""The nonlinearities in Triton, one function each: the table of csrc/core/activations.h restated.

``x`` and ``y`` are the decoded inputs (``y`` only in the binary ones), ``a`` and ``b`` the parameters.
"""

from __future__ import annotations

import inspect

import triton
import triton.language as tl

from . import triton_math as m

__all__ = ["TRITON_ACTIVATIONS", "arity_of"]

TRITON_ACTIVATIONS = {}


def activation(function):
    """Jit ``function`` and enter it in the table by its name."""
    TRITON_ACTIVATIONS[function.__name__] = triton.jit(function)
    return TRITON_ACTIVATIONS[function.__name__]


def arity_of(name: str) -> int:
    """Decoded inputs that the activation reads."""
    return 2 if "y" in inspect.signature(TRITON_ACTIVATIONS[name].fn).parameters else 1
