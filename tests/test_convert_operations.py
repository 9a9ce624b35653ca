"""Every operation the converter knows, inside a network, against the value-domain oracle."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import images, randomise_batch_norm
from oracle import oracle_outputs
from snn_convert import UnsupportedOperation, convert
from snn_kernels.schedules import Exponential


class Applied(nn.Module):
    """Two linear maps with a function of the activations between."""

    def __init__(self, function, width=12, out=4):
        super().__init__()
        self.function = function
        self.first, self.second = nn.Linear(6, width), nn.LazyLinear(out)

    def forward(self, x):
        return self.second(self.function(self.first(x)))


ACTIVATIONS = {
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "clamp": lambda x: torch.clamp(x, -0.2, 0.4),
    "clamp_min": lambda x: torch.clamp(x, min=0.1),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7),
    "celu": lambda x: F.celu(x, 0.7),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "abs": torch.abs,
    "square": torch.square,
    "pow": lambda x: torch.pow(torch.abs(x) + 1, 1.5),
    "sqrt": lambda x: torch.sqrt(torch.abs(x) + 1),
    "rsqrt": lambda x: torch.rsqrt(torch.abs(x) + 1),
    "reciprocal": lambda x: torch.reciprocal(torch.abs(x) + 1),
    "log": lambda x: torch.log(torch.abs(x) + 1),
    "quotient": lambda x: F.gelu(x) / (torch.abs(x) + 1),
    "product": lambda x: F.gelu(x) * torch.sigmoid(x),
    "maximum": lambda x: torch.maximum(F.relu(x), torch.tanh(x)),
    "minimum": lambda x: torch.minimum(F.relu(x), torch.tanh(x)),
}

AFFINE = {
    "add with a factor": lambda x: torch.add(F.relu(x), x, alpha=0.5),
    "subtract": lambda x: 1 - F.relu(x) - 0.5 * x,
    "divide by a number": lambda x: F.relu(x) / 3 + 1,
    "negative": lambda x: -F.relu(x),
    "concatenate": lambda x: torch.cat([F.relu(x), x, torch.tanh(x)], 1),
    "stack and mean": lambda x: torch.stack([F.relu(x), torch.tanh(x)], 1).mean(1),
    "view": lambda x: F.relu(x).view(x.size(0), 3, 4).transpose(1, 2).reshape(x.size(0), -1),
    "permute": lambda x: F.relu(x).reshape(-1, 3, 4).permute(0, 2, 1).flatten(1),
    "chunk": lambda x: sum(c * k for k, c in enumerate(F.relu(x).chunk(3, 1), 1)),
    "split": lambda x: torch.cat(F.relu(x).split([4, 8], 1)[::-1], 1),
    "slice": lambda x: F.relu(x)[:, 2:9:2],
    "select": lambda x: F.relu(x).reshape(-1, 3, 4)[:, 1],
    "roll": lambda x: F.relu(x).roll(2, 1),
    "flip": lambda x: F.relu(x).flip(1),
    "sum": lambda x: F.relu(x).reshape(-1, 3, 4).sum(1),
    "pad": lambda x: F.pad(F.relu(x), (1, 2), value=0.3),
    "expand": lambda x: F.relu(x).unsqueeze(2).expand(-1, -1, 2).flatten(1),
    "squeeze": lambda x: F.relu(x).unsqueeze(1).squeeze(1),
    "matmul": lambda x: F.relu(x) @ torch.linspace(-1, 1, 60).reshape(12, 5),
    "the input again": lambda x: F.relu(x) + 2 * x,
}


def check(model, x, tolerance):
    with torch.no_grad():
        model(x)
    model.eval()
    snn = convert(model, [x], timesteps=40, schedule=Exponential(0.4, 0.9))
    steps = [1, 9, 40]
    for output, wanted in zip(snn.outputs_at(x, steps=steps), oracle_outputs(model, x, snn, steps)):
        assert torch.isfinite(output).all()
        assert (output - wanted).norm() <= tolerance * wanted.norm()
    with torch.no_grad():
        target = model(x)
    assert (output - target).norm() < 0.2 * target.norm()  # and it is the ANN that is approached


@pytest.mark.parametrize("name", [*ACTIVATIONS, *AFFINE])
def test_function(name):
    torch.manual_seed(0)
    # Transcendental functions differ by a few ulps from PyTorch's, so a neuron at its target may decide otherwise.
    check(Applied({**ACTIVATIONS, **AFFINE}[name]), torch.randn(16, 6), 2e-3)


MATRICES = (-1, 3, 4)


def grouped_heads(x):
    """Four heads of queries, two of keys and values."""
    keys, values = torch.tanh(x).reshape(-1, 2, 2, 3).unbind(1)
    keys, values = (y.reshape(-1, 2, 3, 1) for y in (keys, values))
    return F.scaled_dot_product_attention(x.reshape(-1, 4, 3, 1), keys, values, enable_gqa=True).flatten(1)


COMPOSED = {
    # Other names, and what PyTorch defines by other operations.
    "multiply": lambda x: torch.multiply(F.relu(x), x),
    "divide": lambda x: torch.divide(x, x.abs() + 1),
    "concat and tile": lambda x: torch.concat([x, F.relu(x)], 1).tile(1, 2),
    "rsub": lambda x: torch.rsub(F.relu(x), x),
    "lerp": lambda x: torch.lerp(x, F.relu(x), 0.3),
    "tensordot": lambda x: torch.tensordot(F.relu(x).reshape(MATRICES), torch.ones(4, 5), 1).flatten(1),
    "triangle": lambda x: torch.tril(F.relu(x).reshape(MATRICES)).flatten(1),
    "differences": lambda x: torch.diff(F.relu(x)),
    "addcmul": lambda x: torch.addcmul(x, F.relu(x), torch.sigmoid(x), value=0.5),
    "a constant over an activation": lambda x: torch.linspace(0.5, 1.5, 12) / (x.abs() + 1),
    "cosine similarity": lambda x: F.cosine_similarity(x.reshape(MATRICES), F.relu(x).reshape(MATRICES) + 0.5, dim=2),
    "variance, not corrected": lambda x: torch.var(x.reshape(MATRICES), 2, correction=0),
    "deviation, not corrected": lambda x: torch.std(x.reshape(MATRICES), 2, unbiased=False),
    "deviation, corrected": lambda x: torch.std(x.reshape(MATRICES), 2),
    "variance and mean": lambda x: torch.cat(torch.var_mean(x.reshape(MATRICES), 2), 1),
    "variance and mean, kept": lambda x: torch.cat(torch.var_mean(x, 1, correction=0, keepdim=True), 1),
    "distance": lambda x: F.pairwise_distance(x.reshape(MATRICES), F.relu(x).reshape(MATRICES) + 1),
    "instance norm": lambda x: F.instance_norm(x.reshape(MATRICES), eps=1e-2).flatten(1),
    "attention of grouped heads": grouped_heads,
    # Affine.
    "diagonal": lambda x: torch.diagonal(F.relu(x).reshape(MATRICES), dim1=1, dim2=2),
    "fold": lambda x: F.fold(F.relu(x).reshape(-1, 4, 3), (1, 6), (1, 4)).flatten(1),
    "index_add": lambda x: torch.zeros_like(x).index_add(1, torch.arange(11, -1, -1), F.relu(x)),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, torch.arange(12).expand(x.shape) // 3, F.relu(x)),
    "Fourier transform": lambda x: torch.fft.fft(F.relu(x)).real,
    "global filter": lambda x: torch.fft.irfft(
        torch.fft.rfft(F.relu(x)) * torch.polar(torch.ones(7), torch.arange(7.0))
    ),
    # Rewritten.
    "largest of four": lambda x: x.reshape(MATRICES).max(2).values,
    "largest of five": lambda x: torch.amax(x[:, :10].reshape(-1, 2, 5), -1, keepdim=True).flatten(1),
    "largest of both dimensions": lambda x: torch.amax(x.reshape(-1, 2, 3, 2), (1, 3)),
    "smallest": lambda x: torch.amin(x.reshape(MATRICES), 1),
    "product of two": lambda x: x.reshape(-1, 6, 2).prod(2),
    "logsumexp": lambda x: torch.logsumexp(x.reshape(MATRICES), 2),
    "expm1 and log1p": lambda x: torch.expm1(x) - torch.log1p(x.abs()),
    # Whose inputs are 0 often, and when they are decoded as often below 0.
    "roots of rectified values": lambda x: torch.sqrt(F.relu(x) + 1e-6) + F.relu(x) ** 1.5,
    "norms of what is silent": lambda x: F.relu(x - 1).reshape(MATRICES).norm(dim=2),
    "powers of 2 and 3": lambda x: torch.exp2(x) + 3**x,
    "logarithms": lambda x: torch.log2(x.abs() + 1) + torch.log10(x.abs() + 1),
    "clamp between tensors": lambda x: torch.clamp(x, torch.linspace(-1, 0, 12), torch.linspace(0.1, 1, 12)),
    "attention of one tensor": lambda x: F.scaled_dot_product_attention(*3 * [x.reshape(MATRICES)]).flatten(1),
    "largest of volumes": lambda x: F.adaptive_max_pool3d(x.reshape(-1, 2, 1, 2, 3), 1).flatten(1),
    "largest of parts of volumes": lambda x: F.adaptive_max_pool3d(x.reshape(-1, 1, 2, 2, 3), (1, 2, 2)).flatten(1),
    "max pool of volumes": lambda x: F.max_pool3d(x.reshape(-1, 1, 2, 2, 3), (1, 2, 2), (1, 1, 1)).flatten(1),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_function(name):
    """The populations compute the ANN, and approach it."""
    torch.manual_seed(0)
    model, x = Applied(COMPOSED[name]).eval(), torch.randn(64, 6)
    with torch.no_grad():
        wanted = model(x)
        snn = convert(model, [x], timesteps=64, schedule=Exponential(0.3, 0.92))
        torch.testing.assert_close(snn.network(x)[0], wanted, rtol=1e-5, atol=1e-5)
        # The last step is 2e-3 of a range, and quotients and logarithms enlarge errors of that size.
        assert (snn(x) - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize(
    ("function", "wanted"),
    [(lambda x: x * x, "square"), (lambda x: x.clamp(min=0), "relu"), (lambda x: torch.clamp_min(x, 0.0), "relu")],
)
def test_what_a_simpler_neuron_computes_is_left_to_it(function, wanted):
    snn = convert(Applied(function).eval(), [torch.randn(16, 6)], timesteps=2, schedule=Exponential())
    assert [population.activation for _, population in snn.populations()] == [wanted]


@pytest.mark.parametrize("function", [lambda x: x - x.max(), lambda x: x - x.amax((0, 1))])
def test_extrema_across_samples_are_refused(function):
    with pytest.raises(UnsupportedOperation, match=r"aten\.(max|amax)\.default"):
        convert(Applied(function).eval(), [torch.randn(16, 6)])


@pytest.mark.parametrize("layer", [nn.Conv3d(3, 2, 3, padding="same"), nn.ConvTranspose3d(3, 2, 2, stride=2)])
def test_volumes(layer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 3, 3), nn.ReLU(), layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(4))
    check(model, torch.randn(8, 1, 4, 5, 4), 2e-3)


@pytest.mark.parametrize("exponent", [torch.tensor([3.0]), torch.linspace(1.5, 2.5, 4).reshape(4, 1, 1)])
def test_powers_with_parameters(exponent):
    """Generalised-mean pooling."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head, self.p = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Parameter(exponent)

        def forward(self, x):
            mean = F.adaptive_avg_pool2d(self.stem(x).clamp(min=1e-6).pow(self.p), 1)
            return self.head(mean.pow(1 / self.p).flatten(1))

    torch.manual_seed(0)
    model, x = Pooled().eval(), images(16)
    with torch.no_grad():
        wanted = model(x)
        snn = convert(model, [x], timesteps=16, onset_delay=16)
        torch.testing.assert_close(snn.network(x)[0], wanted)
        assert (snn(x) - wanted).norm() < 1e-2 * wanted.norm()


