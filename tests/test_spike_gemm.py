"""Products of packed trains: every method against float64, and the fused ops against the two apart."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import snn_kernels as sk
from signgd_helpers import assert_instruction_sets_agree
from snn_kernels import _C

METHODS = ["dense", "event", "unpack", "auto"]


def random_train(*shape: int, density: float = 0.47, seed: int = 0) -> sk.SpikeTrain:
    return sk.pack(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density)


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_like_a_float32_product(output: torch.Tensor, wanted: torch.Tensor, summands: int) -> None:
    """Each addition rounds once: the error grows at most linearly in the summands, typically with their root. The
    spread of random weights makes ``sqrt(summands)`` the size of a typical sum, so this is about 2 ulp a root."""
    assert output.dtype == torch.float32
    assert output.shape == wanted.shape
    bound = 4 * torch.finfo(torch.float32).eps * max(summands, 1) ** 0.5 * max(summands, 1) ** 0.5
    assert (output.double() - wanted).abs().max().item() <= bound if wanted.numel() else True


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("timesteps", [1, 7, 8, 9, 33])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1, 1), (5, 7, 3), (3, 63, 17), (17, 500, 33), (33, 16, 70)]
)
def test_linear(method, timesteps, rows, inputs, outputs):
    train, weight, bias = random_train(timesteps, rows, inputs), random(outputs, inputs), random(outputs, seed=2)
    amplitude = random(inputs, seed=3).abs()
    wanted = (train.unpack().double() * amplitude.double()) @ weight.double().t() + bias.double()
    output = sk.spike_linear(train, weight, bias, amplitude=amplitude, method=method)
    assert_like_a_float32_product(output, wanted, inputs)
    plain = sk.spike_linear(train, weight, method=method)
    assert_like_a_float32_product(plain, train.unpack().double() @ weight.double().t(), inputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1,), (37,), (3, 21), (2, 1)])
def test_linear_with_an_amplitude_for_each_row(method, shape):
    """Zeros and numbers of either sign among them; also one that broadcasts along the first dimension of the batch."""
    train, weight, bias = random_train(9, *shape, 50), random(70, 50), random(70, seed=2)
    of_row = random(*shape, 1, seed=3)
    of_row[0] = 0.0
    for amplitude in (of_row, of_row[:1]) if len(shape) > 1 else (of_row,):
        wanted = (train.unpack().double() * amplitude.double()) @ weight.double().t() + bias.double()
        output = sk.spike_linear(train, weight, bias, amplitude=amplitude, method=method)
        assert_like_a_float32_product(output, wanted, 50)
    if method in ("dense", "event"):
        ones = torch.ones(*shape, 1)
        plain = sk.spike_linear(train, weight, bias, method=method)
        assert torch.equal(sk.spike_linear(train, weight, bias, amplitude=ones, method=method), plain)
        assert torch.equal(
            sk.spike_linear(train, weight, bias, amplitude=of_row, method="dense"),
            sk.spike_linear(train, weight, bias, amplitude=of_row, method="event"),
        )


@pytest.mark.parametrize("method", METHODS)
def test_linear_reads_views_in_place(method):
    """Rows and inputs may lie anywhere: permuted, sliced, with several batch dimensions."""
    weight = random(19, 12)
    train = random_train(10, 12, 4, 5).permute(1, 2, 0)
    assert_like_a_float32_product(
        sk.spike_linear(train, weight, method=method), train.unpack().double() @ weight.double().t(), 12
    )
    part = random_train(10, 6, 30)[:, 3:27:2]
    assert_like_a_float32_product(
        sk.spike_linear(part, weight, method=method), part.unpack().double() @ weight.double().t(), 12
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_linear_of_nothing(method, shape):
    rows, inputs = shape
    bias = random(3)
    output = sk.spike_linear(random_train(9, rows, inputs), random(3, inputs), bias, method=method)
    torch.testing.assert_close(output, bias.expand(9, rows, 3))


GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": (2, 0), "dilation": 2},
    {"stride": (1, 3), "padding": (0, 1), "dilation": (2, 1)},
    {"groups": 2, "padding": 1},
    {"groups": 4},
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution(method, geometry):
    train = random_train(9, 3, 4, 9, 7)
    weight, bias, amplitude = random(8, 4 // geometry.get("groups", 1), 3, 2), random(8), random(4).abs()
    values = (train.unpack().double() * amplitude.double().reshape(-1, 1, 1)).flatten(0, 1)
    wanted = F.conv2d(values, weight.double(), bias.double(), **geometry).unflatten(0, (9, 3))
    output = sk.spike_conv2d(train, weight, bias, **geometry, amplitude=amplitude, method=method)
    assert_like_a_float32_product(output, wanted, weight[0].numel())
    channels_last = sk.pack(train.unpack().permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3))
    assert channels_last.bytes.stride(2) == 1
    again = sk.spike_conv2d(channels_last, weight, bias, **geometry, amplitude=amplitude, method=method)
    torch.testing.assert_close(again, output)


def test_the_reference_does_not_round_weights(monkeypatch):
    """To TF32, as cuDNN does by PyTorch's default, which is left as it was."""
    precisions, convolution = [], F.conv2d

    def recorded(*arguments):
        precisions.append(torch.backends.cudnn.conv.fp32_precision)
        return convolution(*arguments)

    monkeypatch.setattr(F, "conv2d", recorded)
    before = torch.backends.cudnn.conv.fp32_precision
    sk.spike_conv2d(random_train(9, 2, 3, 4, 4), random(5, 3, 3, 3), backend="reference")
    assert precisions == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == before


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("density", [0.02, 0.5])
@pytest.mark.parametrize("outputs", [12, 20, 36, 68])
def test_windows_that_share_their_spikes(geometry, density, outputs, three_threads):
    """Events are collected once for the many rows that see them: several blocks of rows, images in one block."""
    groups = geometry.get("groups", 1)
    train, weight = random_train(11, 5, 20, 9, 8, density=density), random(outputs, 20 // groups, 3, 2)
    dense, event = (sk.spike_conv2d(train, weight, **geometry, method=method) for method in ("dense", "event"))
    assert torch.equal(event, dense)


@pytest.mark.parametrize("size", [(7, 6), (15, 12)])  # planes are put into tiles together, or one after the other
@pytest.mark.parametrize("channels", [3, 70])
def test_depthwise_convolution(size, channels, three_threads):
    train, weight, bias = random_train(19, 3, channels, *size), random(channels, 1, 5, 3), random(channels)
    geometry = {"padding": (2, 0), "groups": channels}
    values = train.unpack().double().flatten(0, 1)
    for amplitude in (None, random(channels, seed=3)):
        scaled = weight.double() * (1 if amplitude is None else amplitude.double().reshape(-1, 1, 1, 1))
        wanted = F.conv2d(values, scaled, bias.double(), **geometry).unflatten(0, (19, 3))
        dense, event = (
            sk.spike_conv2d(train, weight, bias, **geometry, amplitude=amplitude, method=method)
            for method in ("dense", "event")
        )
        assert_like_a_float32_product(dense, wanted, 15)
        assert torch.equal(event, dense)


def test_a_convolution_of_no_channels():
    train, weight, bias = random_train(9, 3, 0, 9, 7), random(8, 0, 3, 2), random(8)
    for method in ("dense", "event"):  # PyTorch's own convolution drops the outputs
        output = sk.spike_conv2d(train, weight, bias, method=method)
        assert torch.equal(output, bias.reshape(-1, 1, 1).expand(9, 3, 8, 7, 6))


@pytest.mark.parametrize("method", METHODS)
def test_convolution_1d(method):
    train, weight, bias = random_train(9, 3, 4, 11), random(6, 2, 3), random(6)
    wanted = F.conv1d(train.unpack().double().flatten(0, 1), weight.double(), bias.double(), 2, 1, 1, 2)
    output = sk.spike_conv1d(train, weight, bias, 2, 1, 1, 2, method=method)
    assert_like_a_float32_product(output.flatten(0, 1), wanted, 6)
    module = torch.nn.Conv1d(4, 6, 3, 2, 1, groups=2)  # whose attributes are tuples
    geometry = module.stride, module.padding, module.dilation, module.groups
    assert torch.equal(sk.spike_conv1d(train, weight, bias, *geometry, method=method), output)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_used_exactly(dtype):
    train, weight = random_train(8, 4, 40), random(24, 40).to(dtype)
    wanted = train.unpack().double() @ weight.double().t()
    assert_like_a_float32_product(sk.spike_linear(train, weight, method="dense"), wanted, 40)


def test_methods_add_the_same_numbers_every_time(three_threads):
    train, weight = random_train(32, 70, 300), random(90, 300)
    for method in METHODS:
        first = sk.spike_linear(train, weight, method=method)
        assert all(torch.equal(first, sk.spike_linear(train, weight, method=method)) for _ in range(3))
        if method in ("dense", "event"):
            torch.set_num_threads(1)
            alone = sk.spike_linear(train, weight, method=method)
            torch.set_num_threads(3)
            assert torch.equal(first, alone)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="there is no list of threads to look at")
