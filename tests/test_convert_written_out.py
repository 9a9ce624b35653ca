"""What models write in their own ways: masks, norms and attention as they are found in Hugging Face's models."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_convert import convert
from snn_kernels.schedules import Exponential
from test_convert_operations import Applied

LEAST = torch.finfo(torch.float32).min
T = 16


class Buffers(nn.Module):
    """A function of activations and of constants of the model."""

    def __init__(self, function, **constants: Tensor):
        super().__init__()
        self.function, self.first, self.last = function, nn.Linear(6, 12), nn.LazyLinear(4)
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.last(self.function(self, self.first(x)))


def error_of(model: nn.Module, delay: int = T, timesteps: int = T, **options) -> tuple[float, nn.Module]:
    """Relative; by default every population's input is complete when it starts."""
    torch.manual_seed(0)
    x = torch.randn(24, 6)
    model(x)  # gives lazy layers their shapes
    schedule = Exponential(0.6, 0.5) if delay else Exponential(0.3, 0.93)
    snn = convert(model.eval(), [x], timesteps=timesteps, onset_delay=delay, schedule=schedule, **options)
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(snn.network(x)[0], wanted, rtol=1e-4, atol=1e-4)
        return ((snn(x) - wanted).norm() / wanted.norm()).item(), snn


def test_one_value_for_both_inputs_of_neurons():
    for function in (lambda y: y @ y, lambda y: torch.addcmul(y, y, y), lambda y: torch.maximum(y, y) / (y + 1)):
        model = Applied(lambda x, f=function: f(torch.relu(x[:, :9]).reshape(-1, 3, 3)).flatten(1))
        assert error_of(model)[0] < 1e-2
        assert error_of(model, delay=0)[0] < 0.3


@pytest.mark.parametrize(
    "function",
    [
        lambda y: torch.cat(
            [y, torch.sqrt(y.var(0) + 1e-2).mean().expand(y.shape[0], 1)], 1
        ),  # StyleGAN's discriminator
        lambda y: y.cumsum(0) * 0.1,
        lambda y: y - y.sum(0) / 24,
        lambda y: y / (1 + y.norm(dim=0)),
    ],
    ids=["deviation", "cumsum", "sum", "norm"],
)
def test_what_depends_on_the_place_or_the_number_of_samples(function):
    """Offsets of one sample are not those of more."""
    assert error_of(Applied(lambda x: torch.relu(function(torch.relu(x)))), delay=0, timesteps=64)[0] < 3e-2


def test_constants_of_submodules_move_and_are_saved():
    class Picks(nn.Module):
        def forward(self, x):
            return torch.relu(x)[:, torch.tensor([0, 2, 1])]

    x = torch.randn(4, 5)
    snn = convert(nn.Sequential(Picks()).eval(), [x.requires_grad_()], timesteps=4)
    assert torch.equal(copy.deepcopy(snn)(x), snn(x))
    assert any(value.tolist() == [0, 2, 1] for value in snn.buffers() if value.ndim)


def test_a_model_that_takes_no_single_sample():
    model = Applied(lambda x: x.reshape(-1, 2, 12).mean(1))
    with pytest.raises(ValueError, match="model: expected one that takes any number of samples"):
        error_of(model)


