// Elementary functions in IEEE operations, the fused multiply-add among them: the same bits on every host and device,
// branch-free so that compilers vectorise them. The polynomials are minimax fits printed by fit_polynomials.py; each
// comment gives the largest error.
#pragma once

#include <cmath>

#include "macros.h"

namespace snn::SNN_ISA {

SNN_FN float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

SNN_FN uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

SNN_FN uint64_t to_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// a b + c, rounded once.
SNN_FN float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__AVX512F__)
    return fmaf(a, b, c);
#else
    // In float64 the product is exact. The sum is rounded to odd: an inexact one whose last bit is 0 becomes its
    // neighbour on the exact one's side. Rounding that to float32 gives what a single rounding does (Boldo & Melquiond,
    // IEEE Transactions on Computers 57(4), 2008). In integers, because branches on an error's sign are never foreseen.
    const double product = static_cast<double>(a) * b, sum = product + c, rest = sum - product;
    const double error = (product - (sum - rest)) + (c - rest);
    const uint64_t bits = to_bits(sum), size = to_bits(error) << 1;
    const uint64_t step = (size | (0 - size)) >> 63 & ~bits & 1;
    const uint64_t no_number = ((size >> 53) + 1) >> 11;  // an infinite sum's: one step inwards, it still rounds to it
    const uint64_t inwards = (bits ^ to_bits(error)) >> 63 | no_number;
    const uint64_t odd_bits = bits + step - 2 * (step & inwards);
    double odd;
    memcpy(&odd, &odd_bits, sizeof odd);
    return static_cast<float>(odd);
#endif
}

// n / d, rounded once, for 1 <= d < 2^100 and |n| < 2^100. On a GPU in the operations of the compiler's own division,
// which stand there behind a test of the range: a branch for each quotient, behind which it works on one at a time.
SNN_FN float quotient(float n, float d) {
#ifdef __CUDA_ARCH__
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(d));
    inverse = fmaf(inverse, fmaf(-d, inverse, 1.f), inverse);
    const float value = n * inverse;
    return fmaf(inverse, fmaf(-d, value, n), value);
#else
    return n / d;
#endif
}

// By Horner's rule, the coefficient of the highest power first.
template <class... Rest>
SNN_FN float polynomial(float x, float highest, Rest... rest) {
    float value = highest;
    ((value = multiply_add(value, x, rest)), ...);
    return value;
}

// NaN passes through both selections; `high` wins where it is below `low`.
SNN_FN float clamp(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return raised > high ? high : raised;
}

SNN_FN float magnitude(float x) { return from_bits(to_bits(x) & 0x7fffffffu); }

// The smaller of two numbers >= 0; NaN becomes the bound. Such floats are in the order of their bits, and the smaller
// of two integers is one instruction, for any vectoriser.
SNN_FN float no_more_than(float x, float bound) {
    const uint32_t bits = to_bits(x), most = to_bits(bound);
    return from_bits(bits < most ? bits : most);
}

SNN_FN float with_sign_of(float value, float sign) {
    return from_bits((to_bits(value) & 0x7fffffffu) | (to_bits(sign) & 0x80000000u));
}

// 2^n for n in [-126, 127]; infinity for 128.
SNN_FN float power_of_two(int32_t n) { return from_bits(static_cast<uint32_t>(n + 127) << 23); }

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
constexpr float kRound = 12582912.f;

SNN_FN int32_t integer_of(float shifted) { return static_cast<int32_t>(to_bits(shifted) - to_bits(kRound)); }

// 2^f for |f| <= 1/2. Relative error 2^-23.4.
SNN_FN float power_of_fraction(float f) {
    return polynomial(f, 1.32647239e-3f, 9.67151287e-3f, 5.55073375e-2f, 2.40222421e-1f, 6.93146978e-1f, 1.f);
}

