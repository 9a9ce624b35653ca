"""The demo's checkpoints: kept, checked, and trained again when they are not what they should be."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn", reason="the demo's data comes from scikit-learn")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")

from snn_convert import demo
from snn_convert.demo import checkpoints, data, files, networks

NETWORK = demo.QUICK.networks[0]


@pytest.fixture(scope="module")
def split():
    return data.load_split()


@pytest.fixture
def saved(split, tmp_path):
    """A network that stands for a trained one, and its checkpoint."""
    model = demo.training.build(NETWORK).eval().requires_grad_(False)
    path = checkpoints.checkpoint_path(tmp_path, NETWORK, split)
    checkpoints.save(path, NETWORK, model, split)
    return SimpleNamespace(model=model, path=path, folder=tmp_path)


def obtain(saved, split, monkeypatch):
    """How often :func:`demo.obtain` trained, and what it printed."""
    calls = []
    monkeypatch.setattr(demo, "train", lambda *arguments: calls.append(arguments) or saved.model)
    terminal = Console(file=io.StringIO(), width=200)
    demo.obtain(NETWORK, split, saved.folder, terminal)
    return len(calls), re.sub(r"\s+", " ", terminal.file.getvalue())


def test_good_checkpoint_is_used_in_silence(saved, split, monkeypatch):
    before = saved.path.stat().st_mtime_ns
    assert obtain(saved, split, monkeypatch) == (0, "")
    assert saved.path.stat().st_mtime_ns == before


def truncated(path, split):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "cannot be read"


def empty(path, split):
    path.write_bytes(b"")
    return "cannot be read"


def foreign(path, split):
    torch.save({"weights": torch.zeros(3)}, path)
    return "not a checkpoint of this demo"


def malicious(path, split):
    torch.save({"format": checkpoints.FORMAT, "state": SimpleNamespace()}, path)
    return "cannot be read"


def of_another_network(path, split):
    other = networks.NETWORKS["vgg"]
    checkpoints.save(path, other, demo.training.build(other).eval(), split)
    return "another network"


def missing_weights(path, split):
    content = torch.load(path, weights_only=True)
    content["state"].popitem()
    torch.save(content, path)
    return "do not fit"


def damaged_weights(path, split):
    content = torch.load(path, weights_only=True)
    next(value for name, value in content["state"].items() if name.endswith("weight")).mul_(1.1)
    torch.save(content, path)
    return "damaged"


def not_a_number(path, split):
    content = torch.load(path, weights_only=True)
    next(iter(content["state"].values())).fill_(torch.nan)
    torch.save(content, path)
    return "damaged"


@pytest.mark.parametrize(
    "spoil",
    [truncated, empty, foreign, malicious, of_another_network, missing_weights, damaged_weights, not_a_number],
)
def test_spoilt_checkpoint_is_trained_again(spoil, saved, split, monkeypatch):
    reason = spoil(saved.path, split)
    trainings, printed = obtain(saved, split, monkeypatch)
    assert trainings == 1
    assert reason in printed
    assert f"training {NETWORK.name} again" in printed
    loaded = checkpoints.load(saved.path, NETWORK, split)
    assert not loaded.training
    for name, value in saved.model.state_dict().items():
        assert loaded.state_dict()[name].equal(value)


def test_other_settings_have_another_checkpoint(split, tmp_path):
    changes = ({"epochs": 5}, {"learning_rate": 1e-3}, {"build": networks.vgg}, {"name": "other"})
    rows = [NETWORK, *(replace(NETWORK, **change) for change in changes)]
    assert len({checkpoints.checkpoint_path(tmp_path, row, split) for row in rows}) == len(rows)
    described = replace(NETWORK, description="other words")
    assert checkpoints.checkpoint_path(tmp_path, described, split) == checkpoints.checkpoint_path(
        tmp_path, NETWORK, split
    )


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.txt"
    files.write_text(path, "old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(files.OutputError, match=r"kept\.txt: No space left"):
        files.write_text(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("kept.txt", "old")]
