"""The op as a citizen of torch: opcheck, torch.compile, torch.export, vmap."""

import shutil

import pytest
import torch
from torch.utils import _pytree as pytree

from signgd_helpers import DTYPES, arguments_for, seeded
from snn_kernels import (
    ACTIVATIONS,
    NeuronState,
    SpikeTrain,
    decode,
    pack,
    parallel_spikes,
    quantize_weight,
    schedules,
    signgd,
    signgd_binary,
    signgd_matmul,
    signgd_vector,
    spike_linear,
)

ETA = schedules.Exponential().table(9)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["relu", "hardtanh", "gelu", "maximum"])
def test_opcheck(name, backend):
    for dtype in DTYPES:
        arguments = arguments_for(ACTIVATIONS[name], (2, 3), 9, dtype)
        parameters = [torch.tensor(default) for _, default in ACTIVATIONS[name].parameters]
        for currents in (arguments["currents"], [current.transpose(1, 2) for current in arguments["currents"]]):
            fields = [torch.tensor(0.5)] * len(currents)
            for m in ([], [*fields, fields[0]]):
                call = (currents, [], ETA, name, fields, torch.ones(3, 1)[:1], parameters, fields, fields[0], m)
                torch.library.opcheck(torch.ops.snn_kernels.neuron.default, (*call, 0.5 * len(m), False, backend))
    bytes = [torch.full((2, 2, 3), 85, dtype=torch.uint8)] * len(fields)
    call = (bytes, fields, ETA, name, fields, torch.ones(()), parameters, fields, fields[0], [], 0.0, False, backend)
    torch.library.opcheck(torch.ops.snn_kernels.neuron.default, call)


def two_layers(current: torch.Tensor, bias: torch.Tensor) -> tuple[SpikeTrain, NeuronState]:
    train, _ = signgd(current, ETA, ("leaky_relu", 0.1), bias=bias, offset=0.3)
    hidden = 2 * train.unpack() - 0.5
    gated, _ = signgd_binary(hidden, current, ETA, "maximum", offset=(1.0, 0.3))
    return signgd(gated.unpack(), ETA, "gelu", scale=0.5)


def same(result, expected) -> bool:
    (train, state), (train_too, state_too) = result, expected
    assert isinstance(train, SpikeTrain)
    assert isinstance(state, NeuronState)
    assert train.timesteps == train_too.timesteps
    return all(
        torch.equal(a, b) for a, b in ((train.bytes, train_too.bytes), (state.x, state_too.x), (state.v, state_too.v))
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_compile_whole_graph(channels_last):
    current, bias = seeded(9, 2, 3, 4, 5), seeded(3, 1, 1)
    if channels_last:
        current = current.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    compiled = torch.compile(two_layers, fullgraph=True, backend="aot_eager")
    result = compiled(current, bias)
    assert same(result, two_layers(current, bias))
    assert result[0].bytes.stride() == two_layers(current, bias)[0].bytes.stride()


def test_compile_with_changing_sizes():
    compiled = torch.compile(two_layers, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 3, 7):
        current, bias = seeded(9, batch, 5), seeded(5)
        assert same(compiled(current, bias), two_layers(current, bias))


def test_compile_does_not_trip_over_gradients():
    weight, other = seeded(5).requires_grad_(), seeded(9, 5)
    compiled = torch.compile(lambda w: signgd(w * other, ETA, "relu")[1].v, fullgraph=True, backend="aot_eager")
    assert not compiled(weight).requires_grad


def test_compile_with_inductor():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("inductor needs a C++ compiler")
    current = seeded(9, 7)
    compiled = torch.compile(lambda current: signgd(2 * current, ETA, "relu"), fullgraph=True)
    assert same(compiled(current), signgd(2 * current, ETA, "relu"))


def test_export_saves_and_loads(tmp_path):
    class Network(torch.nn.Module):
        def forward(self, current, bias):
            return two_layers(current, bias)

    inputs = (seeded(9, 2, 5), seeded(5))
    batch = torch.export.Dim("batch", min=1, max=100)
    program = torch.export.export(Network(), inputs, dynamic_shapes=({1: batch}, None))
    torch.export.save(program, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    for size in (2, 7):
        current = seeded(9, size, 5, seed=size)
        assert same(loaded(current, inputs[1]), two_layers(current, inputs[1]))


@pytest.mark.parametrize(
    ("op", "run"),
    [
        ("neuron", lambda current: signgd(current, ETA, "relu")[0].bytes),
        ("signgd_matmul", lambda current: signgd_matmul(current, current, ETA)[0].bytes),
    ],
)
def test_vmap_says_that_ops_of_lists_of_tensors_do_not_support_it(op, run):
    with pytest.raises(RuntimeError, match=f"Batching rule not implemented for snn_kernels::{op}"):
        torch.func.vmap(run)(seeded(3, 9, 5, 5))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    "run",
    [
        lambda current: signgd_vector(current, ETA, "softmax")[0].bytes,
        lambda current: decode(current, ETA),
        lambda current: parallel_spikes(current, 1.0).bytes,
        lambda current: pack(current > 0).bytes,
        lambda current: spike_linear(pack(current > 0), torch.eye(4, 5)),
    ],
    ids=["signgd_vector", "decode", "parallel_spikes", "pack", "spike_linear"],
)
def test_vmap_calls_the_other_ops_in_turn(run):
    currents = seeded(3, 9, 5, 5)
    assert torch.equal(torch.func.vmap(run)(currents), torch.stack([run(current) for current in currents]))


def test_fake_tensors_know_the_memory_format():
    from torch._subclasses.fake_tensor import FakeTensorMode

    real = seeded(9, 2, 4, 5, 3).permute(0, 1, 4, 2, 3)
    train, state = signgd(real, ETA, "relu")
    with FakeTensorMode() as mode:
        fake_train, fake_state = signgd(mode.from_tensor(real), mode.from_tensor(ETA), "relu")
    assert fake_train.bytes.shape == train.bytes.shape
    assert fake_train.bytes.stride() == train.bytes.stride()
    assert fake_state.v.stride() == state.v.stride()


def test_what_calls_return_and_take_is_saved_and_loaded(tmp_path):
    train, state = signgd_binary(seeded(9, 2, 5), seeded(9, 2, 5), ETA, "maximum", momentum=0.5)
    saved = {"train": train, "state": state, "weight": quantize_weight(seeded(4, 5))}
    torch.save(saved, tmp_path / "run.pt")
    loaded = torch.load(tmp_path / "run.pt")
    assert loaded["train"].timesteps == 9
    leaves, spec = pytree.tree_flatten(loaded)
    wanted, wanted_spec = pytree.tree_flatten(saved)
    assert spec == wanted_spec
    assert all(map(torch.equal, leaves, wanted))
