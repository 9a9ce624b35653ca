"""Every experiment at its smallest size, from end to end."""

from __future__ import annotations

import io
import sys
import types
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from bench.__main__ import _measured, run
from bench.architectures import ARCHITECTURES
from bench.experiments import EXPERIMENTS
from bench.graphs import graphs
from bench.libraries import flexsn, others
from bench.networks import whole_network
from bench.recipes import MORE
from bench.results import load
from bench.runner import LEFT, Missing, Setting, measure
from snn_convert import SpikingModel
from snn_convert.demo.networks import NETWORKS
from snn_kernels import schedules, signgd

TINY = Setting("tiny")
# What the smallest sizes are too small for: no recipe gets to 1% in two steps.
WRONG = {"recipes": "not within 1% after"}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:populations that never moved")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(name, tmp_path):
    if name in ("conversion", "networks"):
        pytest.importorskip("transformers")
    path = tmp_path / "x.json"
    run([name], TINY, path, Console(file=io.StringIO()))
    rows = load(path)
    assert rows
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        assert row.machine["size"] == "tiny"
        assert not row.error or WRONG.get(name, "no error") in row.error, (row.key, row.error)
        if not row.error and not row.missing:
            assert 0 < row.p20 <= row.p50 <= row.p80, row.key
            assert row.correctness
        assert row.baseline in {other.variant for other in rows if other.case == row.case}
    assert (tmp_path / "x.md").exists()


def test_an_experiment_that_fails_loses_nothing(tmp_path, monkeypatch):
    """Its cases so far and the other experiments stay, the failure is a row, and it is tried again."""

    def fails(setting):
        yield from list(EXPERIMENTS["packing"].comparisons(setting))[:1]
        raise RuntimeError("no more")

    broken = replace(EXPERIMENTS["overhead"], comparisons=fails)
    monkeypatch.setitem(EXPERIMENTS, "overhead", broken)
    path = tmp_path / "x.json"
    run(["overhead", "packing"], TINY, path, Console(file=io.StringIO()))
    *rows, last = [row for row in load(path) if row.experiment == "overhead"]
    assert rows
    assert not any(row.error for row in rows)
    assert last.case == LEFT
    assert last.error == "RuntimeError: no more"
    assert all(row.machine["unfinished"] for row in (*rows, last))
    assert any(row.experiment == "packing" for row in load(path))


def test_the_networks_of_the_full_recipes_exist():
    assert NETWORKS.keys() >= set(MORE)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("ResNet-18", 11.69),
        ("ResMLP-24", 30.02),
        ("VGG-16", 138.36),  # its convolutions have no biases beside BatchNorm's
        ("ResNet-34", 21.80),
        ("ConvNeXt-T", 28.59),
        ("MLP-Mixer-B", 59.88),
        ("ViT-S", 22.05),
    ],
)
def test_architectures_have_the_published_parameters(name, millions):
    if name in ("ConvNeXt-T", "ViT-S"):
        pytest.importorskip("transformers")
    with torch.device("meta"):
        model = ARCHITECTURES[name].build(224)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == millions


def test_a_network_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("bench.networks.ARCHITECTURES", {"ViT-S": ARCHITECTURES["ViT-S"]})
    (comparison,) = EXPERIMENTS["networks"].comparisons(TINY)
    missing = comparison.variants[comparison.baseline]
    assert isinstance(missing, Missing)
    assert "transformers" in missing.reason


def test_a_wrong_network_is_refused(monkeypatch):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(5))
    x = torch.randn(2, 3, 8, 8)
    model(x)
    comparison = whole_network("c", model.eval(), x, 8, "default")
    output = comparison.variants["snn_convert"]()
    assert "at a crossing" in comparison.accept("snn_convert", output)
    for name, wrong in (("snn_convert", 1.001 * output), ("single-step loop", 1.001 * output), ("ANN", output)):
        with pytest.raises(AssertionError, match="relative error"):
            comparison.accept(name, wrong)

    def one_other_spike(snn, *inputs):
        trains = spikes(snn, *inputs)
        next(iter(trains.values())).bytes[0, 0, 0, 0, 0] ^= 1 << 5
        return trains

    spikes = SpikingModel.spikes
    monkeypatch.setattr(SpikingModel, "spikes", one_other_spike)
    with pytest.raises(AssertionError, match="a spike the loop would not fire"):
        whole_network("c", model, x, 8, "default").accept("snn_convert", output)


def test_full_has_every_quick_case_and_more():
    quick, full = Setting("quick"), Setting("full")
    assert quick.choose((0,), (1, 2), (3,)) == (1, 2)
    assert full.choose((0,), (1, 2), (3,)) == (1, 2, 3)
    on_gpu = ((4,), (5,))
    assert full.choose((0,), (1, 2), (3,), on_gpu) == (1, 2, 3)
    assert Setting("quick", "cuda").choose((0,), (1, 2), (3,), on_gpu) == (4,)
    assert Setting("full", "cuda").choose((0,), (1, 2), (3,), on_gpu) == (4, 5)
    assert Setting("full", "cuda").choose((0,), (1, 2), (3,)) == (1, 2, 3)