@pytest.mark.parametrize("method", METHODS)
def test_calls_keep_their_threads(method, three_threads):
    """A parallel region inside another would make new ones every time, which takes as long as the product."""
    train, weight = random_train(32, 70, 300), random(90, 300)
    sk.spike_linear(train, weight, method=method)
    before = set(os.listdir("/proc/self/task"))
    for _ in range(3):
        sk.spike_linear(train, weight, method=method)
        assert set(os.listdir("/proc/self/task")) == before


@pytest.mark.parametrize("inputs", [1, 19, 20, 21, 500, 3000])
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 1e30])
def test_the_sum_is_exact_but_for_two_roundings(inputs, size):
    """Of the weights to fixed point, at most half a unit each, and of the sum to float32."""
    train, amplitude = random_train(9, 40, inputs), random(inputs, seed=3).abs()
    weight = random(21, inputs) * 10 ** random(21, inputs, seed=5) * size
    product = (weight * amplitude).double()
    room = 2.0**31 - 1 - inputs
    unit = 2 / room * torch.maximum(product.clamp(min=0).sum(1), -product.clamp(max=0).sum(1))
    wanted = train.unpack().double() @ product.t()
    output = sk.spike_linear(train, weight, amplitude=amplitude, method="dense")
    smallest = 2.0**-149  # of a float32, where the currents themselves are subnormal
    bound = unit.clamp(min=2.0**-126) * inputs / 2 + wanted.abs() * 2.0**-24 + smallest
    assert ((output.double() - wanted).abs() <= bound).all()
    assert torch.equal(output, sk.spike_linear(train, weight, amplitude=amplitude, method="event"))


