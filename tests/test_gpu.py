"""What only a GPU can show. Skipped, with the reason, where there is none."""

import pytest
import torch
from torch.utils import _pytree as pytree

import test_signgd_matmul as products
import test_signgd_trains as trains
import test_signgd_vector as vector
from neuron_models import CALLS, assert_same_outcome, currents
from signgd_helpers import DTYPES, arguments_for, assert_flips_are_crossings, assert_same, run, seeded
from snn_kernels import (
    ACTIVATIONS,
    SpikeTrain,
    backends,
    decode,
    quantize_weight,
    schedules,
    signgd,
    signgd_vector,
    spike_conv2d,
    spike_conv2d_signgd,
    spike_linear,
    spike_linear_signgd,
)
from test_parallel import same_bits
from test_spike_gemm import assert_like_a_float32_product, random_train

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["cuda", "triton"])
def backend(request):
    if not backends()[request.param].available:
        pytest.skip(backends()[request.param].reason)
    return request.param


def moved(value, device: str):
    return [tensor.to(device) for tensor in value] if isinstance(value, (list, tuple)) else value.to(device)


def on_cpu(train: SpikeTrain, state) -> tuple:
    return SpikeTrain(train.bytes.cpu(), train.timesteps), pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, state)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_bits_of_the_cpu_kernel(name, backend):
    """Of the transcendental activations too: they are the same correctly rounded operations there."""
    for dtype in DTYPES:
        for size in (7, 4096, 5001):
            arguments = arguments_for(ACTIVATIONS[name], (size,), 33, dtype)
            on_gpu = {key: moved(value, "cuda") for key, value in arguments.items()}
            result = run(name, backend=backend, **on_gpu)
            result = type(result)(*(moved(value, "cpu") for value in result))
            assert_same(result, run(name, backend="cpu", **arguments))
            assert_flips_are_crossings(name, result, **arguments)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_neurons_on_trains_give_the_bits_of_the_cpu_kernel(name, backend):
    for arguments in trains.calls(name, (1, 7, 1400, 5001), (1, 9, 33)):
        on_gpu = pytree.tree_map_only(torch.Tensor, torch.Tensor.cuda, arguments)
        result = pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, tuple(trains.run(**on_gpu, backend=backend)))
        assert_same(trains.Run(*result), trains.run(**arguments, backend="cpu"))


@pytest.mark.parametrize("name", CALLS)
def test_the_other_models_give_the_bits_of_the_cpu_kernel(name, backend):
    for dtype in DTYPES:
        for size in (7, 4096, 5001):
            current = currents(33, size, dtype=dtype)
            train, state = CALLS[name](current.cuda(), backend=backend)
            assert_same_outcome(on_cpu(train, state), CALLS[name](current, backend="cpu"))


def test_parallel_neurons_give_the_bits_of_the_reference(backend):
    for dtype in DTYPES:
        for size in (7, 4096, 5001):
            same_bits(seeded(19, size).to("cuda", dtype), backend=backend, threshold=0.5, shift=0.03)


@pytest.mark.parametrize("name", vector.CASES)
def test_vector_targets(name, backend):
    for length, dtype in ((1, torch.float32), (63, torch.bfloat16), (1500, torch.float16)):
        call = vector.arguments(length, 11, dtype)
        function = tuple(
            moved(part, "cuda") if torch.is_tensor(part) else part for part in vector.case(name, length)[0]
        )
        rest = {key: moved(value, "cuda") for key, value in call.items()}
        train, state = signgd_vector(rest.pop("current"), rest.pop("eta"), function, **rest, backend=backend)
        vector.assert_flips_are_crossings(name, length, *on_cpu(train, state), **call)


@pytest.mark.parametrize("name", vector.CASES)
def test_vector_targets_of_trains(name, backend):
    for length, timesteps in ((1, 9), (63, 8), (1500, 19)):
        vector.train_as_its_currents(name, length, timesteps, backend, device="cuda")


def test_decoded_inputs_have_the_bits_of_the_cpu_kernel(backend):
    eta = schedules.Exponential().table(19)
    for size in (7, 4096, 5001):
        for given in (*(seeded(19, size).to(dtype) for dtype in DTYPES), random_train(19, size)):
            on_gpu = SpikeTrain(given.bytes.cuda(), 19) if isinstance(given, SpikeTrain) else given.cuda()
            decoded = decode(on_gpu, eta.cuda(), offset=0.3, bias=0.1, backend=backend)
            assert torch.equal(decoded.cpu(), decode(given, eta, offset=0.3, bias=0.1, backend="cpu"))


def test_products_of_activations(backend):
    arguments = products.call(products.SHAPES["batches"], 20, (True, False))
    on_gpu = pytree.tree_map_only(torch.Tensor, torch.Tensor.cuda, arguments)
    train, state = on_cpu(*products.run(on_gpu, backend=backend))
    products.assert_follows_the_definition(train, state, arguments)