SPATIAL = {
    "max pool": lambda: nn.MaxPool2d(2),
    "max pool, overlapping and padded": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "average pool": lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "adaptive average pool": lambda: nn.AdaptiveAvgPool2d(3),
    "strided convolution": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2),
    "depthwise convolution": lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "batch norm on its own": lambda: nn.BatchNorm2d(4).eval(),
}


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial(name):
    torch.manual_seed(0)
    between = SPATIAL[name]()
    if isinstance(between, nn.BatchNorm2d):
        between.running_mean.normal_()
        between.running_var.uniform_(0.5, 2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), between, nn.Tanh(), nn.Flatten(), nn.LazyLinear(4))
    check(model, images(8), 2e-3)


def padded(sides: tuple[int, ...], pool: nn.Module) -> nn.Module:
    return nn.Sequential(nn.ConstantPad2d(sides, -torch.inf), pool)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, ceil_mode=True),
        nn.MaxPool2d(2, stride=3, dilation=2),
        nn.MaxPool2d((1, 3), stride=(2, 1), padding=(0, 1)),
        padded((0, 1, 2, 0), nn.MaxPool2d(3, stride=2)),
        padded((1, 2, 0, 1), nn.MaxPool2d(2, stride=3, dilation=2)),
        padded((1, 1, 0, 0), nn.MaxPool2d((1, 3), padding=(0, 1))),
        nn.Sequential(nn.ConstantPad1d((0, 1), -torch.inf), nn.MaxPool2d(2)),  # of the last axis alone
    ],
)
def test_max_pool_finds_the_window(pool):
    """Whatever the window, the network of populations computes the ANN exactly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(3))
    x = images(4, size=9)
    with torch.no_grad():
        wanted = model.eval()(x)
        snn = convert(model, [x], timesteps=2, schedule=Exponential())
        torch.testing.assert_close(snn.network(x)[0], wanted)


@pytest.mark.parametrize("sides", [(3, 0, 0, 0), (0, 0, 0, 3)])
def test_a_maximum_of_padding_alone_is_refused(sides):
    model = nn.Sequential(nn.Conv2d(1, 3, 2), padded(sides, nn.MaxPool2d(3)))
    with pytest.raises(UnsupportedOperation, match="a window of padding alone"):
        convert(model, [images(4, size=10)], timesteps=2)


@pytest.mark.parametrize("out", [1, 2, 3, 4, (3, 5), (None, 2)])
def test_adaptive_max_pool_finds_the_window(out):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AdaptiveMaxPool2d(out), nn.Flatten(), nn.LazyLinear(3))
    x = images(4, size=9)
    with torch.no_grad():
        wanted = model.eval()(x)
        snn = convert(model, [x], timesteps=64)
        torch.testing.assert_close(snn.network(x)[0], wanted)
        assert (snn(x) - wanted).norm() < 0.05 * wanted.norm()


def test_the_largest_of_a_plane_is_found_by_halves():
    """Not of 1,024 elements, each picked out by a node of its own."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    snn = convert(model.eval(), [images(4, size=32)], timesteps=2, schedule=Exponential())
    assert len(snn.network.graph.nodes) < 50