def test_weights_that_are_not_finite_reach_their_output_alone():
    train, weight = random_train(9, 20, 30), random(20, 30)
    weight[3, 4], weight[7, 0] = float("inf"), float("nan")
    for method in ("dense", "event"):
        output = sk.spike_linear(train, weight, method=method)
        assert output[..., [3, 7]].isnan().all()
        assert output.isfinite().sum() == 9 * 20 * 18


def products() -> list[torch.Tensor]:
    """Currents and fused trains; small sizes that leave remainders everywhere."""
    train, weight, bias = random_train(21, 37, 83), random(45, 83), random(45)
    image, kernel = random_train(9, 3, 7, 11, 9), random(18, 7, 3, 3)
    many, long = random_train(9, 20, 1500), random(70, 1500)
    eta, shortcut = sk.schedules.Exponential(0.4, 0.9).table(21), random_train(21, 37, 45, seed=3)
    parts = [sk.spike_linear(train, weight, bias, method=method) for method in ("dense", "event")]
    parts += [sk.spike_linear(many, long, method=method) for method in ("dense", "event")]
    parts += [sk.spike_conv2d(image, kernel, stride=s, padding=1, method=m) for s, m in ((1, "dense"), (2, "event"))]
    residuals = [{}, {"residual": shortcut, "residual_amplitude": random(45, seed=4)}, {"amplitude": random(37, 1)}]
    parts += [sk.spike_linear(train, weight, bias, amplitude=random(37, 1), method=m) for m in ("dense", "event")]
    parts += [sk.spike_linear_signgd(train, weight, bias, eta, "relu", **residual)[0].bytes for residual in residuals]
    eighths, few = sk.quantize_weight(long), sk.quantize_weight(kernel)
    parts += [sk.spike_linear(many, eighths, method=method) for method in ("dense", "event")]
    parts += [sk.spike_conv2d(image, few, padding=1, method=method) for method in ("dense", "event")]
    return parts


def test_instruction_sets_agree():
    assert_instruction_sets_agree(products)


@pytest.mark.parametrize("inputs", [63, 64, 65, 127, 640, 641, 1921])
@pytest.mark.parametrize("outputs", [15, 16, 17, 65])
def test_methods_agree_in_every_bit(inputs, outputs):
    """Sums are exact. Among the weights one as large as the others together, and sums as large as they can be."""
    weight, bias, amplitude = random(outputs, inputs), random(outputs), random(inputs, seed=2).abs()
    weight[3, 5] = weight[3].abs().sum()
    weight[4, 6] = -weight[4].abs().sum()
    weight[5], weight[6] = weight[5].abs(), -weight[6].abs()
    weight[7] *= 1e-30
    train = random_train(9, 35, inputs, density=0.3)
    train.bytes[:, 2] = 255
    train.bytes[1] &= 1
    dense, event = (
        sk.spike_linear(train, weight, bias, amplitude=amplitude, method=method) for method in ("dense", "event")
    )
    assert torch.equal(dense, event)
    wanted = (train.unpack().double() * amplitude) @ weight.double().t() + bias
    of_output = (weight.double() * amplitude).abs().sum(1) + bias.abs()
    assert ((dense - wanted).abs() <= 2e-7 * of_output).all()


