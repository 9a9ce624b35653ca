"""Trains stay packed between the layers of a converted network, and the spikes are the same as without that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import images
from snn_convert import amplitudes, convert, engine, packed
from snn_kernels import _C, SpikeTrain
from snn_kernels.schedules import Exponential
from witness import witnessed

vectors = pytest.mark.skipif(_C.isa == "portable", reason="packed products are used with AVX-512 and AVX2")


class Wide(nn.Module):
    """Convolutions and linear maps behind neurons, directly and through reshapes, one of them with two users."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20, 24, 3, stride=2, padding=1)
        self.hidden, self.gate = nn.Linear(24 * 16, 33), nn.Linear(33, 33)
        self.head = nn.Linear(33, 17)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        x = torch.nn.functional.gelu(self.hidden(x.transpose(1, 2).transpose(1, 2).flatten(1)))
        y = self.gate(x)
        return self.head(torch.relu(y) + y)


def converted(**options):
    torch.manual_seed(0)
    model = Wide().eval()
    return model, convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9), **options)


def assert_agrees_with_the_oracle(snn, model, x, steps, normalisation="decomposed"):
    for output, wanted in zip(*witnessed(model, x, snn, steps, normalisation)):
        assert (output - wanted).norm() <= 1e-6 * wanted.norm()  # a few float32 roundings


@vectors
def test_products_are_taken_from_packed_trains():
    model, snn = converted()
    by_target = [str(node.target) for node in snn.engine.amplitudes]
    assert by_target == ["aten.conv2d.default", "aten.linear.default", "aten.linear.default"]
    assert_agrees_with_the_oracle(snn, model, images(5), [7, 20])


@vectors
def test_packed_and_dense_products_agree(monkeypatch):
    _, snn = converted()
    x = images(5)
    output = snn(x)
    monkeypatch.setattr(amplitudes, "PRODUCTS", {})
    _, dense = converted()
    assert snn.engine.amplitudes
    assert not dense.engine.amplitudes
    assert (output - dense(x)).norm() <= 1e-3 * output.norm()


@vectors
def test_currents_of_fused_layers_never_exist(monkeypatch):
    """Only the product with two users, and no other, is ever taken apart from its neurons."""
    _, snn = converted()
    taken = []
    original = packed.Product.dense
    monkeypatch.setattr(packed.Product, "dense", lambda self: taken.append(self.weight.shape) or original(self))
    snn(images(5))
    assert set(taken) <= {(33, 33)}


class Branches(nn.Module):
    """Joined branches, a padded pool, and products of populations, one of which is broadcast."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(1, 10, 3, padding=1)
        self.joined, self.gate = nn.Conv2d(16, 20, 3, padding=1), nn.Linear(20, 20)
        self.pool, self.head = nn.MaxPool2d(3, 2, 1), nn.Linear(20 * 16, 5)

    def forward(self, x):
        x = torch.cat([torch.relu(self.left(x)), torch.nn.functional.silu(self.right(x))], 1)
        x = self.pool(torch.relu(self.joined(x)))
        gate = torch.sigmoid(self.gate(x.mean((2, 3))))
        return self.head((x * gate[:, :, None, None]).flatten(1))


@vectors
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_neurons_read_the_trains_of_others(recipe, monkeypatch):
    torch.manual_seed(0)
    model, x = Branches().eval(), images(5)
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9), recipe=recipe)
    joined = [str(node.target) for node in snn.engine.amplitudes]
    assert joined.count("aten.conv2d.default") == 1
    assert_agrees_with_the_oracle(snn, model, x, [7, 20])
    unpacked, original = [], packed.Emission.dense
    monkeypatch.setattr(packed.Emission, "dense", lambda self: unpacked.append(self.train.shape) or original(self))
    output = snn(x)
    assert set(unpacked) == {(5, 20, 4, 4)}  # what the mean is taken of
    monkeypatch.setattr("snn_convert.population.as_received", lambda current: (packed.as_dense(current), None))
    assert torch.equal(output, snn(x))


class Shortcuts(nn.Module):
    """Residual sums of a product and a train, of two products, and of a product that is read twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 20, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1)
        self.second, self.across = nn.Conv2d(20, 24, 3, 2, 1), nn.Conv2d(20, 24, 1, 2)
        self.third, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.first(x) + x)
        x = torch.relu(self.across(x) + self.second(x))
        y = self.third(x)
        x = torch.relu(torch.relu(y) + y + x)
        return self.head(x.mean((2, 3)))


