// The nonlinearities h a neuron can chase: one line each, the same names as snn_kernels/activations.py.
// x and y are the decoded inputs (y only in the binary ones), a and b the parameters.
#pragma once

#include "math.h"

// clang-format off
#define SNN_UNARY_ACTIVATIONS(X) \
    X(identity,     x) \
    X(relu,         x < 0.f ? 0.f : x) \
    X(relu6,        clamp(x, 0.f, 6.f)) \
    X(hardtanh,     clamp(x, a, b)) \
    X(leaky_relu,   x > 0.f ? x : x * a) \
    X(hardsigmoid,  clamp(x + 3.f, 0.f, 6.f) / 6.f) \
    X(hardswish,    x * clamp(x + 3.f, 0.f, 6.f) / 6.f) \
    X(abs,          magnitude(x)) \
    X(square,       x * x) \
    X(sqrt,         sqrtf(x)) \
    X(sqrt_abs,     sqrtf(magnitude(x))) \
    X(rsqrt,        1.f / sqrtf(x)) \
    X(reciprocal,   1.f / x) \
    X(elu,          x > 0.f ? x : a * expm1_of_negative(x)) \
    X(celu,         x > 0.f ? x : a * expm1_of_negative(x / a)) \
    X(selu,         1.05070099f * (x > 0.f ? x : 1.67326324f * expm1_of_negative(x))) \
    X(gelu,         gelu(x)) \
    X(gelu_tanh,    gelu_tanh(x)) \
    X(gelu_sigmoid, x * sigmoid(1.702f * x)) \
    X(silu,         x * sigmoid(x)) \
    X(mish,         mish_of(x)) \
    X(softplus,     softplus(x)) \
    X(sigmoid,      sigmoid(x)) \
    X(tanh,         tanh(x)) \
    X(exp,          exp(x)) \
    X(log,          log(x)) \
    X(pow,          pow(x, a)) \
    X(pow_abs,      pow(magnitude(x), a))

#define SNN_BINARY_ACTIVATIONS(X) \
    X(maximum,        x > y || x != x ? x : y) \
    X(minimum,        x < y || x != x ? x : y) \
    X(multiply,       x * y) \
    X(divide,         x / y) \
    X(multiply_rsqrt, x / sqrtf(y))
// clang-format on

#define SNN_ACTIVATIONS(X) SNN_UNARY_ACTIVATIONS(X) SNN_BINARY_ACTIVATIONS(X)

namespace snn::SNN_ISA {

// x tanh(softplus(x)) with w = 1 + e^x: tanh(log w) = (w^2 - 1) / (w^2 + 1). Past 20 the quotient is 1 in float32.
SNN_FN float mish_of(float x) {
    const float e = exp(x > 20.f ? 20.f : x);
    const float n = e * (e + 2.f);
    return x * quotient(n, n + 2.f);
}

namespace activation {

template <int Arity>
struct Function {
    static constexpr int arity = Arity;
};

#define SNN_DEFINE_UNARY(name, expression)                               \
    struct name##_fn : Function<1> {                                     \
        static const char* label() { return #name; }                     \
        static SNN_FN float at(float x, float /*y*/, float a, float b) { \
            (void)a, (void)b;                                            \
            return expression;                                           \
        }                                                                \
    };
#define SNN_DEFINE_BINARY(name, expression)                                                       \
    struct name##_fn : Function<2> {                                                              \
        static const char* label() { return #name; }                                              \
        static SNN_FN float at(float x, float y, float /*a*/, float /*b*/) { return expression; } \
    };
SNN_UNARY_ACTIVATIONS(SNN_DEFINE_UNARY)
SNN_BINARY_ACTIVATIONS(SNN_DEFINE_BINARY)
#undef SNN_DEFINE_UNARY
#undef SNN_DEFINE_BINARY

}  // namespace activation
}  // namespace snn::SNN_ISA