@pytest.mark.parametrize("method", ["dense", "event"])
@pytest.mark.parametrize("outputs", [64, 72, 100])
def test_large_currents_are_those_of_their_parts(method, outputs, three_threads):
    """They are written past the caches, where lines and vectors fit."""
    rows = 25 * 2**20 // (4 * 16 * outputs)
    train, weight, bias = random_train(16, rows, 40), random(outputs, 40), random(outputs)
    whole = sk.spike_linear(train, weight, bias, method=method)
    assert whole.nbytes > 24 * 2**20
    for start in range(0, rows, rows // 3):
        part = slice(start, start + rows // 3)
        assert torch.equal(whole[:, part], sk.spike_linear(train[part], weight, bias, method=method))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((32, 32), {"method": "dense"}),
        ((32, 32), {"method": "event"}),
        ((27, 31), {"method": "dense"}),
        ((27, 31), {"method": "event"}),
        ((32, 32), {"method": "dense", "groups": 20}),
        ((8, 8), {"method": "dense", "groups": 20}),
        ((16, 15), {"method": "dense", "amplitude": random(20, 16, 15, seed=4).abs()}),
    ],
)
@pytest.mark.parametrize("outputs", [20, 80])
def test_large_images_of_currents_are_those_of_their_parts(size, options, outputs, three_threads):
    count = 25 * 2**20 // (4 * 16 * outputs * size[0] * size[1]) + 1
    third = -(-count // 3)
    train, weight = random_train(16, count, 20, *size), random(outputs, 20 // options.get("groups", 1), 3, 3)
    whole = sk.spike_conv2d(train, weight, padding=1, **options)
    assert whole.nbytes > 24 * 2**20
    for start in range(0, count, third):
        part = sk.spike_conv2d(train[start : start + third], weight, padding=1, **options)
        assert torch.equal(whole[:, start : start + third], part)


def test_auto_takes_events_for_sparse_trains():
    from snn_kernels.ops.spike_gemm.cpu import resolve_method

    sparse, dense = (random_train(16, 8, 64, density=density) for density in (0.02, 0.5))
    packed = "unpack" if _C.isa == "portable" else "dense"
    wide, narrow, windows = torch.empty(128, 64), torch.empty(127, 64), torch.empty(48, 64, 3, 3)
    assert resolve_method("auto", sparse.bytes, 16, 8, wide) == "event"
    assert resolve_method("auto", dense.bytes, 16, 8, wide) == packed
    assert resolve_method("auto", sparse.bytes, 16, 8, narrow) == packed  # too few outputs for what collecting costs
    assert resolve_method("auto", sparse.bytes, 16, 8, windows) == "event"  # which share it
    assert resolve_method("auto", sparse.bytes, 16, 8, windows, 2) == packed
    assert resolve_method("auto", sparse.bytes, 16, 7, wide) == "unpack"
    eighths = torch.zeros(128, 64, dtype=torch.int8)  # which tiles of bytes multiply fastest
    more = random_train(16, 8, 64, density=0.035)
    assert resolve_method("auto", more.bytes, 16, 8, eighths) == ("dense" if _C.isa == "amx" else "event")
    assert resolve_method("auto", more.bytes, 16, 8, wide) == "event"
    assert resolve_method("dense", sparse.bytes, 16, 8, wide) == "dense"


def test_count():
    assert _C.count_cpu(0, 0) == 0
    train = random_train(21, 5, 77)
    assert _C.count_cpu(train.bytes.data_ptr(), train.bytes.numel()) == train.count().item()


FIELDS = {
    "numbers": {"offset": 0.7, "x0": 0.1, "scale": 0.5, "v0": 0.2},
    "per feature": {"offset": random(33), "x0": random(33, seed=4), "scale": random(33).abs() + 0.1, "v0": random(33)},
    "per neuron": {
        "offset": random(17, 33), "x0": random(17, 33), "scale": random(17, 33).abs() + 0.1, "v0": random(17, 33)
    },
}  # fmt: skip


def assert_same_neurons(found: tuple, wanted: tuple) -> None:
    assert torch.equal(found[0].bytes, wanted[0].bytes)
    assert torch.equal(found[1].x, wanted[1].x)
    assert torch.equal(found[1].v, wanted[1].v)


@pytest.mark.parametrize("timesteps", [1, 7, 8, 9, 33])
@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("activation", ["relu", "gelu", ("leaky_relu", random(33).abs())])
def test_fused_linear_is_the_two_apart(timesteps, fields, activation, three_threads):
    train, weight, bias = random_train(timesteps, 17, 50), random(33, 50) / 7, random(33)
    eta, fields = sk.schedules.Exponential(0.4, 0.9).table(timesteps), FIELDS[fields]
    neuron = {("bias" if name == "x0" else name): value for name, value in fields.items()}
    for amplitude in (0.5, random(17, 1, seed=8)):
        current = sk.spike_linear(train, weight, bias, amplitude=amplitude, method="dense")
        apart = sk.signgd(current, eta, activation, **neuron)
        fused = sk.spike_linear_signgd(train, weight, bias, eta, activation, amplitude=amplitude, **fields)
        assert_same_neurons(fused, apart)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_fused_convolution_is_the_two_apart(geometry, three_threads):
    train, weight, bias = random_train(12, 3, 4, 9, 7), random(8, 4 // geometry.get("groups", 1), 3, 2) / 4, random(8)
    eta, offset = sk.schedules.Exponential(0.4, 0.9).table(12), random(8, 1, 1)
    method = "auto" if "groups" in geometry else "dense"  # groups do run apart
    current = sk.spike_conv2d(train, weight, bias, **geometry, method=method)
    apart = sk.signgd(current, eta, "relu", offset=offset)
    fused = sk.spike_conv2d_signgd(train, weight, bias, eta, "relu", **geometry, offset=offset)
    assert_same_neurons(fused, apart)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("timesteps", [7, 9])
def test_fused_residual_is_added_to_the_currents(timesteps, backend):
    eta = sk.schedules.Exponential(0.4, 0.9).table(timesteps)
    train, weight, bias = random_train(timesteps, 3, 17, 50), random(33, 50) / 7, random(33)
    shortcut = random(timesteps, 3, 33, 17, seed=5).transpose(2, 3)
    spikes, _ = sk.signgd(
        sk.spike_linear(train, weight, bias, method="dense", backend=backend) + shortcut, eta, "relu", backend=backend
    )
    fused, _ = sk.spike_linear_signgd(train, weight, bias, eta, "relu", residual=shortcut, backend=backend)
    assert torch.equal(fused.bytes, spikes.bytes)

    image = random_train(timesteps, 3, 4, 9, 7)
    for geometry in GEOMETRIES:
        kernel = random(8, 4 // geometry.get("groups", 1), 3, 2) / 4
        current = sk.spike_conv2d(image, kernel, **geometry, method="dense", backend=backend)
        dense = random(*current.shape, seed=6)
        columns_slowest = dense.transpose(1, -1).contiguous().transpose(1, -1)
        for shortcut in (dense, dense[:, :, :1].expand_as(current), columns_slowest):
            spikes, _ = sk.signgd(current + shortcut, eta, "relu", backend=backend)
            fused, _ = sk.spike_conv2d_signgd(
                image, kernel, None, eta, "relu", **geometry, residual=shortcut, backend=backend
            )
            assert torch.equal(fused.bytes, spikes.bytes)


AMPLITUDES = [None, 0.3, random(33, seed=7)]
LAYOUTS = {
    "rows slowest": lambda train: train,
    "features slowest": lambda train: sk.SpikeTrain(train.bytes.transpose(1, -1).contiguous().transpose(1, -1), 0),
    "a part": lambda train: sk.SpikeTrain(train.bytes.repeat_interleave(2, -1)[..., ::2], 0),
}


def laid_out(train: sk.SpikeTrain, layout: str) -> sk.SpikeTrain:
    return sk.SpikeTrain(LAYOUTS[layout](train).bytes, train.timesteps)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("timesteps", [0, 1, 7, 8, 9, 33])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_residual_is_the_dense_one(timesteps, layout, backend):
    train, weight, bias = random_train(timesteps, 3, 19, 50), random(33, 50) / 7, random(33)
    shortcut = random_train(timesteps, 3, 19, 33, seed=5)
    arguments = (train, weight, bias, sk.schedules.Exponential(0.4, 0.9).table(timesteps), "relu")
    for amplitude in AMPLITUDES:
        dense = shortcut.unpack() * (1.0 if amplitude is None else amplitude)
        packed = {"residual": laid_out(shortcut, layout), "residual_amplitude": amplitude}
        wanted = sk.spike_linear_signgd(*arguments, residual=dense, backend=backend)
        assert_same_neurons(sk.spike_linear_signgd(*arguments, **packed, backend=backend), wanted)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_residual_of_a_convolution_is_the_dense_one(geometry, layout, backend):
    image, kernel = random_train(12, 3, 4, 9, 7), random(8, 4 // geometry.get("groups", 1), 3, 2) / 4
    arguments = (image, kernel, None, sk.schedules.Exponential(0.4, 0.9).table(12), "relu")
    shape = sk.spike_conv2d(image, kernel, **geometry).shape
    shortcut, amplitude = random_train(*shape, seed=6), random(8, seed=7)
    wanted = sk.spike_conv2d_signgd(
        *arguments, **geometry, residual=shortcut.unpack() * amplitude.reshape(-1, 1, 1), backend=backend
    )
    packed = {"residual": laid_out(shortcut, layout), "residual_amplitude": amplitude}
    assert_same_neurons(sk.spike_conv2d_signgd(*arguments, **geometry, **packed, backend=backend), wanted)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("timesteps", [0, 7, 9, 33])
def test_a_projected_residual_is_the_product_of_its_train(timesteps, backend, three_threads):
    train, weight, bias = random_train(timesteps, 3, 19, 50), random(33, 50) / 7, random(33)
    shortcut, projection = random_train(timesteps, 3, 19, 21, seed=5), random(33, 21)
    arguments = (train, weight, bias, sk.schedules.Exponential(0.4, 0.9).table(timesteps), "relu")
    for amplitude in (None, 0.3, random(21, seed=3)):
        method = "dense" if backend == "cpu" else "auto"
        current = sk.spike_linear(shortcut, projection, amplitude=amplitude, method=method, backend=backend)
        wanted = sk.spike_linear_signgd(*arguments, residual=current, backend=backend)
        residual = {"residual": shortcut, "residual_amplitude": amplitude, "residual_weight": projection}
        assert_same_neurons(sk.spike_linear_signgd(*arguments, **residual, backend=backend), wanted)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_projected_residual_of_a_convolution_is_the_product_of_its_train(geometry, layout, backend):
    image, kernel = random_train(12, 3, 4, 9, 7), random(8, 4 // geometry.get("groups", 1), 3, 2) / 4
    arguments = (image, kernel, random(8), sk.schedules.Exponential(0.4, 0.9).table(12), "relu")
    batch, _, *size = sk.spike_conv2d(image, kernel, **geometry).shape[1:]
    shortcut, projection = laid_out(random_train(12, batch, 5, *size, seed=6), layout), random(8, 5)
    method = "dense" if backend == "cpu" else "auto"
    current = sk.spike_conv2d(shortcut, projection[:, :, None, None], method=method, backend=backend)
    wanted = sk.spike_conv2d_signgd(*arguments, **geometry, residual=current, backend=backend)
    residual = {"residual": shortcut, "residual_weight": projection}
    assert_same_neurons(sk.spike_conv2d_signgd(*arguments, **geometry, **residual, backend=backend), wanted)


def assert_fused(monkeypatch, backend: str, residuals: bool) -> None:
    """No currents are made between a product and its neurons."""
    monkeypatch.delattr("snn_kernels.ops.spike_gemm.fused._apart", raising=False)
    eta = sk.schedules.Exponential(0.4, 0.9).table(9)
    for op, train, weight, out in (
        (sk.spike_linear_signgd, random_train(9, 3, 20), random(12, 20), (3, 12)),
        (sk.spike_conv2d_signgd, random_train(9, 2, 4, 5, 6), random(12, 4, 2, 2), (2, 12, 4, 5)),
    ):
        shortcut = random_train(9, *out)
        for residual in (None, *((shortcut, shortcut.unpack()) if residuals else ())):
            assert op(train, weight, None, eta, "relu", residual=residual, backend=backend)[0].shape == out


def test_nothing_runs_apart(monkeypatch):
    assert_fused(monkeypatch, "cpu", residuals=True)
    with pytest.raises(NameError, match="_apart"):
        assert_fused(monkeypatch, "reference", residuals=True)


def test_fused_state_is_passed_on():
    train, weight = random_train(24, 17, 50), random(33, 50) / 7
    eta = sk.schedules.Exponential(0.4, 0.9).table(24)
    whole, whole_state = sk.spike_linear_signgd(train, weight, None, eta, "relu")
    state, parts = None, []
    for start in (0, 8, 16):
        part = sk.SpikeTrain(train.bytes[start // 8 : start // 8 + 1], 8)
        spikes, state = sk.spike_linear_signgd(part, weight, None, eta[start : start + 8], "relu", state=state)
        parts.append(spikes.bytes)
    assert torch.equal(torch.cat(parts), whole.bytes)
    assert torch.equal(state.v, whole_state.v)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ((1, 2), TypeError, "state: expected a NeuronState, got tuple"),
        (sk.NeuronState(torch.zeros(4), torch.zeros(4), (torch.zeros(4),)), ValueError, "state: expected one of a"),
        (sk.NeuronState(None, torch.zeros(4)), TypeError, "state.x: expected a number or a tensor, got NoneType"),
    ],
)
def test_fused_states_are_checked(state, error, message):
    with pytest.raises(error, match=message):
        sk.spike_linear_signgd(random_train(8, 2, 6), torch.zeros(4, 6), None, torch.zeros(8), "relu", state=state)
    with pytest.raises(error, match=message):
        sk.spike_conv2d_signgd(
            random_train(8, 2, 3, 4, 4), torch.zeros(4, 3, 1, 1), None, torch.zeros(8), "relu", state=state
        )


def test_fused_against_the_reference(three_threads):
    """Another order of addition moves a current by ulps: a spike may differ only where the reference's own estimate and
    target are that close. Here the reference recomputes both along the fused op's own spikes."""
    train, weight = random_train(16, 9, 40), random(21, 40) / 6
    eta = sk.schedules.Exponential(0.4, 0.9).table(16)
    fused, _ = sk.spike_linear_signgd(train, weight, None, eta, "relu", backend="cpu")
    current = sk.spike_linear(train, weight, backend="reference").double()
    x, v = torch.zeros(9, 21, dtype=torch.float64), torch.zeros(9, 21, dtype=torch.float64)
    for t, spike in enumerate(fused.unpack(torch.float64)):
        x = x - eta[t].double() * (2 * current[t] - 1)
        gap = v - x.relu()
        crossed = (gap >= 0) != (spike == 1)
        # 40 summands of size 1/6 and 16 steps: an ulp of the sums each, summed with the step sizes.
        assert gap[crossed].abs().max().item() < 1e-5 if crossed.any() else True
        v = v - eta[t].double() * (2 * spike - 1)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_carries_a_gradient(method):
    """Whatever the method: PyTorch's own product would."""
    train, weight, eta = random_train(9, 10, 12), random(20, 12).requires_grad_(), torch.ones(9)
    image, kernel = random_train(9, 10, 3, 5, 5), random(8, 3, 3, 3).requires_grad_()
    amplitude = random(12).requires_grad_()
    assert not sk.spike_linear(train, weight, weight[:, 0], amplitude=amplitude, method=method).requires_grad
    assert not sk.spike_conv2d(image, kernel, method=method).requires_grad
    for state in (
        sk.spike_linear_signgd(train, weight, None, eta, "relu")[1],
        sk.spike_conv2d_signgd(image, kernel, None, eta, "relu")[1],
    ):
        assert not state.x.requires_grad
        assert not state.v.requires_grad


def test_ops_satisfy_torch():
    train, weight, bias = random_train(9, 5, 12), random(20, 12), random(20)
    zero, one, eta = torch.zeros(()), torch.ones(()), sk.schedules.Exponential().table(9)
    ops, residual = torch.ops.snn_kernels, random_train(9, 5, 20)
    torch.library.opcheck(ops.spike_linear.default, (train.bytes, 9, weight, None, bias, None, "dense", "cpu"))
    neuron = (eta, one, zero, one, [], zero, "relu", "cpu")
    of_row = torch.ones(1, 1).expand(5, 1)
    torch.library.opcheck(ops.spike_linear.default, (train.bytes, 9, weight, None, bias, of_row, "dense", "cpu"))
    torch.library.opcheck(
        ops.spike_linear_signgd.default, (train.bytes, 9, weight, None, bias, of_row, None, None, None, None, *neuron)
    )
    projected = (random_train(9, 5, 7).bytes, random(7), random(20, 7), None)
    for added in ((None,) * 4, (residual.unpack(), *(None,) * 3), (residual.bytes, random(20), None, None), projected):
        torch.library.opcheck(
            ops.spike_linear_signgd.default, (train.bytes, 9, weight, None, bias, None, *added, *neuron)
        )
    quantized = (*sk.quantize_weight(weight), bias)
    torch.library.opcheck(ops.spike_linear.default, (train.bytes, 9, *quantized, None, "dense", "cpu"))
    projected = (random_train(9, 5, 7).bytes, None, *sk.quantize_weight(random(20, 7)))
    torch.library.opcheck(ops.spike_linear_signgd.default, (train.bytes, 9, *quantized, None, *projected, *neuron))
    image, kernel, residual = random_train(9, 2, 3, 5, 5), random(8, 3, 3, 3), random_train(9, 2, 8, 5, 5)
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    torch.library.opcheck(ops.spike_conv2d.default, (image.bytes, 9, kernel, *(None,) * 3, *geometry, "dense", "cpu"))
    for added in ((None,) * 4, (residual.bytes, random(8), None, None), (residual.bytes, None, random(8, 8), None)):
        torch.library.opcheck(
            ops.spike_conv2d_signgd.default, (image.bytes, 9, kernel, *(None,) * 3, *added, *geometry, *neuron)
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"train": torch.zeros(3)}, TypeError, "train: expected a SpikeTrain, got Tensor"),
        ({"weight": torch.zeros(4, 5)}, ValueError, r"weight: expected \[N, K\] for a train of shape \(2, 6\)"),
        ({"weight": torch.zeros(4, 6).double()}, TypeError, "weight: expected a float32, float16 or bfloat16 tensor"),
        ({"weight": torch.zeros(6)}, ValueError, "weight: expected 2 dimensions"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias: expected shape \(4,\)"),
        ({"bias": 0.5}, TypeError, "bias: expected a float32, float16 or bfloat16 tensor, got float 0.5"),
        *(
            ({"bias": torch.zeros(4, dtype=dtype)}, TypeError, f"bias: expected a float32, .* got {dtype}")
            for dtype in (torch.float64, torch.int64, torch.complex64)
        ),
        ({"amplitude": torch.zeros(5)}, ValueError, r"amplitude: expected a shape that broadcasts to \(6,\)"),
        ({"amplitude": [1.0] * 6}, TypeError, "amplitude: expected a number or a tensor, got list"),
        ({"amplitude": "x"}, TypeError, "amplitude: expected a number or a tensor, got str"),
        *(
            ({"amplitude": torch.ones(shape).double()}, TypeError, "amplitude: expected float32, got torch.float64")
            for shape in ((), (6,), (2, 1), (2, 6))
        ),
        ({"amplitude": torch.zeros(3, 1)}, ValueError, r"amplitude: expected a shape that broadcasts to \(2, 6\)"),
        ({"method": "fast"}, ValueError, "method: expected one of auto, dense, event, unpack; got 'fast'"),
        ({"backend": "gpu"}, ValueError, "backend: expected None or one of cuda, triton, cpu, reference; got 'gpu'"),
    ],
)
def test_linear_errors(arguments, error, message):
    given = {"train": random_train(8, 2, 6), "weight": torch.zeros(4, 6), **arguments}
    with pytest.raises(error, match=message):
        sk.spike_linear(given.pop("train"), given.pop("weight"), given.pop("bias", None), **given)


@pytest.mark.parametrize(
    ("bytes", "timesteps", "error", "message"),
    [
        (torch.zeros(1, 4, 4, 4, 4, dtype=torch.uint8), 9, ValueError, "bytes: expected 2 groups for timesteps=9"),
        (torch.zeros(1, 4, 4, 4, 4), 8, TypeError, r"bytes: expected a torch\.uint8 tensor"),
        (torch.zeros(1, 4, 4, 4, 4, dtype=torch.uint8), 8.0, ValueError, "timesteps: expected an integer >= 0"),
    ],
)
def test_trains_that_do_not_hold_their_steps(bytes, timesteps, error, message):
    """Kernels read as many bytes as the steps say."""
    short, eta = sk.SpikeTrain(bytes, timesteps), torch.zeros(int(timesteps))
    good = random_train(int(timesteps), 4, 4, 4, 4)
    with pytest.raises(error, match=message):
        sk.spike_linear(short, torch.zeros(4, 4))
    with pytest.raises(error, match=message):
        sk.spike_conv2d(short, torch.zeros(4, 4, 1, 1))
    with pytest.raises(error, match=message):
        sk.spike_linear_signgd(short, torch.zeros(4, 4), None, eta, "relu")
    with pytest.raises(error, match=message):
        sk.spike_conv2d_signgd(good, torch.zeros(4, 4, 1, 1), None, eta, "relu", residual=short)


def test_convolution_errors():
    train = random_train(8, 2, 4, 5, 5)
    with pytest.raises(ValueError, match=r"train: expected shape \[B, C, H, W\]"):
        sk.spike_conv2d(random_train(8, 2, 4), torch.zeros(4, 4, 3, 3))
    with pytest.raises(ValueError, match=r"weight: expected \[N, 4 / groups, kh, kw\]"):
        sk.spike_conv2d(train, torch.zeros(4, 3, 3, 3))
    with pytest.raises(ValueError, match="groups: expected an integer >= 1, got 0"):
        sk.spike_conv2d(train, torch.zeros(4, 4, 3, 3), groups=0)
    with pytest.raises(ValueError, match="its window does not fit"):
        sk.spike_conv2d(train, torch.zeros(4, 4, 7, 7))
    with pytest.raises(TypeError, match="train: expected a SpikeTrain, got Tensor"):
        sk.spike_conv1d(torch.zeros(2, 4, 5), torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match=r"train: expected shape \[B, C, L\], got \(2, 4, 5, 5\)"):
        sk.spike_conv1d(train, torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match=r"weight: expected \[N, 4 / groups, k\], .* got torch.float32 \(4, 3, 3\)"):
        sk.spike_conv1d(train[..., 0], torch.zeros(4, 3, 3))
    with pytest.raises(ValueError, match=r"residual: expected float32 \(8, 2, 4, 3, 3\) on cpu, got"):
        sk.spike_conv2d_signgd(
            train, torch.zeros(4, 4, 3, 3), None, torch.zeros(8), "relu", residual=torch.zeros(8, 2, 4)
        )
    with pytest.raises(ValueError, match=r"eta: expected shape \(8,\)"):
        sk.spike_conv2d_signgd(train, torch.zeros(4, 4, 3, 3), None, torch.zeros(7), "relu")
    with pytest.raises(TypeError, match="leaky_relu's slope: expected a number or a tensor, got str"):
        sk.spike_conv2d_signgd(train, torch.zeros(4, 4, 3, 3), None, torch.zeros(8), ("leaky_relu", "x"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("stride", value, "an integer >= 1 or 2 of them") for value in ((2, 1, 1), (), 0, -1, (1, 0), 2.0, None)),
        *(("padding", value, "an integer >= 0 or 2 of them") for value in ((0, 0, 0), -1, (0, -1), "same", 0.0)),
        *(("dilation", value, "an integer >= 1 or 2 of them") for value in ((1, 1, 1), 0, 1.0)),
        *(("groups", value, "an integer >= 1") for value in (0, -1, 1.0, (1, 1), "1")),
    ],
)
def test_geometry_errors(name, value, expected):
    train, weight = random_train(8, 2, 4, 5, 5), torch.zeros(4, 4, 3, 3)
    message = f"^{re.escape(f'{name}: expected {expected}, got {value!r}')}$"
    with pytest.raises(ValueError, match=message):
        sk.spike_conv2d(train, weight, **{name: value})
    with pytest.raises(ValueError, match=message):
        sk.spike_conv2d_signgd(train, weight, None, torch.zeros(8), "relu", **{name: value})
    with pytest.raises(ValueError, match=message.replace(r"\ or\ 2\ of\ them", "")):
        sk.spike_conv1d(train[..., 0], weight[..., 0], **{name: value})


def test_one_number_stands_for_both_dimensions():
    train, weight = random_train(8, 2, 4, 9, 9), random(4, 4, 3, 3)
    wanted = sk.spike_conv2d(train, weight, stride=2, padding=1)
    for stride, padding in (((2,), [1]), (np.int64(2), (1, 1)), ((2, 2), (np.int32(1),))):
        assert torch.equal(sk.spike_conv2d(train, weight, stride=stride, padding=padding), wanted)


@pytest.mark.parametrize(
    ("residual", "amplitude", "error", "message"),
    [
        ([1.0], None, TypeError, "residual: expected a tensor or a SpikeTrain, got list"),
        (torch.zeros(8, 2, 5), None, ValueError, r"residual: expected float32 \(8, 2, 4\) on cpu, got"),
        (torch.zeros(8, 2, 4), 0.5, ValueError, "residual_amplitude: expected None where residual is no SpikeTrain"),
        (None, 0.5, ValueError, "residual_amplitude: expected None where residual is no SpikeTrain"),
        (random_train(7, 2, 4), None, ValueError, r"residual: expected a train of shape \(2, 4\) and 8 steps on cpu"),
        (random_train(8, 2, 5), None, ValueError, r"residual: expected a train of shape \(2, 4\) and 8 steps on cpu"),
        (random_train(8, 2, 4), torch.ones(5), ValueError, r"residual_amplitude: expected a shape .* to \(4,\)"),
        (
            random_train(8, 2, 4),
            torch.ones(3, 4),
            ValueError,
            r"residual_amplitude: expected a shape that broadcasts to",
        ),
    ],
)
def test_residual_errors(residual, amplitude, error, message):
    arguments = (random_train(8, 2, 6), torch.zeros(4, 6), None, torch.zeros(8), "relu")
    with pytest.raises(error, match=message):
        sk.spike_linear_signgd(*arguments, residual=residual, residual_amplitude=amplitude)


@pytest.mark.parametrize(
    ("residual", "weight", "error", "message"),
    [
        (None, torch.zeros(4, 3), ValueError, "residual_weight: expected None where residual is no SpikeTrain"),
        (torch.zeros(8, 2, 4), torch.zeros(4, 3), ValueError, "residual_weight: expected None where residual is no Sp"),
        (random_train(8, 2, 3), torch.zeros(5, 3), ValueError, r"residual_weight: expected shape \[4, M\] on cpu, got"),
        (random_train(8, 2, 3), torch.zeros(4, 3).int(), TypeError, "residual_weight: expected a float32, float16 or"),
        (random_train(8, 2, 5), torch.zeros(4, 3), ValueError, r"residual: expected a train of shape \(2, 3\) and 8"),
    ],
)
def test_projection_errors(residual, weight, error, message):
    arguments = (random_train(8, 2, 6), torch.zeros(4, 6), None, torch.zeros(8), "relu")
    with pytest.raises(error, match=message):
        sk.spike_linear_signgd(*arguments, residual=residual, residual_weight=weight)