@vectors
def test_depthwise_convolutions_read_trains():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU(), nn.Conv2d(12, 6, 1)]
    model, x = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval(), images(5)
    model(x)
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9))
    assert sum("conv2d" in str(node.target) for node in snn.engine.amplitudes) == 2
    assert_agrees_with_the_oracle(snn, model, x, [12])


@pytest.fixture
def fused(monkeypatch) -> list[packed.Product]:
    """The products that are taken with the neurons behind them, eight steps at a time."""
    taken, original = [], packed.Product.fires
    monkeypatch.setattr("snn_convert.run.SAMPLE_STEPS", 0)
    monkeypatch.setattr(packed.Product, "fires", lambda self, *a, **k: taken.append(self) or original(self, *a, **k))
    return taken


@vectors
def test_residual_sums_are_part_of_the_fused_op(fused):
    torch.manual_seed(0)
    model, x = Shortcuts().eval(), images(5)
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9))
    snn(x)
    with_residuals = [product for product in fused if product.residual is not None]
    assert len(with_residuals) == 2 * 3  # the first two sums, in three rounds of at most eight steps
    assert_agrees_with_the_oracle(snn, model, x, [20])


class Projecting(nn.Module):
    """Linear maps of tokens and a shortcut that projects them."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(8, 20), nn.Linear(20, 30), nn.Linear(30, 24)
        self.across, self.head = nn.Linear(20, 24, bias=False), nn.Linear(24, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x.squeeze(1)))
        y = self.second(torch.relu(self.first(x)))
        return self.head(torch.relu(y + self.across(x)).mean(1))


@vectors
@pytest.mark.parametrize("network", [Shortcuts, Projecting])
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_shortcuts_that_project_are_part_of_the_fused_op(monkeypatch, fused, network, recipe):
    torch.manual_seed(0)
    model, x = network().eval(), images(5)  # steps enough, in both rounds, for the tables of the paper's scales
    snn = convert(model, [images(16, seed=2)], timesteps=16, schedule=Exponential(0.3, 0.9), recipe=recipe)
    dense, original = [], packed.Product.dense
    monkeypatch.setattr(packed.Product, "dense", lambda self: dense.append(self.weight.shape[:2]) or original(self))
    fused.clear()
    snn(x)
    projections = [p.residual.weight.shape[:2] for p in fused if isinstance(p.residual, packed.Product)]
    assert projections == 2 * [(24, 20)]
    assert (24, 20) not in dense
    assert_agrees_with_the_oracle(snn, model, x, [5, 16])


@vectors
def test_biases_of_both_products_are_added_in_float32(monkeypatch):
    """An error of theirs would act at every step in the same direction."""
    torch.manual_seed(0)
    snn = convert(Shortcuts().eval(), [images(16, seed=2)], timesteps=8, schedule=Exponential(0.3, 0.9)).bfloat16()
    fused, biases = packed.spike_conv2d_signgd, []

    def recorded(train, weight, bias, *rest, **options):
        if options.get("residual_weight") is not None:
            biases.append(bias)
        return fused(train, weight, bias, *rest, **options)

    monkeypatch.setattr(packed, "spike_conv2d_signgd", recorded)
    snn(images(5).bfloat16())
    named = dict(snn.network.named_parameters())
    wanted = sum(bias.float() for name, bias in named.items() if name in ("across.bias", "second.bias"))
    assert torch.equal(biases[0], wanted)


class Mixer(nn.Module):
    """Residual sums of a train that has changed its layout, of a scaled train, and along another dimension."""

    def __init__(self):
        super().__init__()
        self.stem, self.tokens = nn.Conv2d(1, 20, 4, 4), nn.Linear(4, 4)
        self.features, self.again, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        x = torch.relu(self.features(x) + x)
        x = torch.relu(0.5 * x + self.again(x)).transpose(1, 2)
        x = torch.relu(x + self.tokens(x))
        return self.head(x.mean(1))


def steps_of(model: nn.Module, x: torch.Tensor, **options) -> list[torch.Tensor]:
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9), **options)
    return snn.outputs_at(x, steps=[3, 8, 20])


@vectors
@pytest.mark.parametrize("network", [Shortcuts, Mixer])
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_a_residual_train_gives_the_bits_of_its_currents(monkeypatch, fused, network, recipe):
    torch.manual_seed(0)
    model, x = network().eval(), images(5)
    outputs = steps_of(model, x, recipe=recipe)
    # In four rounds, of which three have steps enough for the tables of the paper's scales, one a neuron.
    sums = {Shortcuts: 1, Mixer: 2}[network]
    packed_residuals = sum(product.residual_amplitude is not None for product in fused)
    assert packed_residuals == (4 * sums if recipe == "default" else 3 * sums)
    monkeypatch.setattr(amplitudes, "_amplitude_in_sum", lambda *_: None)
    fused.clear()
    for output, dense in zip(outputs, steps_of(model, x, recipe=recipe)):
        assert torch.equal(output, dense)
    assert all(product.residual_amplitude is None for product in fused)


@vectors
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_residuals_in_half_precision(precision):
    """A scaled train is a current of that precision, the product it is added to is float32."""
    torch.manual_seed(0)
    model, x = Mixer().eval(), images(5)
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9))
    wanted = snn(x)
    output = snn.to(precision)(x.to(precision))
    assert output.dtype == precision
    assert (output.float() - wanted).norm() <= 0.1 * wanted.norm()


@vectors
def test_tokens_are_mixed_from_packed_trains():
    """Behind a transposition the scale of a feature is that of a row."""
    torch.manual_seed(0)
    model, x = Mixer().eval(), images(5)
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9))
    (mixing,) = (node for node in snn.engine.nodes if "tokens_weight" in map(str, node.all_input_nodes))
    name = next(name for node, name in snn.engine.amplitudes.items() if node is mixing)
    assert getattr(snn.engine.network, name).shape == (1, 20, 1)
    assert_agrees_with_the_oracle(snn, model, x, [20])


@vectors
@pytest.mark.parametrize("batch", [1, 8])
def test_scales_of_neurons_reach_the_products(fused, batch):
    """The paper's scales differ from position to position. Enough samples share the tables that are made of them."""
    torch.manual_seed(0)
    model = Shortcuts().eval()
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9), recipe="paper")
    amplitudes = [getattr(snn.engine.network, name) for name in snn.engine.amplitudes.values()]
    assert any(amplitude.ndim == 4 for amplitude in amplitudes)
    fused.clear()
    assert_agrees_with_the_oracle(snn, model, images(batch), [12])
    assert any(product.amplitude.ndim == 4 for product in fused) == (batch == 8)