def test_any_arguments():
    class Any(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(5, 6)

        def forward(self, *inputs):
            return torch.relu(self.map(inputs[0]))

    assert convert(Any().eval(), [torch.randn(4, 5)], timesteps=4)(torch.randn(3, 5)).shape == (3, 6)


def functions(snn: nn.Module) -> list[str]:
    return [population.activation for _, population in snn.populations()]


@pytest.mark.parametrize(
    "roles", [lambda q, v: (q, q, v), lambda q, v: (q, q, q), lambda q, v: (v, q, q)], ids=["qqv", "qqq", "vqq"]
)
def test_attention_to_its_own_queries(roles):
    """The scale of the scores is in nobody else's weights."""

    def attention(x):
        return F.scaled_dot_product_attention(*roles(x.reshape(-1, 4, 3), torch.tanh(x).reshape(-1, 4, 3))).flatten(1)

    assert error_of(Applied(attention))[0] < 1e-2


@pytest.mark.parametrize(
    "bounded",
    [
        lambda m, x: torch.max(x, m.least),
        lambda m, x: torch.maximum(m.least, x),
        lambda m, x: x.clamp(min=LEAST),
        lambda m, x: x.clamp(LEAST, -LEAST),
    ],
    ids=["max", "maximum", "clamp_min", "clamp"],
)
def test_masked_scores_that_are_bounded(bounded):
    mask = torch.tensor([0.0, LEAST]).repeat(6)
    model = Buffers(lambda m, x: torch.softmax(bounded(m, x + m.mask), -1), mask=mask, least=torch.tensor(LEAST))
    error, snn = error_of(model)
    assert error < 1e-2
    assert functions(snn) == ["masked_softmax"]


def test_the_logarithm_of_large_exponentials():
    for keep in (True, False):
        error, _ = error_of(Applied(lambda x, keep=keep: torch.logsumexp(10 * x, -1, keep).reshape(-1, 1)))
        assert error < 1e-2


def test_a_constant_out_of_a_list():
    model = Buffers(lambda m, x: torch.softmax(x + m.bias.chunk(2)[0], -1), bias=torch.randn(24))
    assert error_of(model)[0] < 1e-2


def rms_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0
    return y


FORMULAS = {
    "gelu": [
        lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        lambda x: (torch.erf(0.70710678 * x) + 1) * x / 2,
        lambda x: 0.3 * x * (2 + 2 * torch.erf(x.clone() * 1.5)),
    ],
    "gelu_tanh": [
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: x * 0.5 * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))),
        lambda x: x * torch.sigmoid(2 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)),
    ],
    "silu": [
        lambda x: x * torch.sigmoid(x),
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: x / (1 + torch.exp(-x.float())),
        lambda x: x * (1 + torch.tanh(x / 2)),
    ],
    "mish": [lambda x: x * torch.tanh(F.softplus(x)), lambda x: -x * torch.tanh(-x.exp().log1p())],
    "hardswish": [
        lambda x: x * F.relu6(x + 3) / 6,
        lambda x: x * F.hardsigmoid(x),
        lambda x: x * (x / 6 + 0.5).clamp(0, 1),
    ],
    "relu": [
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: torch.where(x >= 0, x, torch.tensor(0.0)),
        lambda x: x.masked_fill(~(x > 0), 0.0),
        lambda x: x * (x > 0).float(),
        lambda x: F.threshold(x, 0.0, 0.0),
        lambda x: torch.max(x, torch.zeros_like(x)),
        assigned,
    ],
    "leaky_relu": [lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: x * torch.where(x < 0, 0.2, 1.0)],
    "elu": [
        lambda x: 1.05 * torch.where(x > 0, x, 1.67 * (torch.exp(x) - 1)),
        lambda x: torch.where(x < 0, x.expm1(), x),
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, forms in FORMULAS.items() for i in range(len(forms))])
def test_a_formula_is_one_population(name, number):
    error, snn = error_of(Applied(FORMULAS[name][number]))
    assert error < 1e-3
    assert functions(snn) == [name]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.sigmoid(x + 1),
        lambda x: x * torch.sigmoid(-x),
        lambda x: x * 0.5 * (1.0 + torch.tanh(0.79 * (x + 0.044715 * x**3))),
        lambda x: x.roll(1, 1) * torch.sigmoid(x),
        lambda x: x[:, :6] * torch.sigmoid(x[:, 6:]),
        lambda x: torch.maximum(x, 0.5 * x.roll(1, 1)) * x,
    ],
)
def test_another_formula_is_what_is_written(function):
    error, snn = error_of(Applied(function))
    assert error < 1e-3
    assert functions(snn)[-1] == "multiply"


@pytest.mark.parametrize("function", [lambda x: F.softplus(x, beta=3.0), lambda x: x * torch.sigmoid(1.702 * x)])
def test_factors_before_neurons_are_in_the_weights(function):
    error, snn = error_of(Applied(function))
    assert error < 1e-3
    (population,) = (node for node in snn.network.graph.nodes if node.op == "call_module")
    assert population.args[0].target is torch.ops.aten.linear.default


