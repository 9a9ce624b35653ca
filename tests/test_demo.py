"""The demo: data, checkpoints, measurements, and the files of a quick run."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn", reason="the demo's data comes from scikit-learn")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")

from snn_convert import convert, demo
from snn_convert.demo import checkpoints, data, evaluation, networks, raster, results, systems

ROW_KEYS = {
    "network",
    "recipe",
    "timesteps",
    "ann_accuracy",
    "snn_accuracy",
    "agreement",
    "firing_rate",
    "seconds",
    "loop_seconds",
}
NETWORK = demo.QUICK.networks[0]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def split():
    return data.load_split()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One quick run: its folder, what it returned and what it printed."""
    folder = tmp_path_factory.mktemp("quick") / "made" / "by-the-demo"
    terminal = console()
    found = demo.run(folder, demo.QUICK, terminal)
    return SimpleNamespace(folder=folder, results=found, printed=terminal.file.getvalue())


@pytest.fixture(scope="module")
def trained(quick, split):
    """The quick run's network, from its checkpoint."""
    return checkpoints.load(checkpoints.checkpoint_path(quick.folder / "checkpoints", NETWORK, split), NETWORK, split)


# Data


def test_split_is_disjoint_and_complete(split):
    both = torch.cat([split.train_index, split.test_index])
    assert both.sort().values.equal(torch.arange(1797))
    assert len(split.test_index) == len(split.test_labels) == len(split.test_images) == 450
    assert split.train_images.shape == (1347, 1, 8, 8)
    assert split.train_images.dtype == torch.float32
    assert (split.train_images.min(), split.train_images.max()) == (0, 1)


def test_split_is_stratified_and_deterministic(split):
    everything = torch.cat([split.train_labels, split.test_labels]).bincount()
    share = split.test_labels.bincount() / everything
    # A quarter of each class, up to one sample for rounding.
    assert ((share - 0.25).abs() * everything <= 1).all()
    again, other = data.load_split(), data.load_split(seed=1)
    assert again.test_index.equal(split.test_index)
    assert again.train_images.equal(split.train_images)
    assert not other.test_index.equal(split.test_index)


