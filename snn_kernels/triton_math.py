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
ROUND = tl.constexpr(12582912.0)


@triton.jit
def from_bits(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def to_bits(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def polynomial(x, COEFFICIENTS: tl.constexpr):
    """By Horner's rule, the coefficient of the highest power first."""
    value = tl.fma(x, COEFFICIENTS[0], COEFFICIENTS[1])
    for i in tl.static_range(2, len(COEFFICIENTS)):
        value = tl.fma(value, x, COEFFICIENTS[i])
    return value


@triton.jit
def clamp(x, low, high):
    raised = tl.where(x < low, low, x)
    return tl.where(raised > high, high, raised)


@triton.jit
def negative(x):
    """A sign that other operations take along; Triton's minus is a subtraction from 0."""
    return x * -1.0


@triton.jit
def magnitude(x):
    return from_bits(to_bits(x) & 0x7FFFFFFF)


@triton.jit
def no_more_than(x, bound):
    return from_bits(tl.minimum(to_bits(x), to_bits(tl.full([], bound, tl.float32))))


@triton.jit
def with_sign_of(value, sign):
    return from_bits((to_bits(value) & 0x7FFFFFFF) | (to_bits(sign) & -0x80000000))


@triton.jit
def power_of_two(n):
    return from_bits((n + 127) << 23)


@triton.jit
def integer_of(shifted):
    return to_bits(shifted) - 0x4B400000


@triton.jit
def power_of_fraction(f):
    return polynomial(f, (1.32647239e-3, 9.67151287e-3, 5.55073375e-2, 2.40222421e-1, 6.93146978e-1, 1.0))


@triton.jit
def exp_within(x):
    shifted = tl.fma(x, 1.44269504, ROUND)
    f = tl.fma(x, 1.44269504, ROUND - shifted)
    return power_of_fraction(f) * power_of_two(integer_of(shifted))


@triton.jit
def exp_of_negative(x):
    return tl.where(x < -87.0, 0.0, exp_within(x))


@triton.jit
def exp2(y):
    bounded = tl.where(y > 129.0, 129.0, y)
    shifted = bounded + ROUND
    f = bounded - (shifted - ROUND)
    value = power_of_fraction(f) * power_of_two(integer_of(shifted) - 1) * 2.0
    return tl.where(y < -126.0, 0.0, value)


@triton.jit
def split_exp(x):
    """``n``, ``r`` and ``(exp(r) - 1) / r`` with ``x = n ln2 + r``."""
    shifted = tl.fma(x, 1.44269504, ROUND)
    n = shifted - ROUND
    r = tl.fma(n, 1.90465432e-9, tl.fma(n, -0.693147182, x))
    slope = polynomial(r, (1.39504862e-3, 8.36888786e-3, 4.16662059e-2, 1.66665189e-1, 5.00000010e-1, 1.0))
    return integer_of(shifted), r, slope


@triton.jit
def exp(x):
    n, r, slope = split_exp(tl.where(x > 89.0, 89.0, x))
    value = tl.fma(slope, r, 1.0) * power_of_two(n - 1) * 2.0
    return tl.where(x < -87.0, 0.0, value)


@triton.jit
def expm1_of_negative(x):
    n, r, slope = split_exp(tl.where(x < -20.0, -20.0, x))
    power = power_of_two(n)
    return tl.fma(slope * r, power, power - 1.0)


@triton.jit
def split_log(x):
    """``e`` and ``z`` with ``x = 2**e (1 + z)``."""
    tiny = x < 1.17549435e-38
    bits = to_bits(tl.where(tiny, x * 8388608.0, x)) - 0x3F3504F3
    e = (bits >> 23).to(tl.float32) - tl.where(tiny, 23.0, 0.0)
    return e, from_bits((bits & 0x7FFFFF) + 0x3F3504F3) - 1.0


@triton.jit
def log_within(x):
    e, z = split_log(x)
    p = polynomial(z, (
        -7.85954587e-2, 1.28816224e-1, -1.31287676e-1, 1.41811961e-1, -1.66245531e-1, 2.00022861e-1,
        -2.50008104e-1, 3.33333167e-1, -0.5,
    ))  # fmt: skip
    return tl.fma(e, 0.693147182, tl.fma(z * z, p, z))


@triton.jit
def log(x):
    of_edge = tl.where(x == 0.0, -INFINITY, tl.where(x < 0.0, NAN, x))
    return tl.where((x > 0.0) & (x < INFINITY), log_within(x), of_edge)


@triton.jit
def log2_of_magnitude(x):
    size = magnitude(x)
    e, z = split_log(size)
    p = polynomial(z, (
        -1.45742960e-1, 2.36889786e-1, -2.50069305e-1, 2.86707546e-1, -3.60087200e-1, 4.80939441e-1,
        -7.21357149e-1, 1.44269477,
    ))  # fmt: skip
    return tl.where(size < INFINITY, tl.where(size == 0.0, -INFINITY, tl.fma(z, p, e)), size)


@triton.jit
def log1p_of_fraction(u):
    p = polynomial(u, (
        4.34041908e-3, -2.57459242e-2, 7.17313408e-2, -1.30720693e-1, 1.88034363e-1, -2.47573994e-1,
        3.33070509e-1, -4.99988832e-1,
    ))  # fmt: skip
    return tl.fma(u * u, p, u)


@triton.jit
def softplus(x):
    a = no_more_than(magnitude(x), 87.0)
    return tl.where(x < 0.0, 0.0, x) + log1p_of_fraction(exp_within(negative(a)))


@triton.jit
def tanh(x):
    e = expm1_of_negative(magnitude(x) * -2.0)
    return with_sign_of(tl.math.div_rn(e, e + 2.0), x)


@triton.jit
def gated(x, root_of_tail):
    square = root_of_tail * root_of_tail
    fourth = square * square
    return tl.fma(magnitude(x), tl.fma(negative(fourth), fourth, 0.5), x * 0.5)


@triton.jit
def gelu(x):
    a = no_more_than(magnitude(x), 5.6)
    root = polynomial(a, (
        -2.95879658e-7, 7.47952251e-6, -6.02574699e-5, 3.42945511e-5, 1.50436314e-3, -6.71956413e-4,
        -3.19280766e-2, -9.14574150e-2, 9.17004008e-1,
    ))  # fmt: skip
    return gated(x, root)


@triton.jit
def gelu_tanh(x):
    a = no_more_than(magnitude(x), 5.3)
    root = polynomial(a, (
        1.45639195e-7, -2.01394342e-6, 6.74014673e-6, 2.57673164e-5, -2.14049092e-4, 2.99836926e-4,
        1.26118852e-3, -4.19379177e-4, -3.19854901e-2, -9.14486093e-2, 9.17003559e-1,
    ))  # fmt: skip
    return gated(x, root)


@triton.jit
def sigmoid(x):
    u = exp_of_negative(negative(magnitude(x)))
    return tl.math.div_rn(tl.where(x < 0.0, u, 1.0), u + 1.0)


@triton.jit
def pow(x, p):
    size = exp2(p * log2_of_magnitude(x))
    # Without tl.floor, which brings a call into the kernel. From 2**23 on every float is whole, from 2**24 on even.
    integer = tl.where(magnitude(p) < 16777216.0, p, 0.0).to(tl.int32)
    whole = (integer.to(tl.float32) == p) | (magnitude(p) >= 8388608.0)
    odd = whole & ((integer & 1) != 0)
    sign = tl.where(odd, -0x80000000, 0)
    of_base = tl.where((x < 0.0) & (whole == 0), NAN, from_bits(to_bits(size) | (to_bits(x) & sign)))
    return tl.where(p == 0.0, 1.0, of_base)


@triton.jit
def mish(x):
    e = exp(tl.where(x > 20.0, 20.0, x))
    n = e * (e + 2.0)
    return x * tl.math.div_rn(n, n + 2.0)
