"""Every family of networks against the value-domain oracle at every step, and against the ANN at the last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from architectures import DenseNet, EncoderBlock, Mixer, Normalised, ResMLP, SqueezeExcite, ViT, vgg
from models import images, randomise_batch_norm
from snn_convert import UnsupportedOperation, convert
from snn_convert.search import FEWEST, SAMPLES, affordable, candidates
from snn_kernels.schedules import Exponential
from witness import witnessed

ARCHITECTURES = {
    "vgg": vgg,
    "densenet": DenseNet,
    "squeeze and excite": SqueezeExcite,
    "mixer": Mixer,
    "resmlp": ResMLP,
    "vit": ViT,
    "vit, causal": lambda: ViT(causal=True),
    "vit, written out": lambda: ViT(written_out=True),
    "vit, rms norm": lambda: ViT(norm=nn.RMSNorm),
    "group norm": lambda: Normalised(nn.GroupNorm(2, 6)),
}


def assert_close_in_norm(actual, expected, tolerance):
    assert torch.isfinite(actual).all()
    assert (actual - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("normalisation", ["vector", "decomposed"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_agrees_with_the_value_domain(name, normalisation):
    torch.manual_seed(0)
    model, x = randomise_batch_norm(ARCHITECTURES[name]()), images()
    schedule = Exponential(0.3, 0.93)
    snn = convert(model, [images(24, seed=2)], timesteps=64, schedule=schedule, normalisation=normalisation)
    for output, wanted in zip(*witnessed(model, x, snn, [1, 2, 7, 8, 9, 64], normalisation)):
        # Estimates that decisions have made the same, and one affine map: a few float32 roundings.
        assert_close_in_norm(output, wanted, 1e-6)
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(snn.network(x)[0], wanted, rtol=1e-4, atol=1e-5)
    assert_close_in_norm(output, wanted, 0.15)  # and it is the ANN that is approached


class Encoder(nn.Module):
    """Tokens with a mask that comes as integers, as text encoders have it."""

    def __init__(self, **block):
        super().__init__()
        self.words, self.block, self.head = nn.Embedding(20, 12), EncoderBlock(12, **block), nn.Linear(12, 5)

    def forward(self, tokens, mask):
        keep = mask.bool()[:, None, None, :]
        x = self.block(self.words(tokens), keep)
        mask = mask[:, :, None].to(x.dtype)
        return self.head((x * mask).sum(1) / mask.sum(1))


def text(count, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (count, 1), generator=generator)
    return torch.randint(0, 20, (count, 6), generator=generator), (torch.arange(6) < lengths).long()


@pytest.mark.parametrize("normalisation", ["vector", "decomposed"])
@pytest.mark.parametrize("written_out", [False, True])
def test_masks_are_coefficients(written_out, normalisation):
    """They multiply exactly, need no population, and the offsets follow the sample."""
    torch.manual_seed(0)
    model = Encoder(written_out=written_out).eval()
    snn = convert(model, [text(24, 2)], timesteps=64, schedule=Exponential(0.3, 0.93), normalisation=normalisation)
    assert {p.activation for _, p in snn.populations()}.isdisjoint({"multiply", "reciprocal"})
    tokens, mask = text(6, 1)
    with torch.no_grad():
        wanted = model(tokens, mask)
    torch.testing.assert_close(snn.network(tokens, mask)[0], wanted, rtol=1e-4, atol=1e-5)
    outputs, expected = witnessed(model, (tokens, mask), snn, [3, 64], normalisation)
    for output, value in zip(outputs, expected):
        assert_close_in_norm(output, value, 1e-6)
    first, last = outputs
    assert_close_in_norm(last, wanted, 0.05)
    other = torch.where(mask.bool(), tokens, (tokens + 1) % 20)
    torch.testing.assert_close(snn.outputs_at(other, mask, steps=[3])[0], first, rtol=1e-3, atol=1e-3)


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.first, self.second = function, nn.Linear(6, 12), nn.LazyLinear(4)

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def rows(x):
    return x.reshape(-1, 3, 4)


def written(x, at, value):
    """``x`` with ``value`` written into it in place."""
    x = x.clone()
    x[:, at] = value
    return x


def one_head(x):
    """A product of activations whose second dimension is 1, written over as timm's MViTv2 does."""
    heads = F.relu(rows(x))[:, None]
    product = heads @ heads.transpose(2, 3)
    product[:, :, 0:, 0:] = product[:, :, 0:, 0:] + x[:, None, :3, None]
    return product.flatten(1)


HIDDEN = torch.tensor([0.0, torch.finfo(torch.float32).min]).repeat(6)

