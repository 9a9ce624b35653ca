"""Weights of 8 bits: their error, and products that are the same to the bit however they are taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import snn_kernels as sk
from test_spike_gemm import (
    FIELDS,
    GEOMETRIES,
    METHODS,
    assert_like_a_float32_product,
    assert_same_neurons,
    random,
    random_train,
)


def extreme(outputs: int, inputs: int) -> sk.QuantizedWeight:
    """The largest and the smallest values, and outputs of nothing else."""
    values = torch.randint(-128, 128, (outputs, inputs), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    values[::3] = -128
    values[1::5] = 127
    return sk.QuantizedWeight(values, random(outputs, seed=5))


def exactly(train: sk.SpikeTrain, weight: sk.QuantizedWeight, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Sums of whole numbers, one product and one addition, in float32."""
    sums = train.unpack().double() @ weight.values.double().t()
    current = sums.float() * weight.scale
    return current if bias is None else current + bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5, 1), (7, 63), (4, 3, 3, 2), (0, 5), (5, 0)])
def test_the_nearest_weights(shape, dtype):
    weight = random(*shape).to(dtype)
    weight[2:3] = 0.0
    quantized = sk.quantize_weight(weight)
    assert quantized.values.dtype == torch.int8
    assert quantized.shape == weight.shape
    assert quantized.dequantize().dtype == torch.float32
    error = (quantized.dequantize().double() - weight.double()).abs().flatten(1) if weight.numel() else torch.zeros(1)
    largest = weight.double().abs().flatten(1).amax(1, keepdim=True) if weight.numel() else torch.zeros(1)
    # Half a step, and the rounding of the scale and of the product with it to float32.
    assert (error <= largest * (1 / 254 + 2.0**-22)).all()
    assert (quantized.dequantize()[2:3] == 0).all()


def test_the_smallest_numbers_stay_within_the_largest_values():
    """A 127th of 2.6e-43 rounds to a scale that it is 186 of."""
    assert sk.quantize_weight(torch.tensor([[2.6e-43, -2.6e-43]])).values.tolist() == [[127, -127]]


def test_the_error_of_normal_weights_is_as_stated():
    weight = random(64, 512)
    spikes = random_train(8, 30, 512).unpack()
    wanted = spikes @ weight.t()
    for rounded, stated in ((sk.quantize_weight(weight).dequantize(), 0.008), (weight.bfloat16().float(), 0.0017)):
        error = ((spikes @ rounded.t() - wanted).norm() / wanted.norm()).item()
        assert 0.8 * stated < error < 1.2 * stated


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (
            torch.zeros(3, 4).int(),
            TypeError,
            r"weight: expected a floating-point tensor \[N, K, ...\], got torch.int32",
        ),
        ([1.0], TypeError, "weight: expected a floating-point tensor"),
        (torch.ones(3), TypeError, "weight: expected a floating-point tensor"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, "weight: expected finite numbers"),
    ],
)
def test_what_cannot_be_quantized(weight, error, message):
    with pytest.raises(error, match=message):
        sk.quantize_weight(weight)


@pytest.mark.parametrize("inputs", [1, 7, 63, 64, 65, 641, 1921])
@pytest.mark.parametrize("outputs", [1, 15, 16, 31, 32, 33, 65])
def test_every_method_gives_the_same_currents(inputs, outputs, three_threads):
    train, bias = random_train(9, 35, inputs, density=0.3), random(outputs)
    train.bytes[:, 2] = 255
    train.bytes[1] &= 1
    for weight in (extreme(outputs, inputs), sk.quantize_weight(random(outputs, inputs))):
        wanted = exactly(train, weight, bias)
        for method in METHODS:
            assert torch.equal(sk.spike_linear(train, weight, bias, method=method), wanted), method
        assert torch.equal(sk.spike_linear(train, weight, bias, backend="reference"), wanted)


