"""Products of packed trains where each spike is worth an amplitude of its neuron's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import snn_kernels as sk
from signgd_helpers import assert_instruction_sets_agree
from snn_kernels import _C
from test_spike_gemm import (
    FIELDS,
    GEOMETRIES,
    assert_like_a_float32_product,
    assert_same_neurons,
    random,
    random_train,
)

METHODS = ["dense", "unpack", "auto"]
UNGROUPED = [geometry for geometry in GEOMETRIES if "groups" not in geometry]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("timesteps", [1, 8, 9, 33])
@pytest.mark.parametrize(
    ("batch", "inputs", "outputs"), [((1, 1), 2, 1), ((3, 5), 7, 17), ((2, 2, 3), 64, 33), ((20, 1, 2), 131, 16)]
)
def test_linear(method, timesteps, batch, inputs, outputs, three_threads):
    train, weight, bias = random_train(timesteps, *batch, inputs), random(outputs, inputs), random(outputs, seed=2)
    amplitude = random(*batch[1:], inputs, seed=3)
    wanted = (train.unpack().double() * amplitude.double()) @ weight.double().t() + bias.double()
    for given in (amplitude, amplitude.unsqueeze(0)):
        output = sk.spike_linear(train, weight, bias, amplitude=given, method=method)
        assert_like_a_float32_product(output, wanted, inputs)
    plain = sk.spike_linear(train, weight.bfloat16(), amplitude=amplitude, method=method)
    assert_like_a_float32_product(
        plain, (train.unpack().double() * amplitude.double()) @ weight.bfloat16().double().t(), inputs
    )


@pytest.mark.parametrize("method", METHODS)
def test_samples_beyond_those_that_share_a_pass(method):
    train, weight, amplitude = random_train(17, 91, 3, 30), random(18, 30), random(3, 30)
    wanted = (train.unpack().double() * amplitude.double()) @ weight.double().t()
    assert_like_a_float32_product(sk.spike_linear(train, weight, amplitude=amplitude, method=method), wanted, 30)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", UNGROUPED, ids=str)
def test_convolution(method, geometry, three_threads):
    """Of trains in either memory format."""
    train, weight, bias, amplitude = random_train(9, 4, 6, 9, 7), random(18, 6, 3, 2), random(18), random(6, 9, 7)
    values = (train.unpack().double() * amplitude.double()).flatten(0, 1)
    wanted = F.conv2d(values, weight.double(), bias.double(), **geometry).unflatten(0, (9, 4))
    channels_last = sk.SpikeTrain(
        train.bytes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3), train.timesteps
    )
    for given in (train, channels_last):
        output = sk.spike_conv2d(given, weight, bias, **geometry, amplitude=amplitude, method=method)
        assert_like_a_float32_product(output, wanted, weight[0].numel())
        assert output[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "amplitude", [random(6, 11), random(1, 6, 11), random(6, 1)], ids=lambda a: str(tuple(a.shape))
)
def test_convolution_1d(amplitude):
    train, weight = random_train(9, 4, 6, 11), random(18, 6, 3)
    wanted = F.conv1d((train.unpack().double() * amplitude.double()).flatten(0, 1), weight.double(), padding=1)
    output = sk.spike_conv1d(train, weight, padding=1, amplitude=amplitude)
    assert_like_a_float32_product(output, wanted.unflatten(0, (9, 4)), 18)


@pytest.mark.parametrize("geometry", [{"groups": 2, "padding": 1}, {}])
def test_what_the_dense_method_does_not_know_is_unpacked(geometry):
    """Groups, and samples that differ."""
    train, weight = random_train(33, 2, 4, 6, 5), random(16, 4 // geometry.get("groups", 1), 3, 3)
    amplitude = random(2, 4, 6, 5) if "groups" not in geometry else random(4, 6, 5)
    values = (train.unpack().double() * amplitude.double()).flatten(0, 1)
    wanted = F.conv2d(values, weight.double(), **geometry).unflatten(0, (33, 2))
    output = sk.spike_conv2d(train, weight, **geometry, amplitude=amplitude)
    assert_like_a_float32_product(output, wanted, weight[0].numel())
    with pytest.raises(ValueError, match=r"(method|amplitude): expected"):
        sk.spike_conv2d(train, weight, **geometry, amplitude=amplitude, method="dense")


def test_one_number_a_feature_is_an_amplitude_of_inputs():
    """In whatever shape it comes."""
    train, weight, amplitude = random_train(9, 2, 4, 6, 5), random(16, 4, 3, 3), random(4)
    wanted = sk.spike_conv2d(train, weight, amplitude=amplitude, method="event")
    assert torch.equal(sk.spike_conv2d(train, weight, amplitude=amplitude[:, None, None], method="event"), wanted)


@pytest.mark.parametrize("timesteps", [7, 8, 33])
@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("activation", ["relu", "gelu", ("leaky_relu", random(33).abs())])
def test_fused_linear_is_the_two_apart(timesteps, fields, activation, three_threads):
    train, weight, bias = random_train(timesteps, 6, 17, 50), random(33, 50) / 7, random(33)
    eta, fields, amplitude = sk.schedules.Exponential(0.4, 0.9).table(timesteps), FIELDS[fields], random(17, 50)
    method = "auto" if _C.isa == "portable" else "dense"  # which runs them apart
    current = sk.spike_linear(train, weight, bias, amplitude=amplitude, method=method)
    neuron = {("bias" if name == "x0" else name): value for name, value in fields.items()}
    shortcut = random_train(timesteps, 6, 17, 33, seed=5)
    trains = [{"residual_amplitude": worth} for worth in (random(17, 33, seed=6), random(17, 1), random(33), None)]
    for residual in ({}, {"residual": random(timesteps, 6, 17, 33)}, *({"residual": shortcut, **by} for by in trains)):
        worth = residual.get("residual_amplitude")
        added = residual.get("residual", torch.zeros(()))
        added = shortcut.unpack() * (1.0 if worth is None else worth) if added is shortcut else added
        apart = sk.signgd(current + added, eta, activation, **neuron)
        options = {"amplitude": amplitude, **residual, **fields}
        assert_same_neurons(sk.spike_linear_signgd(train, weight, bias, eta, activation, **options), apart)


def test_residuals_with_amplitudes_of_neurons_behind_other_products():
    """They are unpacked."""
    train, weight, shortcut = random_train(9, 6, 17, 50), random(33, 50) / 7, random_train(9, 6, 17, 33, seed=5)
    eta, worth = sk.schedules.Exponential(0.4, 0.9).table(9), random(17, 33)
    dense = sk.spike_linear_signgd(train, weight, None, eta, "relu", residual=shortcut.unpack() * worth)
    packed = {"residual": shortcut, "residual_amplitude": worth}
    assert_same_neurons(sk.spike_linear_signgd(train, weight, None, eta, "relu", **packed), dense)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_fused_convolution_is_the_two_apart(geometry, three_threads):
    """With and without a residual, which may be a train, and where both ops do run apart."""
    train, weight = random_train(12, 5, 4, 9, 7), random(16, 4 // geometry.get("groups", 1), 3, 2) / 4
    bias, amplitude, eta = random(16), random(4, 9, 7), sk.schedules.Exponential(0.4, 0.9).table(12)
    current = sk.spike_conv2d(train, weight, bias, **geometry, amplitude=amplitude)
    shortcut, worth = random_train(*current.shape, seed=5), random(16, seed=6)
    packed, of_neuron = shortcut.unpack() * worth[:, None, None], random(*current.shape[2:], seed=8)
    neuron = {"offset": random(16, 1, 1), "scale": random(16, *current.shape[3:]).abs() + 0.1}
    apart = sk.signgd(current, eta, "relu", **neuron)
    options = {**geometry, "amplitude": amplitude, **neuron}
    assert_same_neurons(sk.spike_conv2d_signgd(train, weight, bias, eta, "relu", **options), apart)
    apart = sk.signgd(current + packed, eta, "relu", **neuron)
    for residual in ({"residual": packed}, {"residual": shortcut, "residual_amplitude": worth}):
        fused = sk.spike_conv2d_signgd(train, weight, bias, eta, "relu", **options, **residual)
        assert_same_neurons(fused, apart)
    for worth in (of_neuron, random(*current.shape[1:], seed=9)):
        apart = sk.signgd(current + shortcut.unpack() * worth, eta, "relu", **neuron)
        residual = {"residual": shortcut, "residual_amplitude": worth}
        assert_same_neurons(sk.spike_conv2d_signgd(train, weight, bias, eta, "relu", **options, **residual), apart)


@pytest.mark.parametrize("worth", [None, random(21, seed=3), random(1, 21, 8, 6, seed=4), random(5, 21, 8, 6, seed=5)])
@pytest.mark.parametrize("of_neuron", [False, True])
def test_a_projected_residual_is_the_product_of_its_train(of_neuron, worth, three_threads):
    """In the same op where both products are of the same kind, else apart: the same bits."""
    train, shortcut = random_train(12, 5, 4, 9, 7), random_train(12, 5, 21, 8, 6, seed=2)
    weight, projection, eta = random(16, 4, 2, 2), random(16, 21), sk.schedules.Exponential(0.4, 0.9).table(12)
    method = "auto" if worth is not None and worth.ndim > 1 else "dense"
    current = sk.spike_conv2d(shortcut, projection[:, :, None, None], amplitude=worth, method=method)
    options = {"amplitude": random(4, 9, 7) if of_neuron else None, "offset": random(16, 1, 1)}
    residual = {"residual": shortcut, "residual_amplitude": worth, "residual_weight": projection}
    wanted = sk.spike_conv2d_signgd(train, weight, random(16), eta, "relu", **options, residual=current)
    assert_same_neurons(sk.spike_conv2d_signgd(train, weight, random(16), eta, "relu", **options, **residual), wanted)


def test_a_projected_residual_of_tokens(three_threads):
    train, shortcut = random_train(17, 6, 5, 50), random_train(17, 6, 5, 70, seed=2)
    weight, projection, eta = random(33, 50), random(33, 70), sk.schedules.Exponential(0.4, 0.9).table(17)
    worth, options = random(5, 70), {"amplitude": random(5, 50)}
    current = sk.spike_linear(shortcut, projection, amplitude=worth)
    residual = {"residual": shortcut, "residual_amplitude": worth, "residual_weight": projection}
    wanted = sk.spike_linear_signgd(train, weight, None, eta, "gelu", **options, residual=current)
    assert_same_neurons(sk.spike_linear_signgd(train, weight, None, eta, "gelu", **options, **residual), wanted)


@pytest.mark.skipif(_C.isa == "portable", reason="PyTorch's product is the faster one")
def test_auto_takes_the_tables_and_the_fused_ops_run_in_one(monkeypatch):
    def apart(*_):
        raise AssertionError("unpacked, or run apart")

    for module in (
        "fused._apart",
        "linear_reference",
        "convolution_reference",
        "write_currents",
        "convolution_cpu",
        "linear_cpu",
    ):
        monkeypatch.setattr(f"snn_kernels.ops.spike_gemm.{module}", apart)
    train, image, eta = random_train(8, 2, 3, 6), random_train(8, 2, 6, 4, 4), sk.schedules.Exponential().table(8)
    linear, kernel = {"amplitude": random(3, 6)}, {"amplitude": random(6, 4, 4)}
    sk.spike_linear_signgd(train, random(16, 6), None, eta, "relu", **linear)
    call = (image, random(16, 6, 3, 3), None, eta, "relu")
    sk.spike_conv2d_signgd(*call, **kernel)
    shortcut, projection = random_train(8, 2, 3, 2, 2), {"residual_weight": random(16, 3)}
    sk.spike_conv2d_signgd(*call, **kernel, **projection, residual=shortcut, residual_amplitude=random(3, 2, 2))
    sk.spike_conv2d_signgd(*call, **projection, residual=shortcut)
    call, tokens = (train, random(16, 6), None, eta, "relu"), random_train(8, 2, 3, 3)
    sk.spike_linear_signgd(*call, **linear, **projection, residual=tokens, residual_amplitude=random(3, 3))
    sk.spike_linear_signgd(*call, **projection, residual=tokens)
    monkeypatch.undo()
    for module in ("linear_reference", "convolution_reference"):
        monkeypatch.setattr(f"snn_kernels.ops.spike_gemm.{module}", apart)
    sk.spike_linear(train, random(16, 6), **linear)
    sk.spike_conv2d(image, random(16, 6, 3, 3), **kernel)
    for few in (random(15, 6), random(16, 6)):
        with pytest.raises(AssertionError, match="unpacked"):
            sk.spike_linear(random_train(8, 2 if len(few) == 15 else 1, 3, 6), few, **linear)


def products() -> list[torch.Tensor]:
    """Currents; small sizes that leave remainders everywhere."""
    train, weight, of_tokens = random_train(21, 5, 7, 83), random(45, 83), random(7, 83)
    parts = [sk.spike_linear(train, weight, random(45), amplitude=of_tokens, method="dense")]
    # The second has more inputs and outputs than AMX's tiles take at once.
    for image, kernel in (
        (random_train(9, 4, 7, 11, 9), random(18, 7, 3, 3)),
        (random_train(9, 1, 70, 5, 6), random(70, 70, 3, 3)),
    ):
        options = {"padding": 1, "amplitude": random(*image.shape[1:]), "method": "dense"}
        parts += [sk.spike_conv2d(image, kernel, stride=stride, **options) for stride in (1, 2)]
    return parts


def test_instruction_sets_agree():
    assert_instruction_sets_agree(products)


def test_ops_satisfy_torch():
    train, image, ops = random_train(9, 5, 4, 12), random_train(9, 4, 3, 5, 5), torch.ops.snn_kernels
    zero, one, eta = torch.zeros(()), torch.ones(()), sk.schedules.Exponential().table(9)
    neuron = (*(None,) * 4, eta, one, zero, one, [], zero, "relu", "cpu")
    for amplitude in (random(1, 4, 12), random(5, 4, 12)):
        product = (train.bytes, 9, random(20, 12), None, random(20), amplitude)
        torch.library.opcheck(ops.spike_linear.default, (*product, "auto", "cpu"))
        torch.library.opcheck(ops.spike_linear_signgd.default, (*product, *neuron))
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    for amplitude in (random(1, 3, 5, 5), random(4, 3, 5, 5)):
        product = (image.bytes, 9, random(16, 3, 3, 3), None, None, amplitude)
        torch.library.opcheck(ops.spike_conv2d.default, (*product, *geometry, "auto", "cpu"))
        torch.library.opcheck(ops.spike_conv2d_signgd.default, (*product, *neuron[:4], *geometry, *neuron[4:]))


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_numbers_that_are_not_finite_reach_what_they_deliver_alone(number):
    """A weight its output, an amplitude the row that sees it, as NaN: there is no fixed-point number for them."""
    train, wanted = random_train(40, 1, 2, 6), torch.zeros(40, 1, 2, 16, dtype=torch.bool)
    weight, amplitude = random(16, 6), random(2, 6, seed=2)
    weight[5, 2], wanted[..., 5] = number, True
    assert torch.equal(sk.spike_linear(train, weight, amplitude=amplitude, method="dense").isnan(), wanted)
    amplitude[1, 3], wanted[:, :, 1] = number, True
    assert torch.equal(sk.spike_linear(train, weight, amplitude=amplitude, method="dense").isnan(), wanted)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-15, 1e15, 1e30])
def test_currents_of_any_size(size):
    """With amplitudes a thousand times apart from row to row, and from input to input in a row. A unit is at most
    2^-30, and a thousandth more, of the product of the lengths of weights and amplitudes, or 2^-126; each input has an
    error of at most half of it. The sum and each product are rounded to 24 bits too, or to a denormal number."""
    train, weight = random_train(40, 3, 4, 70), random(18, 70) * size
    amplitude = random(4, 70).abs() * torch.tensor([[1e-3], [1.0], [1e3], [0.0]])
    amplitude[1, ::7] *= 1e3
    wanted = (train.unpack().double() * amplitude.double()) @ weight.double().t()
    weight, amplitude = weight.double(), amplitude.double()
    lengths = amplitude.norm(dim=1)[:, None] * weight.norm(dim=1)  # [rows, outputs]
    unit = (1.01 * 2**-30 * lengths).clamp(min=2**-126)
    bound = 70 / 2 * unit + 2**-23 * (amplitude @ weight.abs().t()) + 71 * 2**-149
    output = sk.spike_linear(train, weight.float(), amplitude=amplitude.float(), method="dense")
    assert ((output.double() - wanted).abs() <= bound).all()


def test_no_sum_overflows():
    """All inputs fire, with weights and amplitudes that make the bound on their sums tight, of either sign."""
    for inputs in (1, 3, 64, 700):
        for weight in (torch.ones(17, inputs), -torch.ones(17, inputs), torch.full((17, inputs), 1 - 2**-24)):
            train = sk.pack(torch.ones(16, 2, 1, inputs))
            output = sk.spike_linear(train, weight, amplitude=torch.full((1, inputs), 0.7), method="dense")
            wanted = weight[0, 0].double() * torch.tensor(0.7) * inputs
            torch.testing.assert_close(output.double(), wanted.expand(output.shape), rtol=3e-7, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "event"}, "method: expected auto, unpack or, on the cpu backend and without groups, dense with"),
        ({"method": "dense", "backend": "reference"}, "method: expected auto, unpack or, on the cpu backend"),
        ({"method": "dense", "amplitude": random(2, 3, 6)}, "amplitude: expected size 1 in dimension 0 for the method"),
        ({"amplitude": random(4, 6)}, r"amplitude: expected a shape that broadcasts to \(2, 3, 6\)"),
    ],
)
def test_errors(options, message):
    options = {"amplitude": random(3, 6), **options}
    with pytest.raises(ValueError, match=message):
        sk.spike_linear(random_train(8, 2, 3, 6), torch.zeros(4, 6), **options)
