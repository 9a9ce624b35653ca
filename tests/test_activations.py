"""One list of nonlinearities, stated three times: PyTorch, C++ and Triton."""

import numpy
import pytest
import torch
import torch.nn.functional as F

from signgd_helpers import seeded
from snn_kernels import _C, ACTIVATIONS
from snn_kernels.activations import resolve
from snn_kernels.ops.neuron.reference import MODELS

TORCH = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "identity": lambda x: x,
    "multiply_rsqrt": lambda a, b: a * b.rsqrt(),
    "pow": torch.square,
    "abs": torch.abs,
    "square": torch.square,
    "pow_abs": lambda x: x.abs().sqrt(),
    "sqrt": torch.sqrt,
    "sqrt_abs": lambda x: x.abs().sqrt(),
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": torch.log,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "multiply": torch.multiply,
    "divide": torch.divide,
}


def takes(arity: int, name: str) -> bool:
    """Whether the C++ table holds ``name`` with this many inputs: asked with no neurons."""
    zero = torch.zeros(1)
    operand = (zero.data_ptr(), 1, 1)
    m = zero.data_ptr() if "momentum" in name else 0
    inputs = [(("float32", 0, 0, operand), operand, operand, zero.data_ptr(), m)] * arity
    call = (name, 0, 0, 0, inputs, operand, [operand] * 2, operand, 0, 0, (0.0, False, m))
    try:
        _C.neuron("cpu", call, 1)
    except ValueError:
        return False
    return True


def test_cpp_holds_the_same_models():
    with_momentum = [f"{name} with momentum" for name in (*ACTIVATIONS, "subgradient")]
    assert sorted(_C.models) == sorted([*MODELS, *with_momentum])
    for name, row in ACTIVATIONS.items():
        assert takes(row.arity, name)
        assert takes(row.arity, f"{name} with momentum")
        assert not takes(3 - row.arity, name)


def test_triton_holds_the_same_activations():
    table = pytest.importorskip("snn_kernels.triton_activations", reason="triton is not installed").TRITON_ACTIVATIONS
    assert sorted(table) == sorted(ACTIVATIONS)
    for name, row in ACTIVATIONS.items():
        assert table[name].arity == row.arity


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_table_is_what_torch_calls_it(name):
    """In float64, where a wrong constant or formula shows; 1e-12 is rounding."""
    row, parameters = resolve(name, ACTIVATIONS[name].arity)
    inputs = [seeded(500, seed=k).double() for k in range(row.arity)]
    parameters = [torch.tensor(p, dtype=torch.float64) for p in parameters]
    torch.testing.assert_close(
        row.function(*inputs, *parameters), TORCH[name](*inputs), rtol=1e-12, atol=1e-12, equal_nan=True
    )


ROUNDED = {
    "sqrt": numpy.sqrt,
    "sqrt_abs": numpy.sqrt,
    "rsqrt": lambda x: numpy.float32(1) / numpy.sqrt(x),
    "reciprocal": lambda x: numpy.float32(1) / x,
    "square": lambda x: x * x,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "multiply_rsqrt": lambda x, y: x / numpy.sqrt(y),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_the_reference_rounds_correctly(name):
    """As NumPy does; PyTorch's own square root does not everywhere."""
    inputs = [seeded(100_000, seed=k).abs() + 1e-3 for k in range(ACTIVATIONS[name].arity)]
    found = ACTIVATIONS[name].function(*inputs).numpy()
    assert numpy.array_equal(found, ROUNDED[name](*(x.numpy() for x in inputs)))


def test_band():
    h = torch.tensor([0.0, -1.0, 1.0, -8.0])
    assert ACTIVATIONS["relu"].band(h).tolist() == [0.0] * 4
    assert ACTIVATIONS["tanh"].band(h).tolist() == [2 * 2**-23 * size for size in (1, 1, 1, 8)]
    power, squared = ACTIVATIONS["pow"], torch.tensor(2.0)
    assert power.band(torch.tensor(1.0), squared).item() == 2 * 2**-23 * 3
    assert power.band(torch.tensor(torch.e), squared).item() == pytest.approx(2 * 2**-23 * 4 * torch.e)
    assert power.band(torch.tensor(0.0), squared).item() == 2 * 2**-23 * 3


def test_resolve_fills_in_defaults():
    assert resolve("relu", 1) == (ACTIVATIONS["relu"], ())
    assert resolve("leaky_relu", 1)[1] == (0.01,)
    assert resolve(("leaky_relu", 0.2), 1)[1] == (0.2,)
    assert resolve(("hardtanh", -2.0), 1)[1] == (-2.0, 1.0)


@pytest.mark.parametrize(
    ("activation", "arity", "error"),
    [
        ("swish", 1, ValueError),
        ("maximum", 1, ValueError),
        ("relu", 2, ValueError),
        (("relu", 0.1), 1, ValueError),
        (("hardtanh", 0.0, 1.0, 2.0), 1, ValueError),
        ((["relu"],), 1, ValueError),
        ((), 1, TypeError),
        (None, 1, TypeError),
        (torch.relu, 1, TypeError),
    ],
)
def test_unknown_activations_are_named(activation, arity, error):
    with pytest.raises(error, match=r"^h: "):
        resolve(activation, arity, "h")