@pytest.mark.parametrize("geometry", [*GEOMETRIES, {"groups": 70}], ids=str)
@pytest.mark.parametrize("size", [(9, 7), (14, 13)])
def test_every_method_gives_the_same_currents_of_a_convolution(geometry, size, three_threads):
    channels = 70 if geometry.get("groups") == 70 else 4
    train = random_train(9, 3, channels, *size)
    weight, bias = extreme(70, channels // geometry.get("groups", 1) * 6), random(70)
    if 70 % geometry.get("groups", 1):
        weight, bias = sk.QuantizedWeight(weight.values[:68], weight.scale[:68]), bias[:68]
    weight = sk.QuantizedWeight(weight.values.unflatten(1, (-1, 3, 2)), weight.scale)
    sums = F.conv2d(train.unpack().double().flatten(0, 1), weight.values.double(), **geometry).unflatten(0, (9, 3))
    wanted = sums.float() * weight.scale.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    for method in METHODS:
        assert torch.equal(sk.spike_conv2d(train, weight, bias, **geometry, method=method), wanted), method
    assert torch.equal(sk.spike_conv2d(train, weight, bias, **geometry, backend="reference"), wanted)


def test_a_convolution_1d():
    train, weight = random_train(9, 3, 4, 11), sk.quantize_weight(random(6, 2, 3))
    wanted = sk.spike_conv1d(train, weight.dequantize(), None, 2, 1, 1, 2)
    assert_like_a_float32_product(sk.spike_conv1d(train, weight, None, 2, 1, 1, 2), wanted.double(), 6)


@pytest.mark.parametrize("method", ["dense", "unpack", "auto"])
def test_amplitudes(method):
    """A number is part of the scale; rows and neurons have their own; inputs cannot."""
    train, weight, bias = random_train(9, 2, 17, 50), sk.quantize_weight(random(70, 50)), random(70)
    for number in (0.3, torch.tensor(0.3), torch.tensor([0.3])):
        scaled = sk.QuantizedWeight(weight.values, weight.scale * 0.3)
        found = sk.spike_linear(train, weight, bias, amplitude=number, method=method)
        assert torch.equal(found, sk.spike_linear(train, scaled, bias, method=method))
    for amplitude in (random(17, 1), random(17, 50)):
        wanted = (train.unpack().double() * amplitude) @ weight.dequantize().double().t() + bias
        found = sk.spike_linear(train, weight, bias, amplitude=amplitude, method=method)
        assert_like_a_float32_product(found, wanted, 50)
    with pytest.raises(ValueError, match="amplitude: expected a number, or one for each row or neuron, with a Quanti"):
        sk.spike_linear(train, weight, amplitude=random(50), method=method)


@pytest.mark.parametrize("fields", FIELDS)
def test_fused_neurons_are_those_of_every_backend(fields, three_threads):
    train, weight, bias = random_train(33, 17, 70), sk.quantize_weight(random(33, 70)), random(33)
    eta = sk.schedules.Exponential(0.4, 0.9).table(33)
    shortcut, projection = random_train(33, 17, 20), sk.quantize_weight(random(33, 20))
    for options in ({}, {"residual": shortcut, "residual_weight": projection, "residual_amplitude": 0.4}):
        found, wanted = (
            sk.spike_linear_signgd(train, weight, bias, eta, "relu", **options, **FIELDS[fields], backend=backend)
            for backend in ("cpu", "reference")
        )
        assert_same_neurons(found, wanted)


def test_fused_convolutions_are_those_of_every_backend(three_threads):
    train, weight, eta = random_train(19, 2, 7, 9, 8), sk.quantize_weight(random(34, 7, 3, 3)), torch.full((19,), 0.2)
    shortcut, projection = random_train(19, 2, 5, 9, 8), sk.quantize_weight(random(34, 5))
    for options in ({}, {"residual": shortcut, "residual_weight": projection}):
        found, wanted = (
            sk.spike_conv2d_signgd(train, weight, None, eta, "relu", padding=1, **options, backend=backend)
            for backend in ("cpu", "reference")
        )
        assert_same_neurons(found, wanted)


def test_it_goes_through_compile_and_pytrees():
    train, weight = random_train(9, 5, 40), sk.quantize_weight(random(20, 40))
    call = torch.compile(lambda train, weight: sk.spike_linear(train, weight), fullgraph=True, backend="eager")
    assert torch.equal(call(train, weight), sk.spike_linear(train, weight))
    moved = weight.to("cpu")
    assert torch.equal(moved.values, weight.values)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (
            sk.QuantizedWeight(torch.zeros(4, 6), torch.ones(4)),
            TypeError,
            "weight: expected int8 values and a float32 scale, got torch.float32 and torch.float32",
        ),
        (
            sk.QuantizedWeight(torch.zeros(4, 6).to(torch.int8), torch.ones(6)),
            ValueError,
            r"weight: expected a scale for each output of torch.int8 \(4, 6\) on cpu, got torch.float32 \(6,\)",
        ),
        (torch.zeros(4, 6).to(torch.int8), TypeError, "bfloat16 tensor or a QuantizedWeight, got torch.int8"),
    ],
)
def test_errors(weight, error, message):
    with pytest.raises(error, match=message):
        sk.spike_linear(random_train(8, 2, 6), weight)
    with pytest.raises(error, match=message):
        sk.spike_linear_signgd(
            random_train(8, 2, 9), torch.zeros(4, 9), None, torch.zeros(8), "relu",
            residual=random_train(8, 2, 6), residual_weight=weight,
        )  # fmt: skip
