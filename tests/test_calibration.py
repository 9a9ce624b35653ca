"""calibrate_offsets: L(1) + L(0) and L(v0), measured in networks that users write."""

import pytest
import torch
from torch import nn

from snn_kernels import SignGDNeuron, SpikeTrain, calibrate_offsets, spike_linear
from snn_kernels.schedules import Exponential

SCHEDULE = Exponential(0.15, 0.95)


def neuron(**arguments) -> SignGDNeuron:
    return SignGDNeuron("relu", SCHEDULE, **arguments)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Two sums in another order: a few roundings of float32."""
    torch.testing.assert_close(actual.expand_as(expected), expected, rtol=1e-5, atol=1e-5)


class Residual(nn.Module):
    """Convolutions with padding, a shared input, batch norm, and a scale that the network itself applies."""

    def __init__(self, step_mode="m", **arguments):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.first = neuron(step_mode=step_mode, scale=torch.rand(3, 1, 1) + 0.5, **arguments)
        self.second, self.third = neuron(step_mode=step_mode), neuron(step_mode=step_mode)
        self.head = nn.Linear(3, 2)

    def forward(self, spikes):
        lead = spikes.shape[:-3]
        first = self.first.scale * self.first(self.a(spikes.flatten(0, -4)).unflatten(0, lead))
        inner = self.second(self.norm(self.b(first.flatten(0, -4))).unflatten(0, lead))
        return self.head(self.third(inner + first).mean((-1, -2)))


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_offsets_and_biases_are_those_of_the_maps(step_mode):
    network = Residual(step_mode)
    sample = torch.randn(*([4] if step_mode == "m" else []), 3, 2, 5, 7)
    calibrate_offsets(network, sample)
    network.eval()
    with torch.no_grad():
        scale = network.first.scale.expand(3, 5, 7)
        zeros, ones = torch.zeros(1, 3, 5, 7), torch.ones(1, 3, 5, 7)
        first = [network.a(torch.full((1, 2, 5, 7), value))[0] for value in (1.0, 0.0)]
        second = [network.norm(network.b(scale * field))[0] for field in (ones, zeros)]
        close(network.first.offset, first[0] + first[1])
        close(network.first.bias, first[1])
        close(network.second.offset, second[0] + second[1])
        close(network.second.bias, second[1])
        close(network.third.offset, 1 + scale)
        close(network.third.bias, torch.zeros(3, 5, 7))


def test_a_calibrated_network_computes_what_the_ann_does():
    """End to end: the decoded output of a spiking MLP is the ANN's, for an input that an encoder spikes."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    readout = SignGDNeuron("identity", SCHEDULE)
    encoder = SignGDNeuron("identity", SCHEDULE)
    snn = nn.Sequential(ann[0], neuron(), ann[2], neuron(), ann[4], readout)
    x, timesteps = torch.randn(5, 6) * 0.5, 128
    # The encoder's decoded input rests at x: its bias, with currents that move nothing.
    encoder.bias, encoder.offset = x, torch.zeros(())
    with torch.no_grad():
        spikes = encoder(torch.zeros(timesteps, 5, 6))
        calibrate_offsets(snn, spikes)
        snn(spikes)
        # x of the readout is the last map of the hidden neurons' estimates; 0.05 is what 128 steps of this table leave.
        assert (readout.state.x - ann(x)).abs().max() < 0.05


class Doubled(nn.Module):
    """The network's own share of ``scale=2``."""

    def forward(self, spikes):
        return 2 * spikes


def test_resting_estimates_are_fed_through():
    """x starts at L(v0): with v0 = scale * s it is what the network makes of s."""
    torch.manual_seed(0)
    v0 = torch.tensor([0.5, 0.0, -1.0, 2.0])
    network = nn.Sequential(neuron(v0=v0, scale=2.0), Doubled(), nn.Linear(4, 3), neuron())
    calibrate_offsets(network, torch.zeros(2, 1, 4))
    with torch.no_grad():
        close(network[3].bias, network[2](v0))
        close(network[3].offset, network[2](torch.full((4,), 2.0)) + network[2](torch.zeros(4)))