def test_shifts_move_each_image_by_at_most_one_pixel():
    images = torch.zeros(200, 1, 8, 8)
    images[:, 0, 3, 4] = 1
    places = data.shifted(images, torch.Generator().manual_seed(0)).nonzero()
    assert len(places) == 200
    moves = {(row - 3, column - 4) for _, _, row, column in places.tolist()}
    assert moves == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_networks_are_built_alike_every_time(name):
    row = networks.NETWORKS[name]
    first, second = (demo.training.build(row) for _ in range(2))
    assert first(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    for a, b in zip(first.parameters(), second.parameters()):
        assert a.equal(b)


def test_every_family_of_the_paper_is_there():
    assert list(networks.NETWORKS) == ["vgg", "resnet", "convnext", "mlp_mixer", "resmlp", "vit"]
    assert demo.FULL.networks == tuple(networks.NETWORKS.values())


@pytest.mark.parametrize("name", ["convnext", "mlp_mixer", "resmlp", "vit"])
def test_families_beyond_relu_convert(name, split):
    """Some of the training is enough: at T = 64 the spiking network answers as the network does that it came from."""
    network = replace(networks.NETWORKS[name], epochs=8)
    model = demo.training.train(network, split)
    snn = convert(model, evaluation.calibration_batches(split), timesteps=64)
    with torch.inference_mode():
        ann = model(split.test_images)
    assert demo.training.accuracy(ann, split.test_labels) > 0.6
    assert evaluation.share_equal(snn(split.test_images), ann) >= 0.99


# A quick run


def test_rows_of_the_report(quick):
    report = json.loads((quick.folder / "report.json").read_text())
    assert all(set(row) == ROW_KEYS for row in report["rows"])
    assert {field.name for field in fields(evaluation.Row)} == ROW_KEYS
    covered = [(row["network"], row["recipe"], row["timesteps"]) for row in report["rows"]]
    assert covered == [(NETWORK.name, recipe, T) for recipe in ("default", "paper") for T in demo.QUICK.timesteps]
    assert report["rows"] == [asdict(row) for row in quick.results.rows]
    for row in report["rows"]:
        assert all(0 <= row[key] <= 1 for key in ("ann_accuracy", "snn_accuracy", "agreement", "firing_rate"))
        assert row["seconds"] > 0
        assert row["loop_seconds"] > 0
        # Where the two predict the same they are right or wrong together.
        assert abs(row["snn_accuracy"] - row["ann_accuracy"]) <= 1 - row["agreement"] + 1e-9
    assert (report["test_samples"], report["timed_samples"]) == (450, evaluation.TIMED_SAMPLES)
    assert report["versions"]["torch"] == torch.__version__


def test_costs_of_the_report(quick):
    report = json.loads((quick.folder / "report.json").read_text())
    found = dict.fromkeys(cost["system"] for cost in report["costs"])
    # The quick run's network is made of ReLUs, so every system is there.
    assert list(found) == ["default", "paper", *systems.SYSTEMS]
    for cost in report["costs"]:
        assert 0 < cost["firing_rate"] < 1
        assert cost["synaptic_operations"] > 0
        assert cost["energy"] == pytest.approx(0.9 * cost["synaptic_operations"] + 4.6 * cost["macs"])
        assert cost["latency"] >= cost["timesteps"]
    last = {cost["system"]: cost for cost in report["costs"]}
    assert last["default, staggered"]["agreement"] >= 0.99
    assert last["parallel"]["agreement"] >= 0.95
    # Sparse trains: a signGD neuron fires half of the time, these do not.
    assert last["integrate_and_fire"]["firing_rate"] < 0.25
    assert last["parallel"]["firing_rate"] < 0.25


def test_the_quick_run_learns_and_spikes(quick):
    last = {row.recipe: row for row in quick.results.rows}
    assert last["default"].ann_accuracy >= 0.9
    # Far from converged at T = 8, far above the 10 % of guessing.
    assert last["default"].snn_accuracy >= 0.6
    assert 0.2 < last["default"].firing_rate < 0.8
    assert quick.results.loop_agreement >= 0.99


def test_rows_can_be_recomputed(quick, split, trained):
    row = quick.results.rows[-1]
    snn = convert(trained, evaluation.calibration_batches(split), timesteps=row.timesteps, recipe=row.recipe)
    with torch.inference_mode():
        ann = trained(split.test_images).argmax(-1)
    spiking = snn(split.test_images).argmax(-1)
    # A sum in another order may move a spike; one sample of the 450 may follow it.
    assert row.agreement == pytest.approx((spiking == ann).double().mean().item(), abs=1.01 / 450)
    assert row.snn_accuracy == pytest.approx((spiking == split.test_labels).double().mean().item(), abs=1.01 / 450)
    assert row.ann_accuracy == pytest.approx((ann == split.test_labels).double().mean().item(), abs=1e-9)
    assert not set(split.test_index.tolist()) & set(split.train_index.tolist())


def test_default_recipe_at_64_steps_is_within_a_point(split, trained):
    snn = convert(trained, evaluation.calibration_batches(split), timesteps=64)
    with torch.inference_mode():
        ann = demo.training.accuracy(trained(split.test_images), split.test_labels)
    assert abs(demo.training.accuracy(snn(split.test_images), split.test_labels) - ann) <= 0.01


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_step_sizes_are_those_that_convert_chooses(split, trained, recipe):
    calibration = evaluation.calibration_batches(split)
    snn = convert(trained, calibration, timesteps=8, recipe=recipe)
    evaluation.choose_steps(snn, recipe, split, 4)
    wanted = convert(trained, calibration, timesteps=4, recipe=recipe)
    assert (snn.schedule, snn.timesteps) == (wanted.schedule, 4)
    assert torch.equal(snn(split.test_images[:9]), wanted(split.test_images[:9]))


def test_firing_rate_is_the_share_of_all_spikes(split, trained):
    snn = convert(trained, evaluation.calibration_batches(split), timesteps=5, recipe="paper")
    spikes = []
    evaluation.single_step_loop(
        snn, split.test_images[:3], record=lambda t, name, x, target, v, spike: spikes.append(spike.flatten())
    )
    # The simulator and the loop add currents in different orders, which may move a few of 70000 spikes.
    assert snn.profile(split.test_images[:3]).total.firing_rate == pytest.approx(
        torch.cat(spikes).float().mean().item(), abs=1e-3
    )


class Assets(HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags, self.text = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]

    def handle_data(self, text):
        self.text.append(text)


def test_html_is_self_contained_and_complete(quick):
    html = (quick.folder / "report.html").read_text()
    page = Assets()
    page.feed(html)
    pictures = [f"accuracy-{NETWORK.name}.png", "costs.png", "raster.png"]
    assert len(page.sources) == len(pictures)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", html)
    for picture in pictures:
        assert (quick.folder / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for row in quick.results.rows:
        assert "".join(f"<td>{cell}</td>" for cell in results.cells(row)[1:]) in html
    words = " ".join(page.text)
    assert torch.__version__ in words
    assert all(sentence in words for sentence in results.findings(quick.results))


def test_terminal_shows_every_row(quick):
    lines = [re.findall(r"\S+", line) for line in quick.printed.splitlines()]
    for row in quick.results.rows:
        assert results.cells(row) in lines
    assert str(quick.folder / "report.html") in quick.printed


def test_second_run_does_not_train(quick, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(demo, "train", refuse)
    saved = list((quick.folder / "checkpoints").iterdir())
    before = [(path, path.stat().st_mtime_ns) for path in saved]
    plan = replace(demo.QUICK, timesteps=(4,), raster_timesteps=4)
    terminal = console()
    again = demo.run(quick.folder, plan, terminal)
    assert len(saved) == 1
    assert [(path, path.stat().st_mtime_ns) for path in (quick.folder / "checkpoints").iterdir()] == before
    assert again.rows[0].ann_accuracy == quick.results.rows[0].ann_accuracy
    assert "checkpoint" not in terminal.file.getvalue()


# Measurements and words


def test_timing_is_interleaved():
    calls = []

    def call(name):
        return lambda: calls.append(name) or torch.tensor(len(calls))

    first, second, output, other = evaluation.interleaved(call("simulator"), call("loop"))
    assert calls == ["simulator", "loop"] * 3
    assert (output, other) == (5, 6)
    assert first >= 0
    assert second >= 0


def test_slow_runs_are_timed_once(monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))
    calls = []
    first, second, *_ = evaluation.interleaved(lambda: calls.append(1), lambda: calls.append(2))
    assert (calls, first, second) == ([1, 2], 3, 3)


def test_recording_follows_the_dynamics(trained, split):
    recording = raster.record(NETWORK, trained, split, timesteps=9, neurons=7)
    assert recording.spikes.shape == recording.estimate.shape == recording.target.shape == (9, 7)
    assert recording.spikes.bool().equal(recording.estimate >= recording.target)
    step = recording.estimate[1:] - recording.estimate[:-1]
    assert ((step < 0) == recording.spikes[:-1].bool()).all()
    last = recording.target[-1]
    assert last.equal(last.sort().values)


def test_spread_covers_the_range_without_repeating():
    values = torch.tensor([0.0, 0, 0, 0, 3, 0, 1, 2, 0])
    chosen = raster.spread(values, 4)
    assert values[chosen].tolist() == [0, 1, 2, 3]
    assert raster.spread(values, 100).sort().values.tolist() == list(range(9))


def test_findings_admit_times_that_do_not_compare(quick):
    fine = results.findings(quick.results)
    assert not any("not comparable" in sentence for sentence in fine)
    evaluations = tuple(replace(part, loop_agreement=0.5) for part in quick.results.networks[0].evaluations)
    doubtful = replace(quick.results, networks=(replace(quick.results.networks[0], evaluations=evaluations),))
    assert any("50.0%" in sentence and "not comparable" in sentence for sentence in results.findings(doubtful))


def test_findings_are_computed_from_the_rows(quick):
    rows = [
        replace(row, ann_accuracy=0.9, snn_accuracy=0.875, seconds=1.0, loop_seconds=4.0) for row in quick.results.rows
    ]
    part = replace(quick.results.networks[0], evaluations=(evaluation.Evaluation(rows, [], 1.0),), family=())
    sentences = results.findings(replace(quick.results, networks=(part,)))
    assert f"{NETWORK.name} -2.5" in sentences[0]
    assert "4.0 times as long" in sentences[-1]