FUNCTIONS = {
    "softmax": lambda x: torch.softmax(x, -1),
    "softmax, masked by a sum": lambda x: torch.softmax(x + HIDDEN, -1),
    "softmax, masked by a difference": lambda x: torch.softmax(x - 1e6 * (torch.arange(12) < 3).float(), -1),
    "log softmax": lambda x: torch.log_softmax(x, 1),
    "layer norm, bare": lambda x: F.layer_norm(x, (12,)),
    "rms norm, written out": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3),
    "layer norm, written out": lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-2).sqrt(),
    "unit length": lambda x: x / x.norm(dim=-1, keepdim=True),
    "einsum of two": lambda x: torch.einsum("bij,bkj->bik", rows(x), torch.tanh(rows(x))).flatten(1),
    "einsum with a constant": lambda x: torch.einsum("bij,jk->bik", F.relu(rows(x)), torch.eye(4)).flatten(1),
    "baddbmm": lambda x: torch.baddbmm(rows(x)[:, :, :3], rows(x), rows(x).transpose(1, 2)).flatten(1),
    "glu": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, torch.linspace(0.1, 0.5, 12)),
    "log sigmoid": F.logsigmoid,
    "where": lambda x: torch.where(torch.arange(12) % 2 == 0, F.relu(x), x),
    "masked fill": lambda x: F.relu(x).masked_fill(torch.arange(12) < 3, 0.5),
    "index": lambda x: F.relu(x)[:, torch.tensor([3, 1, 1])],
    "maximum with a constant": lambda x: torch.maximum(x, torch.linspace(-1, 1, 12)),
    "cumulative sum": lambda x: F.relu(x).cumsum(1),
    "repeat": lambda x: F.relu(x).repeat(1, 2),
    "ones like": lambda x: F.relu(x) * torch.ones_like(x) + torch.zeros_like(x),
    "expand as": lambda x: (F.relu(x)[:, :1].expand_as(x) + x),
    "clamp max": lambda x: torch.clamp(x, max=0.2),
    "write from a place on": lambda x: written(x, slice(1, None), F.relu(x)[:, 1:]),
    "write into every other place": lambda x: written(F.relu(x), slice(0, 9, 2), x[:, :1]),
    "write into one place": lambda x: written(x, 3, F.relu(x)[:, 5]),
    "write over a product of one head": one_head,
    "write a number": lambda x: written(F.relu(x), slice(2, 50), 0.5),
}  # fmt: skip


# What is written out and becomes one population, as the oracle knows it.
IN_ONE = {"rms norm, written out": lambda x: F.rms_norm(x, (12,), None, 1e-3)}


@pytest.mark.parametrize("normalisation", ["vector", "decomposed"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_becomes_populations(name, normalisation):
    torch.manual_seed(0)
    model, x = Applied(FUNCTIONS[name]), torch.randn(16, 6)
    with torch.no_grad():
        wanted = model.eval()(x)
        snn = convert(model, [x], timesteps=96, schedule=Exponential(0.3, 0.95), normalisation=normalisation)
        torch.testing.assert_close(snn.network(x)[0], wanted, rtol=1e-4, atol=1e-5)
    if normalisation == "vector":
        model.function = IN_ONE.get(name, model.function)
    for output, value in zip(*witnessed(model, x, snn, [1, 9, 96], normalisation)):
        assert_close_in_norm(output, value, 1e-6)
    assert_close_in_norm(output, wanted, 0.05)


def test_encoder_layer_of_pytorch():
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).eval(), torch.randn(6, 5, 8)
    snn = convert(model, [x], timesteps=64, schedule=Exponential(0.3, 0.93))
    with torch.no_grad():
        assert_close_in_norm(snn(x), model(x), 0.05)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.where(x > 1, x, 0.5 * x), "aten.gt.Scalar .* a mask that is computed from activations"),
        (lambda x: x.masked_fill(x > 0, 0.0), "a mask that is computed from activations"),
        (lambda x: torch.fft.fft(x).abs(), "aten.abs.* cannot be converted: complex values are no activations"),
        (lambda x: (torch.fft.fft(x) * torch.fft.fft(x + 1)).real, "aten.mul.* complex values are no activations"),
        (lambda x: torch.ops.aten.elu(x, 1.0, 2.0), "elu with another scale"),  # not written out: its rule refuses it
        (lambda x: torch.sin(x), "aten.sin.* cannot be converted: supported are affine operations"),
        (
            lambda x: F.instance_norm(rows(x), torch.zeros(3), torch.ones(3), use_input_stats=False).flatten(1),
            "instance norm with running statistics: use BatchNorm",
        ),
        (lambda x: torch.linalg.vector_norm(x, 3.0, dim=1, keepdim=True), "norms of order 1 and 2"),
        (lambda x: F.softplus(x, threshold=1), "softplus with a threshold below 15"),
    ],
)
def test_what_is_not_supported_says_so(function, message):
    torch.manual_seed(0)
    model = Applied(function)
    with torch.no_grad():
        model(torch.randn(3, 6))
    with pytest.raises(UnsupportedOperation, match=message):
        convert(model, [torch.randn(3, 6)], timesteps=2)


def test_the_schedule_search_fits_its_budget():
    wanted = len(candidates(32))
    assert affordable(1e6, 32, wanted) == (SAMPLES, wanted)
    assert affordable(1e14, 32, wanted) == (1, FEWEST)
    samples, tried = affordable(2e9, 32, wanted)
    assert samples == 1
    assert FEWEST < tried < wanted
