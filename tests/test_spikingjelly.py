"""SpikingJelly's own functions on a network with signGD neurons."""

import copy

import pytest
import torch
from torch import nn

from signgd_helpers import seeded
from snn_kernels import SignGDNeuron as PlainNeuron
from snn_kernels.schedules import Exponential

pytest.importorskip(
    "spikingjelly", reason="spikingjelly is not installed (the extra 'spikingjelly')", exc_type=ImportError
)

from spikingjelly.activation_based import base, functional, layer

from snn_kernels.spikingjelly import SignGDNeuron, set_backend

SCHEDULE = Exponential()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(layer.Linear(6, 8), SignGDNeuron("relu", SCHEDULE)),
        *(layer.Linear(8, 5), SignGDNeuron("gelu", SCHEDULE, scale=2.0)),
    )
    functional.set_step_mode(net, "m")
    return net.requires_grad_(False)


def test_it_is_a_memory_module_and_spikes_as_the_plain_one():
    module, plain = SignGDNeuron("gelu", SCHEDULE, offset=0.3), PlainNeuron("gelu", SCHEDULE, offset=0.3)
    assert isinstance(module, base.MemoryModule)
    current = seeded(9, 2, 5)
    assert torch.equal(module(current), plain(current))
    assert module.state_dict().keys() == plain.state_dict().keys()


@pytest.fixture
def warnings_of_spikingjelly(monkeypatch):
    from spikingjelly.activation_based.functional import net_config

    messages = []
    monkeypatch.setattr(net_config.logger, "warning", lambda *arguments: messages.append(arguments))
    return messages


def test_reset_net_and_set_step_mode(warnings_of_spikingjelly):
    net, x = network(), seeded(9, 2, 6)
    expected = net(x)
    assert not torch.equal(net(x), expected)
    functional.reset_net(net)
    assert net[1].timestep == 0
    functional.set_step_mode(net, "s")
    assert net[1].step_mode == net[3].step_mode == "s"
    assert torch.equal(torch.stack([net(step) for step in x]), expected)
    functional.reset_net(net)
    functional.set_step_mode(net, "m")
    assert torch.equal(net(x), expected)
    functional.detach_net(net)
    assert not warnings_of_spikingjelly
    with pytest.raises(ValueError, match="step_mode"):
        functional.set_step_mode(net, "x")


def test_set_backend():
    net, x = network(), seeded(9, 2, 6)
    outputs = []
    for backend in ("cpu", None):
        set_backend(net, backend)
        assert net[1].backend == net[3].backend == backend
        functional.reset_net(net)
        outputs.append(net(x))
    assert torch.equal(*outputs)
    assert "cpu" in net[1].supported_backends
    with pytest.raises(ValueError, match="backend: 'gpu' cannot run: there is none of that name"):
        set_backend(net, "gpu")
    assert net[1].backend is None


def test_casts_and_copies():
    net, x = network(), seeded(9, 2, 6)
    expected = net(x)
    twin = copy.deepcopy(net).double().float()
    functional.reset_net(twin)
    assert twin[3].scale.dtype == torch.float32
    assert torch.equal(twin(x), expected)
    half = copy.deepcopy(net).half()
    functional.reset_net(half)
    assert half(x.half()).dtype == torch.float16
    assert half[3].scale.dtype == torch.float32