class Packed(nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.first, self.second = neuron(packed=True, **arguments), neuron()

    def forward(self, x):
        train = self.first(x)
        assert isinstance(train, SpikeTrain)
        return self.second(spike_linear(train, self.layer.weight, self.layer.bias))


def test_packed_neurons():
    network = Packed()
    calibrate_offsets(network, torch.randn(9, 2, 4))
    with torch.no_grad():
        close(network.second.offset, network.layer(torch.ones(4)) + network.layer(torch.zeros(4)))
        close(network.second.bias, network.layer(torch.zeros(4)))
    with pytest.raises(ValueError, match="first: a packed neuron emits spikes only"):
        calibrate_offsets(Packed(v0=1.0), torch.randn(9, 2, 4))


def test_samples_may_be_tuples_and_mappings():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = neuron()

        def forward(self, a, b, index):
            return self.neuron(a + 2 * b)[..., index]

    for sample in (
        (torch.randn(2, 1, 3), torch.randn(2, 1, 3), torch.tensor([2])),
        {"a": torch.randn(2, 1, 3), "b": torch.randn(2, 1, 3), "index": torch.tensor([2])},
    ):
        network = TwoInputs()
        calibrate_offsets(network, sample)
        assert torch.equal(network.neuron.offset, torch.full((3,), 3.0))
        assert torch.equal(network.neuron.bias, torch.zeros(3))


def test_the_network_is_left_as_it_was():
    network = Residual()
    network.norm.eval()
    before = {name: tensor.clone() for name, tensor in network.norm.state_dict().items()}
    calibrate_offsets(network, torch.randn(2, 3, 2, 5, 7))
    assert network.training
    assert network.a.training
    assert not network.norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.norm.state_dict().items())
    assert network.first.state is None
    assert network.first.timestep == 0
    network(torch.rand(2, 3, 2, 5, 7))
    assert network.first.timestep == 2


def test_half_precision_networks_are_measured_in_their_own():
    network = nn.Sequential(nn.Linear(4, 3), neuron()).half()
    calibrate_offsets(network, torch.zeros(2, 1, 4).half())
    assert network[1].offset.dtype == torch.float32
    expected = network[0].weight.float().sum(1) + 2 * network[0].bias.float()
    torch.testing.assert_close(network[1].offset, expected, rtol=1e-2, atol=1e-2)


def test_offsets_survive_saving():
    network, fresh = Residual(), Residual()
    calibrate_offsets(network, torch.randn(2, 3, 2, 5, 7))
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh.second.offset, network.second.offset)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.neuron = neuron()

    def forward(self, x):
        return self.neuron(2 * self.neuron(x))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(4, 4), "module: expected a network with at least one SignGDNeuron"),
        (Shared(), "neuron: is called more than once"),
        (nn.Sequential(neuron(), nn.Tanh(), neuron()), None),
        (nn.Sequential(neuron(), nn.Linear(4, 4), nn.LayerNorm(4), neuron()), "3: its current is no affine function"),
        (
            nn.Sequential(neuron(), nn.Unflatten(-1, (1, 4)), nn.MaxPool2d((1, 2)), neuron()),
            "3: its current is no affine",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(network, message):
    sample = torch.zeros(2, 1, 4)
    if message is None:  # tanh of one neuron is an affine function of a spike
        return calibrate_offsets(network, sample)
    with pytest.raises(ValueError, match=f"^{message}"):
        calibrate_offsets(network, sample)
    for module in network.modules():
        if isinstance(module, SignGDNeuron):
            assert module._probe is None
    return None


def test_currents_that_differ_between_samples_are_said():
    class Ramp(nn.Module):
        def forward(self, spikes):
            return spikes * torch.arange(2.0).reshape(2, 1, 1)

    with pytest.raises(ValueError, match="2: its current differs between steps or samples"):
        calibrate_offsets(nn.Sequential(neuron(), Ramp(), neuron()), torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="sample: gives 0 currents of shape"):
        calibrate_offsets(nn.Sequential(neuron()), torch.zeros(0, 1, 4))
