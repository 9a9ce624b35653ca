"""SignGDNeuron: the same train in both step modes, at any precision, compiled, exported, copied, saved."""

import copy

import pytest
import torch
from torch import nn

from signgd_helpers import DTYPES, seeded
from snn_kernels import SignGDNeuron, SpikeTrain, signgd
from snn_kernels.schedules import Constant, Exponential, Table, Uniform

SCHEDULE = Exponential(0.3, 0.9)


def neuron(activation="gelu", **arguments) -> SignGDNeuron:
    fields = {"scale": 1.5, "offset": seeded(3, 1, 1, seed=1), "bias": seeded(3, 1, 1, seed=2), "v0": -0.25}
    return SignGDNeuron(activation, SCHEDULE, **{**fields, **arguments})


def expected_spikes(current: torch.Tensor) -> torch.Tensor:
    fields = {"scale": 1.5, "offset": seeded(3, 1, 1, seed=1), "bias": seeded(3, 1, 1, seed=2), "v0": -0.25}
    train, _ = signgd(current, SCHEDULE.table(len(current)), "gelu", **fields)
    return train.unpack(current.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("timesteps", [0, 1, 7, 8, 9, 33])
def test_multi_step_is_the_op(timesteps, dtype):
    current = seeded(timesteps, 2, 3, 5, 7).to(dtype)
    spikes = neuron()(current)
    assert spikes.dtype == dtype
    assert torch.equal(spikes, expected_spikes(current))


def test_both_step_modes_and_any_cut_give_the_same_train():
    current = seeded(19, 2, 3, 5, 7)
    expected = expected_spikes(current)
    single, mixed = neuron(step_mode="s"), neuron()
    assert torch.equal(torch.stack([single(step) for step in current]), expected)
    assert single.timestep == 19
    begin = mixed(current[:5])
    mixed.step_mode = "s"
    middle = mixed(current[5])
    mixed.step_mode = "m"
    end = mixed(current[6:])
    assert torch.equal(torch.cat([begin, middle[None], end]), expected)
    assert torch.equal(mixed.state.v, single.state.v)


def test_reset_begins_anew():
    module, current = neuron(), seeded(9, 2, 3, 5, 7)
    first = module(current)
    assert module.timestep == 9
    assert not torch.equal(module(current), first)
    module.reset()
    assert module.timestep == 0
    assert module.state is None
    assert torch.equal(module(current), first)


def test_packed_returns_the_train():
    current = seeded(9, 2, 3, 5, 7).half()
    train = neuron(packed=True)(current)
    assert isinstance(train, SpikeTrain)
    assert train.timesteps == 9
    assert torch.equal(train.unpack(), expected_spikes(current).float())


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_channels_last_in_channels_last_out_and_nothing_copied(step_mode, monkeypatch):
    images = seeded(9, 2, 5, 7, 3).permute(0, 1, 4, 2, 3)
    current = images if step_mode == "m" else images[0]
    module = neuron(step_mode=step_mode)
    expected = neuron(step_mode=step_mode)(current.contiguous())

    contiguous, copies = torch.Tensor.contiguous, []

    def watched(tensor, *arguments, **keywords):
        result = contiguous(tensor, *arguments, **keywords)
        if result.data_ptr() != tensor.data_ptr():
            copies.append(tensor.shape)
        return result

    monkeypatch.setattr(torch.Tensor, "contiguous", watched)
    spikes = module(current)
    assert not copies
    assert spikes.stride() == current.stride()
    assert module.state.v.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(spikes, expected)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casts_leave_the_fields_in_float32(cast):
    network = nn.Sequential(
        nn.Linear(4, 4), SignGDNeuron(("leaky_relu", torch.rand(4)), SCHEDULE, offset=torch.rand(4))
    )
    before = copy.deepcopy(network[1].state_dict())
    getattr(network, cast)()
    assert network[0].weight.dtype != torch.float32
    for name, value in network[1].state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    assert network[1]._eta.dtype == torch.float32


def test_a_cast_in_the_middle_of_a_train_changes_nothing():
    current = seeded(9, 2, 3, 5, 7)
    whole, cut = neuron(momentum=0.5), neuron(momentum=0.5)
    expected = whole(current)
    begin = cut(current[:4])
    assert torch.equal(torch.cat([begin, cut.half()(current[4:])]), expected)
    assert torch.equal(cut.state.x, whole.state.x)
    assert torch.equal(cut.state.v, whole.state.v)


def test_half_precision_networks_run():
    network = nn.Sequential(nn.Linear(4, 5), SignGDNeuron("relu", SCHEDULE), nn.Linear(5, 3)).half()
    out = network(seeded(9, 2, 4).half())
    assert out.dtype == torch.float16
    network.half()
    assert network[1].state.v.dtype == torch.float32


def test_state_dict_holds_parameters_and_not_the_train():
    module = neuron(("hardtanh", -1.0, seeded(7).abs()))
    module(seeded(9, 2, 3, 5, 7))
    saved = module.state_dict()
    assert sorted(saved) == ["bias", "max", "min", "offset", "scale", "v0"]
    fresh = SignGDNeuron("hardtanh", SCHEDULE)
    fresh.load_state_dict(saved)
    module.reset()
    current = seeded(9, 2, 3, 5, 7)
    assert torch.equal(fresh(current), module(current))
    assert fresh.offset.shape == (3, 1, 1)


def test_deepcopy_carries_the_train_on_apart():
    module, current = neuron(), seeded(19, 2, 3, 5, 7)
    module(current[:5])
    twin = copy.deepcopy(module)
    rest = module(current[5:])
    assert torch.equal(twin(current[5:]), rest)
    twin.reset()
    assert module.timestep == 19
    with torch.enable_grad():
        weighted = neuron()
        weighted(current * nn.Parameter(torch.ones(7)))
        copy.deepcopy(weighted)


class Network(nn.Module):
    def __init__(self, step_mode="m"):
        super().__init__()
        torch.manual_seed(0)
        self.step_mode = step_mode
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.first = SignGDNeuron("relu", SCHEDULE, step_mode=step_mode, offset=torch.rand(4, 1, 1))
        self.second = SignGDNeuron("gelu", SCHEDULE, step_mode=step_mode)
        self.head = nn.Linear(4 * 5 * 7, 2)

    def forward(self, x):
        lead = x.shape[:-3]
        current = self.conv(x.flatten(0, -4)).unflatten(0, lead)
        return self.head(self.second(2 * self.first(current)).flatten(-3))

    def reset(self):
        self.first.reset()
        self.second.reset()


@torch.no_grad()
def test_compile_whole_graph():
    network, x = Network(), seeded(9, 2, 3, 5, 7)
    expected, continued = network(x), network(x)
    network.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), expected)
    assert torch.equal(compiled(x), continued)
    assert network.first.timestep == 18
    network.reset()
    assert torch.equal(compiled(x), expected)