def test_common_amplitude():
    scale = torch.rand(1, 4, 1, 1).expand(2, 4, 3, 3)
    assert torch.equal(amplitudes.common_amplitude(scale, 1), scale[0, :, 0, 0])
    assert amplitudes.common_amplitude(scale, -1) is None
    assert amplitudes.common_amplitude(torch.rand(2, 4), -1) is None


class Attending(nn.Module):
    """Attention of eight tokens, with a mask of the model's own, or written out with a factor behind the product."""

    def __init__(self, keep: torch.Tensor | None = None, factor: float | None = None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(8, 12), nn.Linear(6, 4)
        self.q, self.k, self.v = (nn.Linear(12, 6) for _ in range(3))
        self.register_buffer("keep", keep)
        self.factor = factor

    def forward(self, x):
        x = torch.nn.functional.gelu(self.first(x.squeeze(1)))
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.factor is not None:
            return self.head(torch.softmax(q @ k.transpose(-2, -1) * self.factor, -1) @ v)
        mask = None if self.keep is None else self.keep.expand(x.shape[0], -1, -1)
        return self.head(torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def attending(**options):
    model = Attending(**options).eval()
    snn = convert(model, [images(16, seed=2)], timesteps=20, schedule=Exponential(0.3, 0.9))
    torch.testing.assert_close(snn.network(images(5))[0], model(images(5)), rtol=0, atol=1e-5)
    return model, snn, [str(node.target) for node in snn.engine.nodes]


@vectors
def test_attention_unpacks_no_train(monkeypatch):
    """Softmax reads the train of the scores, the second product that of the weights; the queries' factor is in their
    weights."""
    model, snn, operations = attending()
    assert "aten.mul.Tensor" not in operations
    assert_agrees_with_the_oracle(snn, model, images(5), [7, 20], "vector")
    monkeypatch.setattr(SpikeTrain, "unpack", None)
    snn(images(5))


@pytest.mark.parametrize("masks", [False, True])
def test_a_mask_that_masks_nothing_is_left_out(masks):
    keep = torch.ones(1, 8, 8, dtype=torch.bool)
    keep[..., 5:] = not masks
    model, snn, _ = attending(keep=keep)
    activations = [population.activation for _, population in snn.populations()]
    assert ("masked_softmax" in activations) == masks
    assert_agrees_with_the_oracle(snn, model, images(5), [7, 20], "vector")


def test_a_factor_of_a_train_is_in_what_its_spikes_are_worth(monkeypatch):
    model, snn, operations = attending(factor=0.3)
    assert "aten.mul.Tensor" in operations
    assert_agrees_with_the_oracle(snn, model, images(5), [7, 20], "vector")
    output = snn(images(5))
    monkeypatch.setattr(packed.Emission, "times", lambda *_: None)
    assert torch.equal(snn(images(5)), output)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [None, 0.3])
def test_attention_in_half_precision(factor, precision):
    """What a spike is worth stays float32, whatever was computed of it in the network's precision."""
    _, snn, _ = attending(factor=factor)
    x = images(5)
    wanted = snn(x)
    output = snn.to(precision)(x.to(precision))
    assert output.dtype == precision
    assert (output.float() - wanted).norm() <= 0.1 * wanted.norm()


class Shifted(nn.Module):
    """A factor and a constant of the network's own behind neurons, or a number in its code."""

    def __init__(self, number: bool):
        super().__init__()
        self.number, self.stem, self.head = number, nn.Linear(8, 20), nn.Linear(20, 3)
        self.gamma, self.beta = nn.Parameter(torch.rand(20) + 0.5), nn.Parameter(torch.randn(20))

    def forward(self, x):
        x = torch.relu(self.stem(x.squeeze(1)))
        return torch.relu(self.head(x + 1 if self.number else x * self.gamma + self.beta))


@vectors
@pytest.mark.parametrize("number", [False, True])
def test_a_factor_and_a_constant_leave_a_train_packed(number):
    torch.manual_seed(0)
    model = Shifted(number).eval()
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9))
    amplitudes = [getattr(snn.engine.network, name) for name in snn.engine.amplitudes.values()]
    assert len(amplitudes) == (0 if number else 1)
    if not number:
        scale = snn.engine.population(snn.engine.neurons[0]).scale
        torch.testing.assert_close(amplitudes[0], (scale * model.gamma).flatten())
    assert_agrees_with_the_oracle(snn, model, images(5), [12])


