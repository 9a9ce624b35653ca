"""Products of packed trains on tensor cores without a GPU, on the backend that the environment variable BACKEND names.

tests/test_triton_products.py runs this file in Triton's interpreter, tests/test_cuda.py with CUDA's kernels compiled
for the CPU. Against float64, and the fused ops against the two apart on the same backend, bit for bit.
"""

import os

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import snn_kernels as sk
from cuda_kernels import kernels_of
from snn_kernels.ops.spike_gemm.gpu import convolution, launcher, neurons_of
from snn_kernels.ops.spike_gemm.synapses import Synapses
from test_quantized_weight import extreme
from test_spike_gemm import (
    FIELDS,
    GEOMETRIES,
    assert_fused,
    assert_like_a_float32_product,
    assert_same_neurons,
    random,
    random_train,
)

BACKEND = os.environ["BACKEND"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def backend_here():
    with kernels_of(BACKEND):
        yield


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("timesteps", "rows", "inputs", "outputs"),
    [(1, 1, 1, 1), (4, 5, 7, 3), (7, 3, 63, 17), (9, 70, 100, 33), (12, 2, 16, 130)],
)
def test_linear(timesteps, rows, inputs, outputs, dtype):
    train, weight, bias = random_train(timesteps, rows, inputs), random(outputs, inputs).to(dtype), random(outputs)
    for amplitude in (None, 0.3, random(inputs, seed=3).abs(), random(rows, 1, seed=4)):
        folded = torch.as_tensor(1.0 if amplitude is None else amplitude).double()
        wanted = (train.unpack().double() * folded) @ weight.double().t() + bias.double()
        output = sk.spike_linear(train, weight, bias, amplitude=amplitude, backend=BACKEND)
        assert_like_a_float32_product(output, wanted, inputs)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_linear_of_nothing(shape):
    bias = random(3)
    output = sk.spike_linear(random_train(9, *shape), random(3, shape[1]), bias, backend=BACKEND)
    torch.testing.assert_close(output, bias.expand(9, shape[0], 3))
    for method in ("dense", "event"):
        options = {"amplitude": 0.3, "method": method, "backend": BACKEND}
        assert torch.equal(sk.spike_linear(random_train(9, *shape), random(3, shape[1]), bias, **options), output)
    assert sk.spike_linear(random_train(0, 2, 4), random(3, 4), backend=BACKEND).shape == (0, 2, 3)


def test_linear_of_views():
    weight = random(19, 32)
    trains = [random_train(10, 32, 4, 5).permute(1, 2, 0), random_train(10, 6, 70)[:, 2:66:2]]
    trains += [random_train(10, 6, 64)[1:5, 32:], random_train(10, 6, 65)[1:5, 32:64]]
    for train in trains:
        wanted = train.unpack().double() @ weight.double().t()
        assert_like_a_float32_product(sk.spike_linear(train, weight, backend=BACKEND), wanted, 32)


def test_the_error_of_the_weights_is_as_stated():
    """The bounds in the docstring of ``Weights``, over a wide range of magnitudes inside one output.

    Inputs that fire one by one deliver their weights: the sum of the parts is a float32 number.
    """
    spread = random(5, 129) * 10.0 ** (20 * random(5, 129, seed=2).clamp(-1, 1))
    each = sk.pack(torch.eye(129)[None])
    for dtype, relative in ((torch.float32, 2.0**-23), (torch.bfloat16, 0.0), (torch.float16, 0.0)):
        for size in (1e-30, 1e-10, 1.0, 1e15):
            weight = (spread * size).to(dtype)
            weight = torch.where(weight.isfinite(), weight, 1.0)
            given = sk.spike_linear(each, weight, backend=BACKEND)[0].t().double()
            largest = 0.0 if dtype == torch.float16 else weight.double().abs().amax(1, keepdim=True)
            bound = relative * weight.double().abs() + 2.0**-39 * largest
            assert ((given - weight.double()).abs() <= bound).all()


