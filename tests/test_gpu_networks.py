"""Networks converted on a GPU or moved to one; without one tests/test_cuda_networks.py runs them on an emulated one."""

import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from models import images
from snn_convert import SpikingModel, convert
from snn_convert.errors import CalibrationError
from snn_kernels import SignGDNeuron, calibrate_offsets
from snn_kernels.schedules import Exponential

pytestmark = pytest.mark.gpu

T, SCHEDULE = 12, Exponential(0.3, 0.9)


class Mixed(nn.Module):
    """Convolution, maxima, attention, normalisation, constants and a residual sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1)
        self.norm, self.qkv, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 5)
        self.register_buffer("place", torch.linspace(-1, 1, 8))

    def forward(self, x):
        x = self.pool(torch.relu(self.stem(x))).flatten(2).mT + self.place
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(torch.where(self.place > 0, nn.functional.gelu(x), x).mean(1))


def rectifiers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize("delay", [0, 3, T])
@pytest.mark.parametrize("recipe", ["default", "paper", "subgradient", "integrate_and_fire", "parallel"])
def test_on_the_device_of_the_model(recipe, delay):
    if delay and recipe in ("integrate_and_fire", "parallel"):
        pytest.skip("the recipe has no onset delay")
    model = (Mixed() if recipe in ("default", "paper") else rectifiers()).eval()
    options = {"timesteps": T, "recipe": recipe, **({"onset_delay": delay} if delay else {})}
    data, x = images(16, seed=2), images(3)
    here = convert(model, [data], **options)
    there = convert(copy.deepcopy(model).cuda(), [data.cuda()], **options)
    assert {tensor.device.type for tensor in tensors_of(there).values()} == {"cuda"}
    for name, value in here.state_dict().items():
        if isinstance(value, torch.Tensor):
            # A GPU's convolutions may round to the 10 bits of TF32.
            torch.testing.assert_close(there.state_dict()[name].cpu(), value, rtol=1e-2, atol=1e-2)
    output, wanted = there(x.cuda()), here(x)
    assert output.is_cuda
    assert (output.cpu() - wanted).norm() <= 2e-2 * wanted.norm()


class NothingWaits(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: values read by the host, and copies from one device to another."""

    READ = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        output = op(*args, **(kwargs or {}))
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        assert op not in self.READ or devices == {"cpu"}, op
        assert devices != {"cpu", "cuda"} or "copy" not in op.name(), op
        return output


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("default", {}),
        ("default", {"onset_delay": 3}),
        ("default", {"weight_bits": 8}),
        ("paper", {}),
        ("subgradient", {"onset_delay": 3}),
        ("integrate_and_fire", {}),
        ("parallel", {}),
    ],
)
def test_capture_in_a_cuda_graph(recipe, options):
    """As far as an emulated device can tell."""
    model = (Mixed() if recipe in ("default", "paper") else rectifiers()).eval().cuda()
    options = {"timesteps": T, "recipe": recipe, **options}
    snn = convert(model, [images(16, seed=2).cuda()], **options)
    x, static = images(3).cuda(), torch.zeros(3, 1, 8, 8).cuda()
    wanted = snn(x)
    with NothingWaits():
        snn(x)
    if torch.version.cuda:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = snn(static)
        static.copy_(x)
        graph.replay()
        torch.testing.assert_close(output, wanted, rtol=1e-3, atol=1e-3)


class Masked(nn.Module):
    """Attention whose offsets depend on the sample, so that every run measures its own."""

    def __init__(self):
        super().__init__()
        self.words, self.qkv, self.head = nn.Embedding(20, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, words, keep):
        q, k, v = self.qkv(self.words(words)).chunk(3, -1)
        x = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep.bool()[:, None])
        return self.head(torch.relu(x).mean(1))


@pytest.mark.parametrize("delay", [0, 3])
def test_networks_that_measure_offsets_do_not_wait_either(delay):
    words, keep = torch.randint(20, (8, 6)).cuda(), (torch.arange(6) < 4).long().expand(8, 6).contiguous().cuda()
    options = {"onset_delay": delay} if delay else {}
    snn = convert(Masked().eval().cuda(), [(words, keep)], timesteps=T, schedule=SCHEDULE, **options)
    assert snn.measures_each_run
    snn(words, keep)  # what no input moves is computed once
    with NothingWaits():
        snn(words, keep)


def test_the_schedule_is_searched_on_the_device():
    model = Mixed().eval().cuda()
    snn = convert(model, [images(16, seed=2).cuda()], timesteps=16, onset_delay=16, progress=True)
    x = images(3).cuda()
    assert (snn(x) - model(x)).norm() <= 2e-2 * model(x).norm()


@pytest.mark.parametrize("weight_bits", [None, 8])
def test_moved(weight_bits, tmp_path):
    data, x = images(16, seed=2), images(3)
    here = convert(Mixed().eval(), [data], timesteps=T, schedule=SCHEDULE, weight_bits=weight_bits)
    there = copy.deepcopy(here).cuda()
    assert {tensor.device.type for tensor in tensors_of(there).values()} == {"cuda"}
    wanted, output = here(x), there(x.cuda())
    assert output.is_cuda
    assert (output.cpu() - wanted).norm() <= 2e-2 * wanted.norm()
    with pytest.raises(ValueError, match=r"x: expected shape .* on cuda:0, got .* on cpu"):
        there(x)
    there.save(tmp_path / "x.snn")
    assert torch.equal(SpikingModel.load(tmp_path / "x.snn")(x), wanted)
    assert torch.equal(there.cpu()(x), wanted)


def test_everything_else():
    x = images(3).cuda()
    snn = convert(Mixed().eval().cuda(), [images(16, seed=2).cuda()], timesteps=T, schedule=SCHEDULE)
    run = snn.start(x)
    while run.done < snn.latency:
        run.step()
    outputs = snn.outputs_at(x, steps=[5, T])
    assert all(output.is_cuda for output in outputs)
    torch.testing.assert_close(run.output(), outputs[-1], rtol=1e-3, atol=1e-3)
    output, steps = snn.run_until(x, confidence=0.5)
    assert output.is_cuda
    assert steps.is_cuda
    assert all(0 < rate < 1 for rate in snn.firing_rates(x).values())
    assert all(train.bytes.is_cuda for train in snn.spikes(x).values())
    assert snn.profile(x).rows
    snn.set_schedule(Exponential(0.2, 0.9), 5)
    assert snn.bfloat16()(x.bfloat16()).is_cuda


def test_a_model_elsewhere_than_its_data():
    with pytest.raises((CalibrationError, RuntimeError), match="device"):
        convert(Mixed().eval().cuda(), [images(4)])


def test_neurons_in_a_network():
    net = nn.Sequential(nn.Linear(6, 8), SignGDNeuron("gelu", SCHEDULE), nn.Linear(8, 3)).cuda()
    calibrate_offsets(net, torch.zeros(T, 1, 6, device="cuda"))
    current = net(torch.rand(T, 4, 6, device="cuda"))
    assert current.is_cuda
    assert net[1].state.v.is_cuda
    net[1].reset()