class Positioned(nn.Module):
    """Constants of the network's own behind maps: of one that a neuron alone reads, and of one with another user."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(8, 20), nn.Linear(20, 21), nn.Linear(20, 22)
        self.positions, self.beta = nn.Parameter(torch.randn(8, 21)), nn.Parameter(torch.randn(22))

    def forward(self, x):
        x = torch.relu(self.stem(x.squeeze(1)))
        y = self.head(x)
        return (
            torch.relu(self.body(x) + self.positions).sum(-1, keepdim=True)
            + torch.relu(y + self.beta) * y.new_ones(22)
            + y
        )


@vectors
def test_a_constant_leaves_currents_as_they_are(monkeypatch):
    """What is added to a product is no pass over its currents, and none of its own where they never exist."""
    torch.manual_seed(0)
    model = Positioned().eval()
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9))
    assert_agrees_with_the_oracle(snn, model, images(5), [12])
    taken, added = [], []
    original, call = packed.Product.dense, engine.call_node
    monkeypatch.setattr(packed.Product, "dense", lambda self: taken.append(len(self.weight)) or original(self))
    monkeypatch.setattr(engine, "call_node", lambda node, *rest: added.append(node.target) or call(node, *rest))
    run = snn.start(images(5))
    added.clear()
    run.advance_to(12)
    assert set(taken) == {22}
    assert torch.ops.aten.add.Tensor not in added


class Windows(nn.Module):
    """Rows of an image as samples of their own, and tokens mixed among them."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x)).transpose(1, 2).flatten(0, 1)
        x = torch.relu(self.mix(x)).unflatten(0, (-1, 8))
        return self.head(x.mean((1, 2)))


@vectors
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_dimensions_that_samples_share_with_others_have_no_scales_of_rows(recipe):
    torch.manual_seed(0)
    model = Windows().eval()
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9), recipe=recipe)
    assert_agrees_with_the_oracle(snn, model, images(5), [12])
