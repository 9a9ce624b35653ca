// Elementary functions in plain IEEE operations: the same bits on every host and device, branch-free so that compilers
// vectorise them. The polynomials are minimax fits printed by fit_polynomials.py; each comment gives the largest error.
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

// NaN passes through both selections; `high` wins where it is below `low`.
SNN_FN float clamp(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return raised > high ? high : raised;
}

SNN_FN float magnitude(float x) { return from_bits(to_bits(x) & 0x7fffffffu); }

SNN_FN float with_sign_of(float value, float sign) {
    return from_bits((to_bits(value) & 0x7fffffffu) | (to_bits(sign) & 0x80000000u));
}

// 2^n for n in [-126, 127].
SNN_FN float power_of_two(int32_t n) { return from_bits(static_cast<uint32_t>(n + 127) << 23); }

// x = n ln2 + r with |r| <= ln2 / 2; `tail` is exp(r) - 1.
struct ExpParts {
    int32_t n;
    float tail;
};

SNN_FN ExpParts split_exp(float x) {
    const float round = 12582912.f;  // adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits
    const float shifted = x * 1.44269504f + round;
    const float n = shifted - round;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln2 in two parts, n times the first is exact
    float p = 1.39504862e-3f;
    p = p * r + 8.36888786e-3f;
    p = p * r + 4.16662059e-2f;
    p = p * r + 1.66665189e-1f;
    p = p * r + 5.00000010e-1f;
    return {static_cast<int32_t>(to_bits(shifted) - to_bits(round)), r + r * r * p};
}

// exp(x) for -87 <= x <= 89, infinity from 88.4 on. Relative error 2^-22.5.
SNN_FN float exp_within(float x) {
    const ExpParts parts = split_exp(x);
    return (1.f + parts.tail) * power_of_two(parts.n);
}

// Overflows to infinity where the real function does; below exp(-87) it is 0. Relative error 2^-22.5.
SNN_FN float exp(float x) {
    const ExpParts parts = split_exp(x > 89.f ? 89.f : x);
    const float value = (1.f + parts.tail) * power_of_two(parts.n - 1) * 2.f;  // n may be 128
    return x < -87.f ? 0.f : value;
}

// exp(x) - 1 for x <= 0, without cancellation near 0.
SNN_FN float expm1_of_negative(float x) {
    const ExpParts parts = split_exp(x < -20.f ? -20.f : x);
    const float power = power_of_two(parts.n);
    return parts.tail * power + (power - 1.f);
}

// Relative error 2^-22.5, absolute near 1.
SNN_FN float log(float x) {
    const bool tiny = x < 1.17549435e-38f;
    const uint32_t sqrt_half = 0x3f3504f3u;
    const uint32_t bits = to_bits(tiny ? x * 8388608.f : x) - sqrt_half;
    const float e = static_cast<float>(static_cast<int32_t>(bits) >> 23) - (tiny ? 23.f : 0.f);
    const float z = from_bits((bits & 0x7fffffu) + sqrt_half) - 1.f;
    float p = 6.91536807e-2f;
    p = p * z - 1.17898077e-1f;
    p = p * z + 1.18729763e-1f;
    p = p * z - 1.23843485e-1f;
    p = p * z + 1.42186581e-1f;
    p = p * z - 1.66692508e-1f;
    p = p * z + 2.00022266e-1f;
    p = p * z - 2.49999866e-1f;
    p = p * z + 3.33333104e-1f;
    const float finite = (z + (z * z * (p * z - 0.5f) - e * 2.12194440e-4f)) + e * 0.693359375f;
    const float infinity = from_bits(0x7f800000u);
    const float of_edge = x == 0.f ? -infinity : (x < 0.f ? from_bits(0x7fc00000u) : x);
    return x > 0.f && x < infinity ? finite : of_edge;
}

// log(1 + u) for 0 <= u <= 1. Relative error 2^-22.
SNN_FN float log1p_of_fraction(float u) {
    float p = 4.34041908e-3f;
    p = p * u - 2.57459242e-2f;
    p = p * u + 7.17313408e-2f;
    p = p * u - 1.30720693e-1f;
    p = p * u + 1.88034363e-1f;
    p = p * u - 2.47573994e-1f;
    p = p * u + 3.33070509e-1f;
    p = p * u - 4.99988832e-1f;
    return u + u * u * p;
}

SNN_FN float softplus(float x) {
    const float a = magnitude(x);
    return (x > 0.f ? x : 0.f) + log1p_of_fraction(exp_within(a > 87.f ? -87.f : -a));
}

// Relative error 2^-22.
SNN_FN float tanh(float x) {
    const float a = magnitude(x);
    const float z = x * x;
    float p = -5.71703656e-3f;
    p = p * z + 2.06505790e-2f;
    p = p * z - 5.37434953e-2f;
    p = p * z + 1.33314912e-1f;
    p = p * z - 3.33332839e-1f;
    const float large = 1.f - 2.f / (exp_within(a > 20.f ? 40.f : a + a) + 1.f);
    return a < 0.625f ? x + x * (z * p) : with_sign_of(large, x);
}

// x Phi(x) with the normal distribution's Phi. For both signs of x the tail Phi(-|x|) = exp(-x^2 / 2 - p(|x|)) is what
// is computed: it is 1/2 at 0 and vanishes outwards, so that one fit serves and its error fades. Error 2^-23
// of max(1, |h|).
SNN_FN float gelu(float x) {
    const float size = magnitude(x);
    const float a = size > 5.f ? 5.f : size;
    float p = 1.17168954e-6f;
    p = p * a - 1.73863124e-5f;
    p = p * a + 7.93388339e-5f;
    p = p * a + 2.24125642e-4f;
    p = p * a - 5.08311781e-3f;
    p = p * a + 3.65387013e-2f;
    p = p * a - 1.81765431e-1f;
    p = p * a + 7.97897844e-1f;
    p = p * a + 6.93146400e-1f;
    const float tail = exp(-0.5f * (x * x) - p);
    return x < 0.f ? x * tail : x - a * tail;
}

// 1 + exp(-x), of which the sigmoid is the reciprocal.
SNN_FN float one_and_exp_of_minus(float x) { return 1.f + exp_within(clamp(-x, -87.f, 89.f)); }

// |x|^p with the sign of an odd power; a negative base with a fractional power is NaN.
SNN_FN float pow(float x, float p) {
    const float size = exp(p * log(magnitude(x)));
    const bool whole = floorf(p) == p;
    const bool odd = whole & (floorf(p * 0.5f) != p * 0.5f);
    const float signed_size = odd ? with_sign_of(size, x) : size;
    const float of_base = (x < 0.f) & !whole ? from_bits(0x7fc00000u) : signed_size;
    return p == 0.f ? 1.f : of_base;
}

}  // namespace snn::SNN_ISA