// exp(x) for -87 <= x <= 0. Relative error (1.5 + |x| / 8) 2^-23.
SNN_FN float exp_within(float x) {
    const float shifted = multiply_add(x, 1.44269504f, kRound);
    const float f = multiply_add(x, 1.44269504f, kRound - shifted);
    return power_of_fraction(f) * power_of_two(integer_of(shifted));
}

// exp(x) for x <= 0; below exp(-87) it is 0.
SNN_FN float exp_of_negative(float x) {
    const float value = exp_within(x);
    return x < -87.f ? 0.f : value;
}

// 2^y; infinity where the real function overflows, below 2^-126 it is 0. Relative error 2^-22.4.
SNN_FN float exp2(float y) {
    const float bounded = y > 129.f ? 129.f : y;
    const float shifted = bounded + kRound;
    const float f = bounded - (shifted - kRound);
    const float value = power_of_fraction(f) * power_of_two(integer_of(shifted) - 1) * 2.f;  // n may be 128
    return y < -126.f ? 0.f : value;
}

// x = n ln2 + r with |r| <= ln2 / 2; `slope` is (exp(r) - 1) / r.
struct ExpParts {
    int32_t n;
    float r, slope;
};

SNN_FN ExpParts split_exp(float x) {
    const float shifted = multiply_add(x, 1.44269504f, kRound);
    const float n = shifted - kRound;
    const float r = multiply_add(n, 1.90465432e-9f, multiply_add(n, -0.693147182f, x));  // ln2 in two parts
    const float slope =
        polynomial(r, 1.39504862e-3f, 8.36888786e-3f, 4.16662059e-2f, 1.66665189e-1f, 5.00000010e-1f, 1.f);
    return {integer_of(shifted), r, slope};
}

// Overflows to infinity where the real function does; below exp(-87) it is 0. Relative error 2^-22.5.
SNN_FN float exp(float x) {
    const ExpParts parts = split_exp(x > 89.f ? 89.f : x);
    const float value = multiply_add(parts.slope, parts.r, 1.f) * power_of_two(parts.n - 1) * 2.f;  // n may be 128
    return x < -87.f ? 0.f : value;
}

// exp(x) - 1 for x <= 0, without cancellation near 0.
SNN_FN float expm1_of_negative(float x) {
    const ExpParts parts = split_exp(x < -20.f ? -20.f : x);
    const float power = power_of_two(parts.n);
    return multiply_add(parts.slope * parts.r, power, power - 1.f);
}

// x = 2^e (1 + z) with 1 + z between the roots of 1/2 and 2, for 0 < x < infinity.
struct LogParts {
    float e, z;
};

SNN_FN LogParts split_log(float x) {
    const bool tiny = x < 1.17549435e-38f;
    const uint32_t sqrt_half = 0x3f3504f3u;
    const uint32_t bits = to_bits(tiny ? x * 8388608.f : x) - sqrt_half;
    const float e = static_cast<float>(static_cast<int32_t>(bits) >> 23) - (tiny ? 23.f : 0.f);
    return {e, from_bits((bits & 0x7fffffu) + sqrt_half) - 1.f};
}

// log(x) for 0 < x < infinity. Relative error 2^-22.5, absolute near 1.
SNN_FN float log_within(float x) {
    const auto [e, z] = split_log(x);
    const float p = polynomial(z, -7.85954587e-2f, 1.28816224e-1f, -1.31287676e-1f, 1.41811961e-1f, -1.66245531e-1f,
                               2.00022861e-1f, -2.50008104e-1f, 3.33333167e-1f, -0.5f);
    return multiply_add(e, 0.693147182f, multiply_add(z * z, p, z));
}

constexpr float kInfinity = INFINITY;

SNN_FN float log(float x) {
    const float of_edge = x == 0.f ? -kInfinity : (x < 0.f ? from_bits(0x7fc00000u) : x);
    return x > 0.f && x < kInfinity ? log_within(x) : of_edge;
}

