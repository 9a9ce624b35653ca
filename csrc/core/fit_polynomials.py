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

    def tail(a):  # of the normal distribution
        return m.erfc(a / m.sqrt(2)) / 2

    fits = {
        "exp(r) = 1 + r + r^2 p(r)": fit(
            lambda r: (m.exp(r) - 1 - r) / r**2, -half_ln2, half_ln2, 4, weight=lambda r: r * r
        ),
        "log(1 + z) = z - z^2 / 2 + z^3 p(z)": fit(
            lambda z: (m.log(1 + z) - z + z * z / 2) / z**3, 2**-0.5 - 1, 2**0.5 - 1, 7, weight=lambda z: z * z
        ),
        "log(1 + u) = u + u^2 p(u), 0 <= u <= 1": fit(
            lambda u: (m.log(1 + u) - u) / u**2, 1e-9, 1.0, 7, weight=lambda u: u * u
        ),
        "Phi(-a) = exp(-a^2 / 2 - p(a)), 0 <= a <= 5": fit(
            lambda a: -m.log(tail(a)) - a * a / 2, 0.0, 5.0, 7, weight=lambda a: a * tail(a)
        ),
    }
    for name, (coefficients, error) in fits.items():
        print(f"{name}: largest error {error:.1e}")
        for power, coefficient in enumerate(coefficients):
            print(f"  x^{power}: {coefficient:.8e}")


if __name__ == "__main__":
    main()
