"""The elementary functions of csrc/core/math.h in Triton: the same operations in the same order, so the same bits.

Triton's own ``exp``, ``/`` and ``sqrt`` are approximations on a GPU; these are built from correctly rounded operations.
The errors are stated beside the C++ twins.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The jitted functions below see these by their names in the module.
INFINITY = tl.constexpr(float("inf"))
NAN = tl.constexpr(float("nan"))


@triton.jit
def from_bits(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def to_bits(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def clamp(x, low, high):
    raised = tl.where(x < low, low, x)
    return tl.where(raised > high, high, raised)


@triton.jit
def magnitude(x):
    return from_bits(to_bits(x) & 0x7FFFFFFF)


@triton.jit
def with_sign_of(value, sign):
    return from_bits((to_bits(value) & 0x7FFFFFFF) | (to_bits(sign) & -0x80000000))


@triton.jit
def power_of_two(n):
    return from_bits((n + 127) << 23)


@triton.jit
def split_exp(x):
    """``n`` and ``exp(r) - 1`` with ``x = n ln2 + r``."""
    shifted = x * 1.44269504 + 12582912.0
    n = shifted - 12582912.0
    r = (x - n * 0.693359375) + n * 2.12194440e-4
    p = r * 1.39504862e-3 + 8.36888786e-3
    p = p * r + 4.16662059e-2
    p = p * r + 1.66665189e-1
    p = p * r + 5.00000010e-1
    return to_bits(shifted) - 0x4B400000, r + r * r * p


@triton.jit
def exp_within(x):
    n, tail = split_exp(x)
    return (tail + 1.0) * power_of_two(n)


@triton.jit
def exp(x):
    n, tail = split_exp(tl.where(x > 89.0, 89.0, x))
    value = (tail + 1.0) * power_of_two(n - 1) * 2.0
    return tl.where(x < -87.0, 0.0, value)


@triton.jit
def expm1_of_negative(x):
    n, tail = split_exp(tl.where(x < -20.0, -20.0, x))
    power = power_of_two(n)
    return tail * power + (power - 1.0)


@triton.jit
def log(x):
    tiny = x < 1.17549435e-38
    bits = to_bits(tl.where(tiny, x * 8388608.0, x)) - 0x3F3504F3
    e = (bits >> 23).to(tl.float32) - tl.where(tiny, 23.0, 0.0)
    z = from_bits((bits & 0x7FFFFF) + 0x3F3504F3) - 1.0
    p = z * 6.91536807e-2 - 1.17898077e-1
    p = p * z + 1.18729763e-1
    p = p * z - 1.23843485e-1
    p = p * z + 1.42186581e-1
    p = p * z - 1.66692508e-1
    p = p * z + 2.00022266e-1
    p = p * z - 2.49999866e-1
    p = p * z + 3.33333104e-1
    finite = (z + (z * z * (p * z - 0.5) - e * 2.12194440e-4)) + e * 0.693359375
    of_edge = tl.where(x == 0.0, -INFINITY, tl.where(x < 0.0, NAN, x))
    return tl.where((x > 0.0) & (x < INFINITY), finite, of_edge)


@triton.jit
def log1p_of_fraction(u):
    p = u * 4.34041908e-3 - 2.57459242e-2
    p = p * u + 7.17313408e-2
    p = p * u - 1.30720693e-1
    p = p * u + 1.88034363e-1
    p = p * u - 2.47573994e-1
    p = p * u + 3.33070509e-1
    p = p * u - 4.99988832e-1
    return u + u * u * p


@triton.jit
def softplus(x):
    a = magnitude(x)
    return tl.where(x > 0.0, x, 0.0) + log1p_of_fraction(exp_within(tl.where(a > 87.0, -87.0, 0.0 - a)))


@triton.jit
def tanh(x):
    a = magnitude(x)
    z = x * x
    p = z * -5.71703656e-3 + 2.06505790e-2
    p = p * z - 5.37434953e-2
    p = p * z + 1.33314912e-1
    p = p * z - 3.33332839e-1
    large = 1.0 - tl.math.div_rn(2.0, exp_within(tl.where(a > 20.0, 40.0, a + a)) + 1.0)
    return tl.where(a < 0.625, x + x * (z * p), with_sign_of(large, x))


@triton.jit
def gelu(x):
    size = magnitude(x)
    a = tl.where(size > 5.0, 5.0, size)
    p = a * 1.17168954e-6 - 1.73863124e-5
    p = p * a + 7.93388339e-5
    p = p * a + 2.24125642e-4
    p = p * a - 5.08311781e-3
    p = p * a + 3.65387013e-2
    p = p * a - 1.81765431e-1
    p = p * a + 7.97897844e-1
    p = p * a + 6.93146400e-1
    tail = exp(x * x * -0.5 - p)
    return tl.where(x < 0.0, x * tail, x - a * tail)


@triton.jit
def one_and_exp_of_minus(x):
    return exp_within(clamp(0.0 - x, -87.0, 89.0)) + 1.0


@triton.jit
def pow(x, p):
    size = exp(p * log(magnitude(x)))
    # Without tl.floor, which brings a call into the kernel. From 2**23 on every float is whole, from 2**24 on even.
    integer = tl.where(magnitude(p) < 16777216.0, p, 0.0).to(tl.int32)
    whole = (integer.to(tl.float32) == p) | (magnitude(p) >= 8388608.0)
    odd = whole & ((integer & 1) != 0)
    of_base = tl.where((x < 0.0) & (whole == 0), NAN, tl.where(odd, with_sign_of(size, x), size))
    return tl.where(p == 0.0, 1.0, of_base)


@triton.jit
def mish(x):
    e = exp(tl.where(x > 20.0, 20.0, x))
    n = e * (e + 2.0)
    return x * tl.math.div_rn(n, n + 2.0)
