"""What only a GPU can show. Skipped, with the reason, where there is none."""

import pytest
import torch

from signgd_helpers import DTYPES, arguments_for, assert_flips_are_crossings, assert_same, run, seeded
from snn_kernels import ACTIVATIONS, backends, schedules, signgd

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["cuda", "triton"])
def backend(request):
    if not backends()[request.param].available:
        pytest.skip(backends()[request.param].reason)
    return request.param


def moved(value, device: str):
    return [tensor.to(device) for tensor in value] if isinstance(value, (list, tuple)) else value.to(device)


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