@torch.no_grad()
def test_compile_single_steps_without_compiling_every_one():
    network, x = Network("s"), seeded(33, 2, 3, 5, 7)
    expected = [network(step) for step in x]
    network.reset()
    graphs = []

    def counting(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(network, fullgraph=True, backend=counting)
    assert all(torch.equal(compiled(step), before) for step, before in zip(x, expected))
    assert len(graphs) <= 3


@torch.no_grad()
def test_export_runs_one_train_and_keeps_no_state():
    network, x = Network(), seeded(9, 2, 3, 5, 7)
    expected = network(x)
    program = torch.export.export(
        network, (x,), dynamic_shapes=({1: torch.export.Dim("batch", min=1, max=64)},)
    ).module()
    assert network.first.timestep == 9
    assert torch.equal(program(x), expected)
    assert torch.equal(program(x), expected)
    larger = seeded(9, 5, 3, 5, 7)
    network.reset()
    torch.testing.assert_close(program(larger), network(larger))


def test_a_longer_train_than_the_table_is_an_error():
    module = SignGDNeuron("relu", Constant(0.1), max_timesteps=10)
    with pytest.raises(ValueError, match="current: expected at most max_timesteps=10 steps, got 11"):
        module(torch.zeros(11, 1, 2))
    module(torch.zeros(6, 1, 2))
    module(torch.zeros(4, 1, 2))
    with pytest.raises(RuntimeError, match="max_timesteps: more than 10 steps since the last reset"):
        module(torch.zeros(1, 1, 2))


def test_a_table_lasts_as_long_as_it_is():
    module = SignGDNeuron("relu", Table((0.3, 0.2, 0.1)))
    current = seeded(3, 2, 4)
    wanted, _ = signgd(current, Table((0.3, 0.2, 0.1)).table(3), "relu")
    assert torch.equal(module(current), wanted.unpack())
    module.reset()
    with pytest.raises(ValueError, match="current: expected at most max_timesteps=3 steps, got 4"):
        module(seeded(4, 2, 4))


def test_single_steps_are_not_packed_afterwards():
    for module in (SignGDNeuron("relu", SCHEDULE, step_mode="s"), SignGDNeuron("relu", SCHEDULE)):
        module.step_mode = "s"
        with pytest.raises(ValueError, match="packed: a packed train needs step_mode 'm'"):
            module.packed = True
        module.step_mode = "m"
        module.packed = True
        assert isinstance(module(seeded(3, 2, 4)), SpikeTrain)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"activation": "swish"}, ValueError, "activation: expected one of"),
        ({"activation": "maximum"}, ValueError, "activation: expected one of"),
        ({"schedule": 0.1}, TypeError, "schedule: expected a snn_kernels.schedules.Schedule, got 0.1"),
        ({"schedule": Uniform()}, ValueError, r"schedule: expected step sizes that do not .*, got Uniform\(\)"),
        ({"backend": "nope"}, ValueError, "backend: expected None or one of cuda, triton, cpu, reference; got 'nope'"),
        ({"step_mode": "multi"}, ValueError, "step_mode: expected one of m, s; got 'multi'"),
        ({"scale": "1"}, TypeError, "scale: expected a number or a tensor, got str"),
        ({"offset": torch.zeros(2).half()}, TypeError, "offset: expected float32, got torch.float16"),
        ({"bias": None}, TypeError, "bias: expected a number"),
        ({"v0": torch.zeros(2).double()}, TypeError, "v0: expected float32"),
        ({"activation": ("leaky_relu", "x")}, TypeError, "slope: expected a number"),
        ({"packed": True, "step_mode": "s"}, ValueError, "packed: a packed train needs step_mode 'm'"),
        ({"max_timesteps": 0}, ValueError, "max_timesteps: expected an integer >= 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(wrong, error, message):
    with pytest.raises(error, match=f"^{message}"):
        SignGDNeuron(**{"activation": "relu", "schedule": SCHEDULE, **wrong})


def test_wrong_currents_are_named():
    module = SignGDNeuron("relu", SCHEDULE)
    with pytest.raises(ValueError, match=r"current: expected \[T, B, \*\] in step_mode 'm', got torch.float32 \(3,\)"):
        module(torch.zeros(3))
    with pytest.raises(TypeError, match="current: expected a float32, float16 or bfloat16 tensor"):
        module(torch.zeros(3, 2, dtype=torch.int32))
    module(torch.zeros(3, 1, 5))
    with pytest.raises(ValueError, match=r"current: expected a population of shape \(1, 5\).*reset\(\)"):
        module(torch.zeros(3, 2, 5))
    with pytest.raises(ValueError, match="backend: 'cuda' cannot run"):
        SignGDNeuron("relu", SCHEDULE, backend="cuda")(torch.zeros(3, 1, 5))
    with pytest.raises(ValueError, match="step_mode"):
        module.step_mode = "x"


def test_repr_says_what_it_is():
    assert repr(SignGDNeuron("relu", Constant(0.1))) == "SignGDNeuron('relu', Constant(lr=0.1), step_mode='m')"


def test_it_is_made_on_the_default_device():
    with torch.device("meta"):
        made = SignGDNeuron("relu", SCHEDULE)
    assert {buffer.device.type for buffer in made.buffers()} == {"meta"}