// log2(|x|). Relative error 2^-22.5, absolute near 1.
SNN_FN float log2_of_magnitude(float x) {
    const float size = magnitude(x);
    const auto [e, z] = split_log(size);
    const float p = polynomial(z, -1.45742960e-1f, 2.36889786e-1f, -2.50069305e-1f, 2.86707546e-1f, -3.60087200e-1f,
                               4.80939441e-1f, -7.21357149e-1f, 1.44269477f);
    const float value = size == 0.f ? -kInfinity : multiply_add(z, p, e);
    return size < kInfinity ? value : size;
}

// log(1 + u) for 0 <= u <= 1. Relative error 2^-22.
SNN_FN float log1p_of_fraction(float u) {
    const float p = polynomial(u, 4.34041908e-3f, -2.57459242e-2f, 7.17313408e-2f, -1.30720693e-1f, 1.88034363e-1f,
                               -2.47573994e-1f, 3.33070509e-1f, -4.99988832e-1f);
    return multiply_add(u * u, p, u);
}

SNN_FN float softplus(float x) {
    const float a = magnitude(x);
    return (x < 0.f ? 0.f : x) + log1p_of_fraction(exp_within(-no_more_than(a, 87.f)));
}

// With e = exp(-2 |x|) - 1 it is -e / (e + 2), and the sign of x. Relative error 2^-22.
SNN_FN float tanh(float x) {
    const float e = expm1_of_negative(-2.f * magnitude(x));
    return with_sign_of(quotient(e, e + 2.f), x);
}

// x times a gate that rises from 0 to 1, as x / 2 + |x| (1/2 - tail). The tail, the gate's value at -|x|, is given as
// its eighth root: a low power of |x| follows that, and its error matters less the further out. A tail below 2^-26 is
// rounded away, which leaves x or 0.
SNN_FN float gated(float x, float root_of_tail) {
    const float square = root_of_tail * root_of_tail, fourth = square * square;
    return multiply_add(magnitude(x), multiply_add(-fourth, fourth, 0.5f), 0.5f * x);
}

// x Phi(x) with the normal distribution's Phi. Error 2^-22.5 of max(1, |h|).
SNN_FN float gelu(float x) {
    const float a = no_more_than(magnitude(x), 5.6f);
    return gated(x, polynomial(a, -2.95879658e-7f, 7.47952251e-6f, -6.02574699e-5f, 3.42945511e-5f, 1.50436314e-3f,
                               -6.71956413e-4f, -3.19280766e-2f, -9.14574150e-2f, 9.17004008e-1f));
}

// x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3). Error 2^-22.5 of max(1, |h|).
SNN_FN float gelu_tanh(float x) {
    const float a = no_more_than(magnitude(x), 5.3f);
    return gated(x, polynomial(a, 1.45639195e-7f, -2.01394342e-6f, 6.74014673e-6f, 2.57673164e-5f, -2.14049092e-4f,
                               2.99836926e-4f, 1.26118852e-3f, -4.19379177e-4f, -3.19854901e-2f, -9.14486093e-2f,
                               9.17003559e-1f));
}

// 1 / (1 + exp(-x)). With u = exp(-|x|) it is 1 / (1 + u), for negative x u / (1 + u).
SNN_FN float sigmoid(float x) {
    const float u = exp_of_negative(-magnitude(x));
    return quotient(x < 0.f ? u : 1.f, 1.f + u);
}

// |x|^p with the sign of an odd power; a negative base with a fractional power is NaN.
SNN_FN float pow(float x, float p) {
    const float size = exp2(p * log2_of_magnitude(x));
    const bool whole = floorf(p) == p;
    const bool odd = whole & (floorf(p * 0.5f) != p * 0.5f);
    const float signed_size = from_bits(to_bits(size) | (to_bits(x) & (odd ? 0x80000000u : 0u)));
    const float of_base = (x < 0.f) & !whole ? from_bits(0x7fc00000u) : signed_size;
    return p == 0.f ? 1.f : of_base;
}

}  // namespace snn::SNN_ISA