def test_capture_in_a_cuda_graph(backend):
    current = seeded(17, 5000).cuda()
    eta = schedules.Exponential().table(17).cuda()
    expected, expected_state = signgd(current, eta, "gelu", backend=backend)
    torch.cuda.synchronize()
    static = torch.zeros_like(current)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train, state = signgd(static, eta, "gelu", backend=backend)
    static.copy_(current)
    graph.replay()
    assert torch.equal(train.bytes, expected.bytes)
    assert torch.equal(state.v, expected_state.v)


@pytest.mark.parametrize("name", ["hardsigmoid", "hardswish"])
def test_the_reference_divides_by_numbers(name):
    x = seeded(1 << 16)
    function = ACTIVATIONS[name].function
    assert torch.equal(function(x.cuda()).cpu(), function(x))


def test_weights_of_8_bits_are_those_of_the_cpu():
    weight = seeded(300, 77)
    found, wanted = quantize_weight(weight.cuda()), quantize_weight(weight)
    assert torch.equal(found.scale.cpu(), wanted.scale)
    assert torch.equal(found.values.cpu(), wanted.values)


def test_products_of_packed_trains(backend):
    """Against float64 within the bound of the CPU's tests, and the fused op against the two apart bit for bit."""
    eta = schedules.Exponential(0.4, 0.9).table(33).cuda()
    for rows, inputs, outputs in ((1, 7, 3), (100, 500, 33), (1000, 768, 256)):
        train = random_train(33, rows, inputs)
        for dtype in DTYPES:
            weight = seeded(outputs, inputs, dtype=dtype)
            on_gpu = SpikeTrain(train.bytes.cuda(), 33), weight.cuda()
            output = spike_linear(*on_gpu, backend=backend)
            wanted = train.unpack().double() @ weight.double().t()
            assert_like_a_float32_product(output.cpu(), wanted, inputs)
            events = spike_linear(*on_gpu, method="event", backend=backend)
            assert_like_a_float32_product(events.cpu(), wanted, inputs)
            spikes, state = signgd(output, eta, "gelu", offset=0.5, backend=backend)
            fused, fused_state = spike_linear_signgd(*on_gpu, None, eta, "gelu", offset=0.5, backend=backend)
            assert torch.equal(fused.bytes, spikes.bytes)
            assert torch.equal(fused_state.v, state.v)


def test_products_with_weights_of_8_bits_have_the_bits_of_the_cpu_kernel(backend):
    """Their sums are exact, on tensor cores too, so fused neurons are the same."""
    eta = schedules.Exponential(0.4, 0.9).table(33)
    for rows, inputs, outputs in ((1, 7, 3), (100, 500, 33), (300, 3000, 256)):
        train, weight, bias = random_train(33, rows, inputs), quantize_weight(seeded(outputs, inputs)), seeded(outputs)
        on_gpu = SpikeTrain(train.bytes.cuda(), 33), weight.to("cuda"), bias.cuda()
        wanted = spike_linear(train, weight, bias)
        for method in ("dense", "event"):
            assert torch.equal(spike_linear(*on_gpu, method=method, backend=backend).cpu(), wanted)
        spikes, state = spike_linear_signgd(train, weight, bias, eta, "relu")
        fused, fused_state = spike_linear_signgd(*on_gpu, eta.cuda(), "relu", backend=backend)
        assert torch.equal(fused.bytes.cpu(), spikes.bytes)
        assert torch.equal(fused_state.v.cpu(), state.v)


def test_a_convolution_of_packed_trains(backend):
    train, weight = random_train(9, 4, 64, 11, 13), seeded(96, 64, 3, 3)
    on_gpu = SpikeTrain(train.bytes.cuda(), 9), weight.cuda()
    output = spike_conv2d(*on_gpu, padding=1, backend=backend)
    wanted = torch.nn.functional.conv2d(train.unpack().double().flatten(0, 1), weight.double(), padding=1)
    assert_like_a_float32_product(output.cpu(), wanted.unflatten(0, (9, 4)), 576)
    events = spike_conv2d(*on_gpu, padding=1, method="event", backend=backend)
    assert_like_a_float32_product(events.cpu(), wanted.unflatten(0, (9, 4)), 576)
    eta = schedules.Exponential(0.4, 0.9).table(9).cuda()
    spikes, state = signgd(output, eta, "relu", backend=backend)
    fused, fused_state = spike_conv2d_signgd(*on_gpu, None, eta, "relu", padding=1, backend=backend)
    assert torch.equal(fused.bytes, spikes.bytes)
    assert torch.equal(fused_state.v, state.v)


def test_more_than_two_to_the_31_neurons(backend):
    """Neurons past 2**31 get the currents of the first ones and must do what they do."""
    neurons = 2**31 + 4096
    if torch.cuda.mem_get_info()[0] < 90 * 2**30:
        pytest.skip("less than 90 GiB free on the GPU")
    row = seeded(9, 4096).bfloat16().cuda()
    current = row.repeat(1, neurons // 4096)
    eta = schedules.Exponential().table(9).cuda()
    train, state = signgd(current, eta, "relu", backend=backend)
    expected, expected_state = signgd(row, eta, "relu", backend="reference")
    for block in (slice(0, 4096), slice(2**31 - 4096, 2**31), slice(2**31, None)):
        assert torch.equal(train.bytes[:, block], expected.bytes)
        assert torch.equal(state.v[block], expected_state.v)