def test_extreme_weights():
    train = random_train(8, 3, 20)
    spikes = train.unpack().double()
    half, single = torch.float16, torch.float32
    for dtype, size in ((half, 65504.0), (half, 2.0**-24), (single, 1e37), (single, 1e-30), (single, 0.0)):
        weight = torch.full((3, 20), size, dtype=dtype)
        output = sk.spike_linear(train, weight, backend=BACKEND)
        torch.testing.assert_close(output.double(), spikes @ weight.double().t(), rtol=1e-6, atol=0.0)
    everywhere = sk.pack(torch.ones(8, 1, 2))
    assert (sk.spike_linear(everywhere, torch.tensor([[float("inf"), 1.0]]), backend=BACKEND) == float("inf")).all()
    assert sk.spike_linear(everywhere, torch.tensor([[float("nan"), 1.0]]), backend=BACKEND).isnan().all()


@pytest.mark.parametrize("method", ["dense", "event"])
def test_weights_of_8_bits_give_the_currents_of_the_reference(method):
    """To the bit, whatever the order of addition."""
    options = {"amplitude": 0.3, "method": method, "backend": BACKEND}
    for timesteps, rows, inputs, outputs in ((1, 1, 1, 1), (7, 3, 63, 17), (9, 5, 100, 33)):
        train, bias = random_train(timesteps, rows, inputs), random(outputs)
        for weight in (sk.quantize_weight(random(outputs, inputs)), extreme(outputs, inputs)):
            wanted = sk.spike_linear(train, weight, bias, amplitude=0.3, backend="reference")
            assert torch.equal(sk.spike_linear(train, weight, bias, **options), wanted)
    for geometry in GEOMETRIES:
        train = random_train(9, 1, 4, 7, 5)
        weight = sk.quantize_weight(random(8, 4 // geometry.get("groups", 1), 3, 2))
        wanted = sk.spike_conv2d(train, weight, random(8), **geometry, amplitude=0.3, backend="reference")
        assert torch.equal(sk.spike_conv2d(train, weight, random(8), **geometry, **options), wanted)


def test_fused_neurons_behind_weights_of_8_bits_are_those_of_the_reference():
    """Their currents are."""
    train, shortcut, eta = (
        random_train(17, 5, 83),
        random_train(17, 5, 21),
        sk.schedules.Exponential(0.4, 0.9).table(17),
    )
    weight, bias = sk.quantize_weight(random(45, 83)), random(45)
    for projection in ({}, {"residual": shortcut, "residual_weight": sk.quantize_weight(random(45, 21))}):
        found, wanted = (
            sk.spike_linear_signgd(train, weight, bias, eta, "relu", amplitude=0.7, **projection, backend=backend)
            for backend in (BACKEND, "reference")
        )
        assert_same_neurons(found, wanted)
    image, kernel = random_train(17, 2, 7, 6, 5), sk.quantize_weight(random(18, 7, 3, 3))
    found, wanted = (
        sk.spike_conv2d_signgd(image, kernel, None, eta, "relu", padding=1, backend=backend)
        for backend in (BACKEND, "reference")
    )
    assert_same_neurons(found, wanted)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution(geometry):
    """And the fused one, whose currents are the same to the bit."""
    train = random_train(9, 2, 4, 7, 5)
    weight, bias, amplitude = random(8, 4 // geometry.get("groups", 1), 3, 2), random(8), random(4).abs()
    values = (train.unpack().double() * amplitude.double().reshape(-1, 1, 1)).flatten(0, 1)
    wanted = F.conv2d(values, weight.double(), bias.double(), **geometry).unflatten(0, (9, 2))
    options = {**geometry, "amplitude": amplitude, "backend": BACKEND}
    output = sk.spike_conv2d(train, weight, bias, **options)
    assert_like_a_float32_product(output, wanted, weight[0].numel())
    assert output[0].is_contiguous(memory_format=torch.channels_last)
    eta, offset = sk.schedules.Exponential(0.4, 0.9).table(9), random(8, 1, 1)
    apart = sk.signgd(output, eta, "relu", offset=offset, backend=BACKEND)
    fused = sk.spike_conv2d_signgd(train, weight, bias, eta, "relu", **options, offset=offset)
    assert_same_neurons(fused, apart)


# Of one section, of several and with a last one that is not full; of groups smaller and larger than a tile.
GROUPS = [(70, 1, 1, None), (70, 1, 1, "channel"), (20, 1, 2, 0.3), (5, 4, 3, None), (6, 16, 16, "channel")]
GROUPS += [(5, 8, 24, 0.3), (2, 32, 80, None), (2, 20, 9, "channel")]


@pytest.mark.parametrize(("groups", "inputs", "outputs", "amplitude"), GROUPS)
def test_groups(groups, inputs, outputs, amplitude):
    """Dense, event-driven and fused: weights of 0 between groups change nothing, whatever their neighbours hold."""
    train, bias = random_train(9, 1, groups * inputs, 3, 2), random(groups * outputs)
    weight, geometry = random(groups * outputs, inputs, 3, 2), {"padding": 1, "groups": groups}
    weight[0, 0, 0, 0] = torch.nan
    amplitude = random(groups * inputs, seed=3).abs() if amplitude == "channel" else amplitude
    folded = torch.as_tensor(1.0 if amplitude is None else amplitude).double().reshape(-1, 1, 1)
    values = (train.unpack().double() * folded).flatten(0, 1)
    wanted = F.conv2d(values, weight.double(), bias.double(), **geometry).unflatten(0, (9, 1))
    options = {**geometry, "amplitude": amplitude, "backend": BACKEND}
    for method in ("dense", "event"):
        output = sk.spike_conv2d(train, weight, bias, **options, method=method)
        assert output[:, :, 1:].isfinite().all()
        assert_like_a_float32_product(output[:, :, 1:], wanted[:, :, 1:], weight[0].numel())
    eta = sk.schedules.Exponential(0.4, 0.9).table(9)
    weight[0, 0, 0, 0] = 1.0
    apart = sk.signgd(sk.spike_conv2d(train, weight, bias, **options), eta, "relu", backend=BACKEND)
    assert_same_neurons(sk.spike_conv2d_signgd(train, weight, bias, eta, "relu", **options), apart)


def test_groups_at_points():
    train, weight = random_train(9, 3, 64, 1, 1), random(64, 8, 1, 1)
    wanted = F.conv2d(train.unpack().double().flatten(0, 1), weight.double(), groups=8)
    for method in ("dense", "event"):
        output = sk.spike_conv2d(train, weight, groups=8, method=method, backend=BACKEND)
        assert_like_a_float32_product(output.flatten(0, 1), wanted, 8)


def test_convolution_1d_and_more_channels_than_a_block():
    train, weight = random_train(3, 2, 40, 9), random(18, 40, 3)
    wanted = F.conv1d(train.unpack().double().flatten(0, 1), weight.double(), None, 2, 1)
    output = sk.spike_conv1d(train, weight, None, 2, 1, backend=BACKEND)
    assert_like_a_float32_product(output.flatten(0, 1), wanted, 120)


@pytest.mark.parametrize(
    ("timesteps", "dtype", "activation"),
    [
        (0, torch.float32, "relu"),
        (1, torch.bfloat16, "relu"),
        (4, torch.bfloat16, "relu"),
        (9, torch.float32, "gelu"),
        (17, torch.float16, ("leaky_relu", random(33).abs())),
    ],
)
def test_fused_linear_is_the_two_apart(timesteps, dtype, activation):
    train, weight, bias = random_train(timesteps, 17, 50), (random(33, 50) / 7).to(dtype), random(33)
    eta = sk.schedules.Exponential(0.4, 0.9).table(timesteps)
    of_row = random(17, 1, seed=4)
    current = sk.spike_linear(train, weight, bias, amplitude=0.5, backend=BACKEND)
    current_of_row = sk.spike_linear(train, weight, bias, amplitude=of_row, backend=BACKEND)
    mixed = {"offset": random(33), "scale": random(17, 1).abs() + 0.1, "x0": random(17, 33), "v0": 0.2}
    for fields in (*FIELDS.values(), mixed):
        neuron = {("bias" if name == "x0" else name): value for name, value in fields.items()}
        apart = sk.signgd(current, eta, activation, **neuron, backend=BACKEND)
        options = {"amplitude": 0.5, "backend": BACKEND, **fields}
        fused = sk.spike_linear_signgd(train, weight, bias, eta, activation, **options)
        assert_same_neurons(fused, apart)
        apart = sk.signgd(current_of_row, eta, activation, **neuron, backend=BACKEND)
        options["amplitude"] = of_row
        assert_same_neurons(sk.spike_linear_signgd(train, weight, bias, eta, activation, **options), apart)


def test_nothing_runs_apart(monkeypatch):
    assert_fused(monkeypatch, BACKEND, residuals=True)


def test_residuals_of_one_row_and_of_no_steps():
    weight, options = random(5, 20), {"backend": BACKEND}
    for timesteps, batch in ((9, ()), (0, (3,)), (0, ())):
        eta = sk.schedules.Exponential(0.4, 0.9).table(timesteps)
        train, shortcut = random_train(timesteps, *batch, 20), random_train(timesteps, *batch, 5, seed=6)
        current = sk.spike_linear(train, weight, **options)
        wanted = sk.signgd(current + shortcut.unpack(), eta, "relu", **options)
        for residual in (shortcut, shortcut.unpack()):
            assert_same_neurons(
                sk.spike_linear_signgd(train, weight, None, eta, "relu", residual=residual, **options), wanted
            )


@pytest.mark.parametrize("outputs", [5, 40])
def test_residuals(outputs):
    """Currents and trains, in any memory format, are added as they are to the currents of the product apart."""
    eta, options = sk.schedules.Exponential(0.4, 0.9).table(9), {"backend": BACKEND}
    for apart, op, train, weight, feature_dim in (
        (sk.spike_linear, sk.spike_linear_signgd, random_train(9, 3, 20), random(outputs, 20) / 4, -1),
        (sk.spike_conv2d, sk.spike_conv2d_signgd, random_train(9, 2, 4, 5, 6), random(outputs, 4, 2, 2) / 4, 1),
    ):
        current, amplitude = apart(train, weight, **options), random(outputs).abs()
        shortcut = random_train(9, *current.shape[1:], seed=6)
        features_last = shortcut.permute(0, 2, 3, 1) if feature_dim == 1 else shortcut
        in_rows = sk.SpikeTrain(features_last.bytes.contiguous(), 9)
        in_rows = in_rows.permute(0, 3, 1, 2) if feature_dim == 1 else in_rows
        worth = amplitude.reshape(-1, *(1,) * (train.bytes.ndim - 3)) if feature_dim == 1 else amplitude
        for packed in (shortcut, in_rows):
            dense = packed.unpack() * worth
            wanted = sk.signgd(current + dense, eta, "relu", **options)
            for residual in ({"residual": dense}, {"residual": packed, "residual_amplitude": amplitude}):
                assert_same_neurons(op(train, weight, None, eta, "relu", **residual, **options), wanted)
        unit, _ = op(train, weight, None, eta, "relu", residual=shortcut, **options)
        assert torch.equal(unit.bytes, sk.signgd(current + shortcut.unpack(), eta, "relu", **options)[0].bytes)


def test_fused_state_is_passed_on_over_several_tiles():
    train, weight = random_train(24, 5, 14, 40), random(40, 40) / 6
    eta, options = sk.schedules.Exponential(0.4, 0.9).table(24), {"backend": BACKEND}
    whole, whole_state = sk.spike_linear_signgd(train, weight, None, eta, "relu", **options)
    state, parts = None, []
    for group in range(3):
        part, steps = sk.SpikeTrain(train.bytes[group : group + 1], 8), eta[8 * group : 8 * group + 8]
        spikes, state = sk.spike_linear_signgd(part, weight, None, steps, "relu", state=state, **options)
        parts.append(spikes.bytes)
    assert torch.equal(torch.cat(parts), whole.bytes)
    assert torch.equal(state.v, whole_state.v)
    current = sk.spike_linear(train, weight, **options)
    assert torch.equal(sk.signgd(current, eta, "relu", **options)[0].bytes, whole.bytes)


def added_in_order(train: sk.SpikeTrain, weight: torch.Tensor, bias: torch.Tensor, multiplier=1.0) -> torch.Tensor:
    """``[T, rows, N]``: what fires of ``[T, rows, K]`` adds its weights ``[N, K]`` one after the other."""
    total = torch.zeros(train.timesteps, train.shape[0], len(weight))
    for spikes, column in zip(train.unpack(torch.bool).unbind(-1), weight.float().t()):
        total = torch.where(spikes.unsqueeze(-1), total + column, total)
    return total * multiplier + bias


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("timesteps", "rows", "inputs", "outputs"), [(1, 1, 1, 1), (7, 3, 33, 17), (9, 2, 20, 132)])
def test_events_are_added_in_order(timesteps, rows, inputs, outputs, dtype):
    """So CUDA and Triton give the same bits."""
    weight, bias = random(outputs, inputs).to(dtype), random(outputs)
    options = {"method": "event", "backend": BACKEND}
    for density in (0.03, 0.5):
        train = sk.pack(random(timesteps, rows, inputs, seed=5).abs() < density)
        output = sk.spike_linear(train, weight, bias, **options)
        assert torch.equal(output, added_in_order(train, weight, bias))
        output = sk.spike_linear(train, weight, bias, amplitude=0.3, **options)
        assert torch.equal(output, added_in_order(train, weight, bias, torch.tensor(0.3)))
        amplitude = random(inputs, seed=3)
        output = sk.spike_linear(train, weight, bias, amplitude=amplitude, **options)
        assert torch.equal(output, added_in_order(train, weight.float() * amplitude, bias))
        of_row = random(rows, 1, seed=4)
        output = sk.spike_linear(train, weight, bias, amplitude=of_row, **options)
        assert torch.equal(output, added_in_order(train, weight, torch.zeros(())) * of_row + bias)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_events_in_windows(geometry):
    groups = geometry.get("groups", 1)
    train, weight, bias = random_train(9, 1, 4, 5, 6), random(8, 4 // groups, 3, 3), random(8)
    wanted = F.conv2d(train.unpack().flatten(0, 1).double(), weight.double(), bias.double(), **geometry)
    output = sk.spike_conv2d(train, weight, bias, **geometry, method="event", backend=BACKEND)
    assert_like_a_float32_product(output, wanted.unflatten(0, (9, 1)), weight[0].numel())


def test_only_what_fires_is_read():
    train = random_train(9, 3, 40)
    train.bytes[:, :, ::3] = 0
    weight = random(5, 40)
    weight[:, ::3] = torch.nan
    output = sk.spike_linear(train, weight, method="event", backend=BACKEND)
    assert torch.equal(output, added_in_order(train, weight, torch.zeros(())))
    assert output.isfinite().all()


def test_a_projected_residual_is_the_product_of_its_train():
    train, shortcut, eta = random_train(9, 3, 20), random_train(9, 3, 24, seed=4), sk.schedules.Exponential().table(9)
    weight, projection, amplitude = random(12, 20), random(12, 24), random(24)
    current = sk.spike_linear(shortcut, projection, amplitude=amplitude, backend=BACKEND)
    wanted = sk.spike_linear_signgd(train, weight, None, eta, "relu", residual=current, backend=BACKEND)
    residual = {"residual": shortcut, "residual_amplitude": amplitude, "residual_weight": projection}
    assert_same_neurons(sk.spike_linear_signgd(train, weight, None, eta, "relu", **residual, backend=BACKEND), wanted)


def test_a_method_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=f"method: the {BACKEND} backend has auto, dense, event; got 'unpack'"):
        sk.spike_linear(random_train(8, 2, 4), random(3, 4), method="unpack", backend=BACKEND)
    train, weight = random_train(8, 2, 4), random(3, 4)
    named = sk.spike_linear(train, weight, method="dense", backend=BACKEND)
    assert torch.equal(named, sk.spike_linear(train, weight, backend=BACKEND))


def test_ops_satisfy_torch():
    train, weight = random_train(9, 2, 3), random(4, 3)
    zero, one, eta = torch.zeros(()), torch.ones(()), sk.schedules.Exponential().table(9)
    ops, neuron = torch.ops.snn_kernels, (eta, one, zero, one, [], zero, "relu", BACKEND)
    torch.library.opcheck(ops.spike_linear.default, (train.bytes, 9, weight, *(None,) * 3, "dense", BACKEND))
    shapes = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(ops.spike_linear_signgd.default, (train.bytes, 9, weight, *(None,) * 7, *neuron), **shapes)
    image, kernel = random_train(9, 2, 3, 4, 4), random(4, 3, 3, 3)
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    call = (image.bytes, 9, kernel, *(None,) * 3)
    torch.library.opcheck(ops.spike_conv2d.default, (*call, *geometry, "dense", BACKEND), **shapes)
    fused = (*call, *(None,) * 4, *geometry, *neuron)
    torch.library.opcheck(ops.spike_conv2d_signgd.default, fused, **shapes)


class Operations(TorchDispatchMode):
    """The names of PyTorch's own operations that do work."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and "empty" not in func._schema.name:
            self.seen.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_a_call_is_two_launches_or_four(monkeypatch):
    """Weights are prepared and multiplied; a train is copied, with silence around it, only where it has to be."""
    launches = []
    for name in ("prepare", "run"):
        monkeypatch.setattr(launcher(BACKEND), name, lambda *_, name=name: launches.append(name))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    weight, bias = random(20, 32, 3, 3), random(20)
    train = random_train(9, 2, 4, 5, 32).permute(0, 3, 1, 2)
    for padding, copies in ((0, []), (1, ["aten::new_zeros", "aten::copy_"])):
        launches.clear()
        out = torch.empty(9, 2, 2 + 2 * padding, 3 + 2 * padding, 20).permute(0, 1, 4, 2, 3)
        with Operations() as operations:
            geometry = ([1, 1], [padding, padding], [1, 1])
            convolution(BACKEND, "dense", train.bytes, 9, Synapses(weight, None, bias), None, geometry, 1, out)
        assert launches == ["prepare", "run"]
        assert operations.seen == copies
    launches.clear()
    sk.spike_conv2d(random_train(9, 2, 70, 4, 4), random(70, 1, 3, 3), groups=70, backend=BACKEND)
    assert launches == ["prepare", "run"]


def test_operands_of_one_number_are_two_launches_together():
    offset, x, scale, v = torch.tensor([1.0, 2.0, 3.0, 4.0]).unbind()
    outputs = (torch.empty(0), torch.empty(0), torch.empty(3, 20))
    with Operations() as operations:
        neurons = neurons_of(9, None, (torch.empty(9), offset, x, scale, [], v, "relu"), (0, 1), outputs)
    assert operations.seen == ["aten::stack", "aten::clone"]
    assert [(row.tolist(), stride) for row, stride in neurons.fields] == [([n] * 20, 0) for n in (1, 2, 3, 3, 3, 4)]