@pytest.mark.parametrize("delay", [0, T])
def test_group_norm_of_channels_that_lie_last(delay):
    def function(x):
        return F.group_norm(torch.relu(x).reshape(-1, 3, 2, 2).permute(0, 3, 1, 2), 1).flatten(1)

    assert error_of(Applied(function), delay, timesteps=T if delay else 64)[0] < 2e-2


def test_a_scaled_activation_is_no_other_one():
    error, snn = error_of(Applied(lambda x: sum((y := x.clamp(min=0), 0.5 * y))))
    assert error < 1e-3
    assert functions(snn) == ["relu"]


def test_what_a_formula_shares_with_others_stays():
    error, snn = error_of(Applied(lambda x: sum((gate := torch.sigmoid(x), x * gate))))
    assert error < 1e-3
    assert sorted(functions(snn)) == ["sigmoid", "silu"]


@pytest.mark.filterwarnings("ignore:populations that never moved")  # one mean of all samples
@pytest.mark.parametrize(
    "inverse",
    [
        lambda x: torch.rsqrt(x.pow(2).mean(-2, keepdim=True) + 1e-2),
        lambda x: torch.rsqrt(torch.mean(x.pow(2), None, keepdim=True) + 1e-2),
        lambda x: torch.rsqrt(torch.add(x.pow(2).mean(-1, keepdim=True), 1e-2, alpha=3)),
    ],
)
def test_what_looks_like_an_rms_norm(inverse):
    model = Applied(lambda x: (x.reshape(-1, 3, 3) * inverse(x.reshape(-1, 3, 3))).flatten(1), width=9)
    error, snn = error_of(model)
    assert error < 2e-2
    assert functions(snn) == ["square", "rsqrt", "multiply"]


def test_a_written_out_rms_norm():
    """Is one population; a row of nothing, as of a masked token, does not set the scale of the others."""
    model = Buffers(lambda m, x: rms_norm(torch.stack([x, 0 * x], 1)).flatten(1) * m.weight, weight=torch.rand(24))
    error, snn = error_of(model)
    assert error < 1e-3
    assert functions(snn) == ["rms_norm"]
    _, snn = error_of(Applied(rms_norm), normalisation="decomposed")
    assert functions(snn) == ["square", "rsqrt", "multiply"]


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_variance_across_samples_has_as_many_as_there_are(unbiased):
    torch.manual_seed(0)
    model, x = Applied(lambda x: (x - x.mean(0)) / (x.var(0, unbiased=unbiased) + 1e-2).sqrt()), torch.randn(24, 6)
    snn = convert(model, [x], timesteps=128, schedule=Exponential(0.3, 0.95))
    for batch in (24, 4):
        with torch.no_grad():
            wanted = model(x[:batch])
        torch.testing.assert_close(snn.network(x[:batch])[0], wanted, rtol=1e-4, atol=1e-4)
        assert (snn(x[:batch]) - wanted).norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (torch.fft.fft(x) * (0.5 + 0.5j)).real,
        lambda m, x: torch.fft.ifft(1j * m.k * torch.fft.fft(x)).real,
        lambda m, x: torch.fft.fft(x * (m.k + 1j * m.k)).real,
    ],
)
def test_complex_factors_are_neither_activations_nor_weights(function):
    model = Buffers(lambda m, x: F.relu(function(m, x)), k=torch.rand(12))
    error, _ = error_of(model)
    assert error < 1e-3


def masked(x):
    mask = x.new_zeros(12, 12)
    for i in range(24):  # three ways through each
        mask[i % 12 :, i % 12] = -1e9
    return torch.softmax(x @ x.new_ones(12, 12) + mask[0], -1)


def leaky(x):
    h = x[:, 0]
    for _ in range(300):
        h = 0.9 * h + x[:, 1]
    return F.relu(h[:, None] / 10)


@pytest.mark.parametrize("function", [masked, leaky])
def test_long_chains(function):
    """Neither time nor stack grows with the ways through them."""
    error, _ = error_of(Applied(function))
    assert error < 1e-3