@pytest.mark.parametrize("pool", [nn.MaxPool1d(2), nn.MaxPool1d(3, stride=2, padding=1), nn.AdaptiveMaxPool1d(3)])
def test_max_pool_of_sequences(pool):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(8, 2, 11)
    with torch.no_grad():
        wanted = model.eval()(x)
        snn = convert(model, [x], timesteps=64)
        torch.testing.assert_close(snn.network(x)[0], wanted)
        assert (snn(x) - wanted).norm() < 0.05 * wanted.norm()


def test_the_places_of_maxima_are_refused():
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU())

    class Places(nn.Module):
        def forward(self, x):
            values, places = nn.functional.adaptive_max_pool1d(x, 3, return_indices=True)
            return values + places

    with pytest.raises(UnsupportedOperation, match="the places of the maxima or minima"):
        convert(nn.Sequential(model, Places()).eval(), [torch.randn(4, 2, 9)])


@pytest.mark.parametrize("layer", [partial(nn.LSTM, num_layers=2), partial(nn.GRU, bidirectional=True)])
def test_recurrent_layers_are_unrolled(layer):
    torch.manual_seed(0)
    model, x = layer(3, 8, batch_first=True).eval(), torch.randn(32, 5, 3)
    with torch.no_grad():
        wanted, _ = model(x)
        snn = convert(model, [x], timesteps=16, onset_delay=16)
        torch.testing.assert_close(snn.network(x)[0], wanted)
        assert (snn(x)[0] - wanted).norm() < 1e-2 * wanted.norm()
    with pytest.raises(ValueError, match=r"expected shape \['any', 5, 3\]"):
        snn(torch.randn(32, 6, 3))


