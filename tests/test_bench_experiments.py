"""Every experiment at its smallest size, from end to end."""

from __future__ import annotations

import io
import sys
import types

import pytest
import torch
from rich.console import Console

from bench.__main__ import _measured, run
from bench.experiments import EXPERIMENTS
from bench.libraries import others
from bench.recipes import MORE
from bench.results import load
from bench.runner import Missing, Setting
from snn_convert.demo.networks import NETWORKS

TINY = Setting("tiny")
# What the smallest sizes are too small for: no recipe gets to 1% in two steps.
WRONG = {"recipes": "not within 1% after"}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:populations that never moved")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(name, tmp_path):
    if name == "conversion":
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


def test_the_networks_of_the_full_recipes_exist():
    assert NETWORKS.keys() >= set(MORE)


def test_full_has_every_quick_case_and_more():
    quick, full = Setting("quick"), Setting("full")
    assert quick.choose((0,), (1, 2), (3,)) == (1, 2)
    assert full.choose((0,), (1, 2), (3,)) == (1, 2, 3)


def test_resuming_leaves_out_what_was_measured_of_this_source(tmp_path, monkeypatch):
    path, said = tmp_path / "x.json", io.StringIO()
    assert _measured(path) == set()
    for dirty, revision, expected in ((False, "here", {"packing"}), (True, "here", set()), (False, "there", set())):
        facts = {"revision": "here", "dirty": False, "threads": 1, "torch": "2"}
        monkeypatch.setattr("bench.__main__.machine", lambda facts=facts: facts)
        run(["packing"], TINY, path, Console(file=said))
        now = facts | {"dirty": dirty, "revision": revision}
        monkeypatch.setattr("bench.__main__.machine", lambda now=now: now)
        assert _measured(path) == expected


def test_libraries_that_cannot_be_imported_are_named(monkeypatch):
    for package in ("spikingjelly", "snntorch", "norse"):
        monkeypatch.setitem(sys.modules, package, None)
    found = dict(others(torch.rand(3, 4), None, 1.0, hard=True))
    assert found.keys() == {"SpikingJelly", "snnTorch", "Norse"}
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
