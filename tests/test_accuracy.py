"""The elementary functions of csrc/core/math.h, measured through the public op.

With T = 1 and eta = 0 the spike is ``v0 >= h(bias)``: 32 such questions find ``h(x)`` to the bit, for all ``x`` at
once.
"""

import pytest
import torch

from signgd_helpers import TRANSCENDENTAL, assert_instruction_sets_agree
from snn_kernels import ACTIVATIONS, signgd

# A prime stride over all bit patterns of float32: normal, denormal, both signs, infinities.
EVERY = torch.arange(-(2**31), 2**31, 262_139, dtype=torch.int64).to(torch.int32).view(torch.float32)
# And where the functions bend, denser.
DENSE = torch.linspace(-20, 20, 9_001)
PARAMETERS = {"elu": [0.3, 1.0, 5.0], "celu": [0.3, 1.0, 5.0], "pow": [-2.0, -1.5, 0.0, 0.5, 1.0, 2.0, 3.0, 10.0]}
PARAMETERS["pow_abs"] = [-1.5, 0.5]
CASES = [(name, p) for name in TRANSCENDENTAL for p in PARAMETERS.get(name, [None])]


def key_to_float(key: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the floats they stand for, both zeros next to each other."""
    return torch.where(key >= 0, key, -(2**31) - key - 1).to(torch.int32).view(torch.float32)


def kernel_values(activation, x: torch.Tensor) -> torch.Tensor:
    """``h(x)`` of the CPU kernel: the least float at which the neuron fires; NaN where none does."""
    infinity = torch.tensor(float("inf")).view(torch.int32).item()
    low, high = torch.full_like(x, -infinity - 2, dtype=torch.int64), torch.full_like(x, infinity, dtype=torch.int64)
    none = torch.zeros(1, len(x))

    def fires(key: torch.Tensor) -> torch.Tensor:
        train, _ = signgd(none, torch.zeros(1), activation, bias=x, v0=key_to_float(key), backend="cpu")
        return train.bytes[0] != 0

    never = ~fires(high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        fired = fires(middle)
        low, high = torch.where(fired, low, middle), torch.where(fired, middle, high)
    return torch.where(never, float("nan"), key_to_float(high))


def test_the_measurement_finds_known_values():
    x = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -3.25, 3e38, float("inf"), float("-inf"), float("nan")])
    values = kernel_values("identity", x)
    assert torch.equal(values[:-1], x[:-1])
    assert values[-1].isnan()


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_functions_stay_within_their_band(name, parameter):
    row = ACTIVATIONS[name]
    parameters = [] if parameter is None else [parameter]
    x = torch.cat([EVERY[EVERY.isfinite()], DENSE])
    kernel = kernel_values((name, *parameters), x).double()
    parameters = [torch.tensor(p, dtype=torch.float64) for p in parameters]
    real = row.function(x.double(), *parameters)
    band = row.band(real, *parameters)
    largest = torch.finfo(torch.float32).max
    # Where the band reaches past the largest float32, infinity is a rounding of the real value.
    within = (kernel - real).abs() <= band
    overflows = (real.abs() + band >= largest) & (kernel == real.sign() * float("inf"))
    assert (within | overflows | (kernel.isnan() & real.isnan())).all()
    assert torch.equal(kernel.isnan(), real.isnan())


def values_of_all():
    x = torch.cat([EVERY, DENSE])
    return (kernel_values((name,) if p is None else (name, p), x) for name, p in CASES)


def test_every_instruction_set_computes_the_same_values():
    assert_instruction_sets_agree(values_of_all)


@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_the_reference_stays_within_the_band_too(name):
    """Else a flip between the two could lie outside it."""
    row = ACTIVATIONS[name]
    x = torch.cat([EVERY[EVERY.isfinite()], DENSE])
    parameters = [torch.tensor(default) for _, default in row.parameters]
    reference = row.function(x, *parameters).double()
    real = row.function(x.double(), *(p.double() for p in parameters))
    overflows = real.abs() > torch.finfo(torch.float32).max
    assert (((reference - real).abs() <= row.band(real, *parameters)) | overflows | real.isnan()).all()


@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_edges(name):
    """Zeros, infinities and NaN: as in float64."""
    x = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45])
    kernel = kernel_values(name, x).double()
    row = ACTIVATIONS[name]
    parameters = [torch.tensor(default, dtype=torch.float64) for _, default in row.parameters]
    real = row.function(x.double(), *parameters)
    finite = real.isfinite()
    assert torch.equal(kernel[~finite].nan_to_num(nan=7.0), real[~finite].nan_to_num(nan=7.0))
    assert ((kernel - real).abs() <= row.band(real, *parameters))[finite].all()
