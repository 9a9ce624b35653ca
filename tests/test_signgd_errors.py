"""Every argument that does not fit is named, with what was expected and what came."""

import pytest
import torch

from snn_kernels import NeuronState, signgd, signgd_binary

CURRENT, ETA = torch.zeros(9, 3, 5), torch.zeros(9)
DOUBLE = torch.zeros(3, 5, dtype=torch.float64)

UNARY = [
    # arguments that replace the good ones, error, its beginning
    ({"current": [1.0]}, TypeError, "current: expected a float32, float16 or bfloat16 tensor, got list"),
    ({"current": CURRENT.double()}, TypeError, r"current: expected a float32.*got torch\.float64 \(9, 3, 5\)"),
    ({"current": CURRENT.int()}, TypeError, "current: "),
    ({"current": torch.tensor(1.0)}, ValueError, r"current: expected \[T, \*shape\]"),
    ({"eta": 0.1}, TypeError, "eta: expected a float32 tensor, got float 0.1"),
    ({"eta": ETA.double()}, TypeError, "eta: expected a float32 tensor, got torch.float64"),
    ({"eta": torch.zeros(8)}, ValueError, r"eta: expected shape \(9,\) on cpu, got torch.float32 \(8,\) on cpu"),
    ({"eta": torch.zeros(9, 1)}, ValueError, r"eta: expected shape \(9,\)"),
    ({"eta": torch.zeros(9, device="meta")}, ValueError, r"eta: .* on cpu, got .* on meta"),
    ({"activation": "swish"}, ValueError, "activation: expected one of identity, relu.*got 'swish'"),
    ({"activation": "maximum"}, ValueError, "activation: expected one of"),
    ({"activation": ("relu", 1.0)}, ValueError, "activation: relu takes 0 parameters, got 1"),
    ({"activation": torch.relu}, TypeError, "activation: expected a name"),
    ({"activation": ("leaky_relu", "0.1")}, TypeError, "leaky_relu's slope: expected a number or a tensor, got str"),
    (
        {"activation": ("hardtanh", 0.0, torch.zeros(4))},
        ValueError,
        r"hardtanh's max: expected a shape that broadcasts",
    ),
    ({"offset": "1"}, TypeError, "offset: expected a number or a tensor, got str"),
    ({"offset": None}, TypeError, "offset: expected a number or a tensor, got NoneType"),
    ({"offset": torch.zeros(4)}, ValueError, r"offset: expected a shape that broadcasts to \(3, 5\), got .*\(4,\)"),
    ({"offset": torch.zeros(2, 3, 5)}, ValueError, "offset: expected a shape"),
    ({"offset": DOUBLE}, TypeError, "offset: expected float32, got torch.float64"),
    ({"offset": torch.zeros(5, device="meta")}, ValueError, "offset: expected a tensor on cpu, got .* on meta"),
    ({"bias": torch.zeros(4)}, ValueError, "bias: expected a shape"),
    ({"bias": DOUBLE}, TypeError, "bias: expected float32"),
    ({"scale": torch.zeros(4)}, ValueError, "scale: expected a shape"),
    ({"scale": DOUBLE}, TypeError, "scale: expected float32"),
    ({"v0": torch.zeros(4)}, ValueError, "v0: expected a shape"),
    ({"v0": DOUBLE}, TypeError, "v0: expected float32"),
    ({"state": (DOUBLE, DOUBLE)}, TypeError, "state: expected a NeuronState, got tuple"),
    ({"state": NeuronState(torch.zeros(4), torch.zeros(5))}, ValueError, "state.x: expected a shape"),
    ({"state": NeuronState(torch.zeros(5), DOUBLE)}, TypeError, "state.v: expected float32"),
    ({"state": NeuronState((DOUBLE, DOUBLE), DOUBLE)}, TypeError, "state.x: expected a number or a tensor, got tuple"),
    ({"backend": "gpu"}, ValueError, "backend: expected None or one of cuda, triton, cpu, reference; got 'gpu'"),
]

BINARY = [
    ({"current_a": CURRENT.int()}, TypeError, "current_a: expected a float32"),
    ({"current_b": None}, TypeError, "current_b: expected a float32"),
    ({"current_b": torch.zeros(9, 5, 3)}, ValueError, "current_b: expected the shape, dtype and device of current_a"),
    ({"current_b": CURRENT.half()}, ValueError, "current_b: expected the shape, dtype and device of current_a"),
    ({"function": "relu"}, ValueError, "function: expected one of maximum, minimum"),
    ({"offset": 1.0}, TypeError, "offset: expected a pair, one value for each input, got float 1.0"),
    ({"bias": (1.0, 2.0, 3.0)}, TypeError, "bias: expected a pair"),
    ({"offset": (1.0, torch.zeros(4))}, ValueError, "offset: expected a shape"),
    ({"state": NeuronState(torch.zeros(5), torch.zeros(5))}, TypeError, "state.x: expected a pair"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), UNARY)
def test_signgd(wrong, error, message):
    with pytest.raises(error, match=f"^{message}"):
        signgd(**{"current": CURRENT, "eta": ETA, "activation": "relu", **wrong})


@pytest.mark.parametrize(("wrong", "error", "message"), BINARY)
def test_signgd_binary(wrong, error, message):
    with pytest.raises(error, match=f"^{message}"):
        signgd_binary(**{"current_a": CURRENT, "current_b": CURRENT, "eta": ETA, "function": "maximum", **wrong})


def test_the_good_arguments_are_good():
    signgd(CURRENT, ETA, "relu")
    signgd_binary(CURRENT, CURRENT, ETA, "maximum")
