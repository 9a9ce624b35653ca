"""Prints the coefficients in math.h: weighted minimax fits by Lawson's iteration in float64 against mpmath.

Run it when a fit is to be changed: ``python csrc/core/fit_polynomials.py`` (needs numpy and mpmath).
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np

NODES, ROUNDS = 600, 60


def fit(f: Callable, low: float, high: float, degree: int, weight: Callable = lambda x: 1.0) -> tuple:
    """Coefficients of ``x**0 .. x**degree`` and the largest error times ``weight`` on ``[low, high]``."""
    nodes = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    values = np.array([float(f(mpmath.mpf(x))) for x in nodes])
    weights = np.array([float(weight(x)) for x in nodes])
    powers = np.vander(nodes, degree + 1, increasing=True)
    emphasis = np.ones(NODES)
    for _ in range(ROUNDS):
        root = np.sqrt(emphasis) * weights
        coefficients = np.linalg.lstsq(powers * root[:, None], values * root, rcond=None)[0]
        error = np.abs((powers @ coefficients - values) * weights)
        emphasis *= error + 1e-30
        emphasis /= emphasis.sum()
    return coefficients, error.max()


def main() -> None:
    mpmath.mp.dps = 40
    m = mpmath
    half_ln2 = 0.3466

    def gelu_tail(a):  # Phi(-a) of the normal distribution
        return m.erfc(a / m.sqrt(2)) / 2

    def gelu_tanh_tail(a):
        return 1 / (1 + m.exp(m.sqrt(8 / m.pi) * (a + m.mpf("0.044715") * a**3)))

    def fit_root(tail: Callable, high: float, degree: int) -> tuple:
        """Of a tail's eighth root; the error is that of ``a * tail(a)``."""
        return fit(lambda a: m.root(tail(a), 8), 0.0, high, degree, weight=lambda a: 8 * a * tail(a) ** (m.mpf(7) / 8))

    fits = {
        "exp(r) = 1 + r + r^2 p(r)": fit(
            lambda r: (m.exp(r) - 1 - r) / r**2, -half_ln2, half_ln2, 4, weight=lambda r: r * r
        ),
        "2^f = 1 + f p(f), relative": fit(lambda f: (2**f - 1) / f, -0.5, 0.5, 4, weight=lambda f: abs(f) / 2**f),
        "log2(1 + z) = z p(z)": fit(lambda z: m.log(1 + z, 2) / z, 2**-0.5 - 1, 2**0.5 - 1, 7, weight=abs),
        "log(1 + z) = z - z^2 / 2 + z^3 p(z)": fit(
            lambda z: (m.log(1 + z) - z + z * z / 2) / z**3, 2**-0.5 - 1, 2**0.5 - 1, 7, weight=lambda z: z * z
        ),
        "log(1 + u) = u + u^2 p(u), 0 <= u <= 1": fit(
            lambda u: (m.log(1 + u) - u) / u**2, 1e-9, 1.0, 7, weight=lambda u: u * u
        ),
        "gelu's tail = p(a)^8, 0 <= a <= 5.6": fit_root(gelu_tail, 5.6, 8),
        "gelu_tanh's tail = p(a)^8, 0 <= a <= 5.3": fit_root(gelu_tanh_tail, 5.3, 10),
    }
    for name, (coefficients, error) in fits.items():
        print(f"{name}: largest error {error:.1e}")
        for power, coefficient in enumerate(coefficients):
            print(f"  x^{power}: {coefficient:.8e}")


if __name__ == "__main__":
    main()