def test_conv1d():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 5, 3, padding=1), nn.BatchNorm1d(5), nn.ReLU(),
        nn.Conv1d(5, 4, 2), nn.GELU(), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    check(model, torch.randn(8, 2, 7), 2e-3)


class LayerScale(nn.Module):
    """Parameters that multiply what maps compute: along features, as one number, along tokens, beside another user."""

    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(1, 6, 3), nn.Linear(36, 8), nn.Linear(8, 8, bias=False)
        self.of_channels, self.of_features = nn.Parameter(torch.randn(6, 1, 1)), nn.Parameter(torch.randn(8))
        self.of_all, self.of_tokens = nn.Parameter(torch.randn(1)), nn.Parameter(torch.randn(6, 1))

    def forward(self, x):
        x = torch.relu(self.conv(x) * self.of_channels).flatten(2)
        y = torch.relu(self.of_features * self.first(x))
        z = self.second(y)
        return self.second(y) * self.of_all + self.of_tokens * self.second(y) + z * self.of_features + z


def test_parameters_that_multiply_features_are_in_the_weights():
    torch.manual_seed(0)
    model, x = LayerScale().eval(), images()
    snn = convert(model, [images(16, seed=2)], timesteps=33, schedule=Exponential(0.3, 0.9))
    factors = [node for node in snn.network.graph.nodes if node.target is torch.ops.aten.mul.Tensor]
    assert len(factors) == 2  # along tokens, and of z
    torch.testing.assert_close(snn.network(x)[0], model(x), rtol=1e-5, atol=1e-5)
    for output, wanted in zip(snn.outputs_at(x, steps=[5, 33]), oracle_outputs(model, x, snn, [5, 33])):
        assert (output - wanted).norm() <= 1e-3 * wanted.norm()