def test_resuming_leaves_out_what_was_measured_of_this_source(tmp_path, monkeypatch):
    path, said = tmp_path / "x.json", io.StringIO()
    assert _measured(path, "tiny") == []
    for dirty, revision, expected in ((False, "here", {"packing"}), (True, "here", set()), (False, "there", set())):
        facts = {"revision": "here", "dirty": False, "threads": 1, "torch": "2"}
        monkeypatch.setattr("bench.__main__.machine", lambda facts=facts: facts)
        run(["packing"], TINY, path, Console(file=said))
        now = facts | {"dirty": dirty, "revision": revision}
        monkeypatch.setattr("bench.__main__.machine", lambda now=now: now)
        assert {row.experiment for row in _measured(path, "tiny")} == expected
        assert _measured(path, "full") == []


def test_an_interrupted_experiment_goes_on_behind_its_last_case(tmp_path, monkeypatch):
    facts = {"revision": "here", "dirty": False, "threads": 1, "torch": "2"}
    monkeypatch.setattr("bench.__main__.machine", lambda: dict(facts))
    path, cases = tmp_path / "x.json", []

    def until(last: int | None):
        def counted(experiment, comparison, *options):
            if len(cases) == last:
                raise KeyboardInterrupt
            cases.append(comparison.case)
            return measure(experiment, comparison, *options)

        monkeypatch.setattr("bench.__main__.measure", counted)

    until(1)
    with pytest.raises(KeyboardInterrupt):
        run(["linear"], TINY, path, Console(file=io.StringIO()), resume=True)
    assert {row.case for row in load(path)} == set(cases)
    until(None)
    for _ in range(2):  # the second time it is complete
        run(["linear"], TINY, path, Console(file=io.StringIO()), resume=True)
        assert len(set(cases)) == len(cases) == 2
        assert {row.case for row in load(path)} == set(cases)
        assert not any("unfinished" in row.machine for row in load(path))


def test_libraries_that_cannot_be_imported_are_named(monkeypatch):
    packages = ("spikingjelly", "snntorch", "norse")
    for module in (*packages, *(name for name in sys.modules if name.startswith(packages))):
        monkeypatch.setitem(sys.modules, module, None)
    found = dict(others(torch.rand(3, 4), None, 1.0, hard=True))
    assert found.keys() == {"SpikingJelly", "snnTorch", "Norse"}
    found["FlexSN"] = flexsn(torch.rand(3, 4), schedules.Exponential(), torch.relu)
    assert all(isinstance(call, Missing) and "cannot be used" in call.reason for call in found.values())


def test_a_library_is_called_on_all_steps(monkeypatch):
    """A stand-in with snnTorch's interface, which sees one step after the other and a leaky input scaled."""

    class Leaky:
        def __init__(self, beta, threshold, reset_mechanism, reset_delay):
            assert (beta, threshold, reset_mechanism, reset_delay) == (0.5, 0.25, "subtract", False)

        def to(self, device):
            return self

        def __call__(self, current, membrane):
            return current, membrane + 1

    monkeypatch.setitem(sys.modules, "snntorch", types.SimpleNamespace(Leaky=Leaky))
    current = torch.rand(3, 4)
    call = dict(others(current, 2.0, 0.25, hard=False))["snnTorch"]
    assert torch.equal(call(), current / 2)


def test_flexsn_is_given_the_signgd_step(monkeypatch):
    """A stand-in with its interface: a core from inputs and states to spikes and states, and states that are set."""

    class FlexSN(torch.nn.Module):
        def __init__(self, core, num_states, step_mode):
            super().__init__()
            assert (num_states, step_mode) == (3, "m")
            self.core = core

        def forward(self, current):
            spikes = []
            for now in current:
                spike, *self.states = self.core(now, *self.states)
                spikes.append(spike)
            return torch.stack(spikes)

    neuron = types.SimpleNamespace(FlexSN=FlexSN)
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based.neuron", neuron)
    current, schedule = torch.rand(9, 7), schedules.Exponential()
    call = flexsn(current, schedule, torch.relu)
    wanted = signgd(current, schedule.table(9), "relu")[0].unpack(torch.float32)
    for _ in range(2):  # a call starts anew
        assert torch.equal(call(), wanted)


def test_a_cpu_has_no_cuda_graphs():
    assert graphs({"x": lambda: 1}, TINY) == {}


@pytest.mark.gpu
def test_a_cuda_graph_gives_what_its_call_gives():
    x = torch.rand(5, device="cuda")
    replay = graphs({"x": lambda: x + 1}, Setting("tiny", "cuda"))["x, CUDA graph"]
    for _ in range(2):
        assert torch.equal(replay(), x + 1)
        x += 1