def test_a_parameter_of_every_place_is_in_no_weights():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)
            self.factor = nn.Parameter(torch.rand(4, 6, 6) + 0.5)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x) * self.factor).flatten(1))

    torch.manual_seed(0)
    model, x = Places().eval(), images()
    snn = convert(model, [x], timesteps=2, schedule=Exponential())
    torch.testing.assert_close(snn.network(x)[0], model(x))


def test_batch_norm_behind_a_computed_weight_stays_apart():
    torch.manual_seed(0)
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3))
    model = randomise_batch_norm(nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 6), nn.Flatten()))
    x = images()
    snn = convert(model, [x], timesteps=2, schedule=Exponential())
    torch.testing.assert_close(snn.network(x)[0], model(x))


def test_neurons_of_a_stack_have_the_channels_of_its_parts():
    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.relu(torch.stack([self.first(x), self.second(x)], 1)).mean((1, 3, 4)))

    ((_, population),) = convert(Stacked(), [images()], timesteps=2, schedule=Exponential()).populations()
    assert population.channel_dims == (2,)


@pytest.mark.parametrize("window", [3, 5, 7])
def test_depthwise_convolutions_of_sums_with_large_windows(window, monkeypatch):
    """They take their input with the features last, where PyTorch is fast, and give what they give anyway."""

    class Depthwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 6, 3, padding=1)
            self.mix = nn.Conv2d(6, 6, window, stride=2, padding=window // 2, groups=6)

        def forward(self, x):
            x = self.stem(x)
            return torch.relu(self.mix(torch.relu(x) + torch.tanh(x))).mean((2, 3))

    torch.manual_seed(0)
    model, x = Depthwise().eval(), images()
    snn = convert(model, [images(16, seed=2)], timesteps=33, schedule=Exponential(0.3, 0.9))
    for output, wanted in zip(snn.outputs_at(x, steps=[5, 33]), oracle_outputs(model, x, snn, [5, 33])):
        assert (output - wanted).norm() <= 1e-3 * wanted.norm()
    run, convolved = snn.start(x), []
    vmap = torch.vmap
    monkeypatch.setattr(torch, "vmap", lambda one: lambda *parts: convolved.extend(parts) or vmap(one)(*parts))
    run.advance_to(33)
    maps = [part for part in convolved if part.shape[2] == 6]
    assert any(part.stride(2) == 1 for part in maps) == (window > 3)


@pytest.mark.parametrize("form", [lambda x, n: x + n, lambda x, n: n * x, lambda x, n: 8 * x / n])
def test_the_number_of_samples_is_that_of_the_run(form):
    torch.manual_seed(0)
    model = Applied(lambda x: torch.relu(form(torch.relu(x), x.shape[0]) - 0.5)).eval()
    model(torch.randn(4, 6))
    snn = convert(model, [torch.randn(4, 6)], timesteps=33, schedule=Exponential(0.3, 0.9))
    for samples in (1, 3):
        x = torch.randn(samples, 6)
        (output,), (wanted,) = snn.outputs_at(x, steps=[33]), oracle_outputs(model, x, snn, [33])
        assert (output - wanted).norm() <= 1e-3 * wanted.norm()
