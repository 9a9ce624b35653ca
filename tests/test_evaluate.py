"""``snn-convert eval``: counts over a data set, by one process and by several."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from converted import converted
from models import images
from snn_convert import cli, convert
from snn_convert.evaluate import count_correct
from snn_kernels.schedules import Exponential

SAMPLES = 37  # no multiple of any batch size here


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A saved network, and data that it is right on at the last step except for five samples."""
    folder = tmp_path_factory.mktemp("eval")
    snn, x = converted("cnn"), images(SAMPLES)
    y = snn(x).argmax(1)
    y[:5] = (y[:5] + 1) % 5
    snn.save(folder / "cnn.snn")
    np.savez(folder / "data.npz", x=x.double().numpy(), y=y.int().numpy())
    torch.save({"x": x, "y": y}, folder / "data.pt")
    right = [(output.argmax(1) == y).sum().item() for output in snn.outputs_at(x, steps=[2, 9])]
    return SimpleNamespace(folder=folder, snn=snn, x=x, y=y, right=dict(zip((2, 9), right)))


def evaluated(given, tmp_path, *options: str, data: str = "data.npz") -> dict:
    model, out = given.folder / "cnn.snn", tmp_path / "out.json"
    arguments = ["eval", str(model), "--data", str(given.folder / data), "--json", str(out), *options]
    assert cli.main(arguments) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("data", ["data.npz", "data.pt"])
@pytest.mark.parametrize("batch", ["1", "8", "64"])
def test_counts(given, tmp_path, data, batch, capsys):
    found = evaluated(given, tmp_path, "--batch", batch, "--timesteps", "2", "9", data=data)
    assert found["correct"] == {"2": given.right[2], "9": SAMPLES - 5}
    assert (found["samples"], found["processes"]) == (SAMPLES, 1)
    assert found["accuracy"]["9"] == (SAMPLES - 5) / SAMPLES
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["9", "32", "86.49%"] in lines


def test_all_steps_by_default(given, tmp_path):
    assert list(evaluated(given, tmp_path)["correct"]) == ["9"]


def test_a_network_with_an_onset_delay_is_read_at_its_end_and_arguments_come_by_name(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 5))

        def forward(self, *, x):
            return self.layers(x)

    torch.manual_seed(0)
    x = torch.randn(SAMPLES, 6)
    snn = convert(Named(), [{"x": x}], timesteps=4, onset_delay=4, schedule=Exponential(0.5, 0.7))
    y = snn(x=x).argmax(1)
    snn.save(tmp_path / "cnn.snn")
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    found = evaluated(SimpleNamespace(folder=tmp_path), tmp_path)
    assert found["correct"] == {str(snn.latency): SAMPLES}
    assert snn.latency > 4


def run_processes(given, tmp_path, count: int, *options: str) -> subprocess.CompletedProcess:
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), str(root / "python")])
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "snn_convert.cli"]
    return subprocess.run(
        [sys.executable, *launch, "eval", str(given.folder / "cnn.snn"), *options],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_two_processes_count_what_one_counts(given, tmp_path):
    """37 samples in batches of 8 are five batches: three for one process, two and a short one between them."""
    one = evaluated(given, tmp_path, "--batch", "8", "--timesteps", "2", "9")
    out = tmp_path / "two.json"
    options = ("--data", str(given.folder / "data.npz"), "--batch", "8", "--timesteps", "2", "9", "--json", str(out))
    done = run_processes(given, tmp_path, 2, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()) == {**one, "processes": 2}
    assert done.stdout.count("37 samples") == 1  # one of them speaks


def test_an_error_in_several_processes_ends_them_all(given, tmp_path):
    done = run_processes(given, tmp_path, 2, "--data", str(tmp_path / "none.npz"))
    assert done.returncode != 0
    assert f"{tmp_path / 'none.npz'}: No such file" in done.stderr.replace("\n", "")


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_sample_belongs_to_one_process(given, world, monkeypatch):
    """Also where there are more processes than batches."""
    seen = []
    monkeypatch.setattr("snn_convert.evaluate.dist.all_reduce", lambda counts: None)
    run = given.snn.outputs_at
    monkeypatch.setattr(given.snn, "outputs_at", lambda x, steps: seen.append(x) or run(x, steps=steps))
    parts = [count_correct(given.snn, {"x": given.x}, given.y, [9], 8, rank, world) for rank in range(world)]
    assert sum(part.samples for part in parts) == SAMPLES
    assert sum(part.correct[9] for part in parts) == SAMPLES - 5
    together = torch.cat(seen)
    assert torch.equal(together.flatten(1).sum(1).sort().values, given.x.flatten(1).sum(1).sort().values)


def test_inputs_by_name_and_outputs_in_a_dict():
    class TwoInputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, a, b):
            return {"hidden": a, "logits": self.layer(torch.relu(a + b))}

    torch.manual_seed(0)
    inputs = {"a": torch.randn(11, 4), "b": torch.randn(11, 4)}
    snn = convert(TwoInputs(), [inputs], timesteps=9, schedule=Exponential(0.3, 0.8))
    labels = snn(**inputs)["logits"].argmax(1)
    assert count_correct(snn, inputs, labels, [9], 4).correct == {9: 11}
    half = count_correct(snn.bfloat16(), inputs, labels, [9], 4)
    assert half.samples == 11
    assert half.correct[9] >= 9  # rounding to 8 bits may turn a close decision


def refused(given, capsys, *options: str, model: str | None = None) -> str:
    assert cli.main(["eval", model or str(given.folder / "cnn.snn"), *options]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return captured.err.replace("\n", "")


def test_files_that_do_not_fit(given, capsys, tmp_path):
    data = str(given.folder / "data.npz")
    assert f"{tmp_path / 'none.snn'}: No such file" in refused(
        given, capsys, "--data", data, model=str(tmp_path / "none.snn")
    )
    assert f"{data}: not a converted network" in refused(given, capsys, "--data", data, model=data)
    for name in ("none.npz", "none.pt"):
        assert f"{tmp_path / name}: No such file" in refused(given, capsys, "--data", str(tmp_path / name))
    for name, message in (("a.npz", "cannot be read"), ("a.pt", "cannot be read"), ("a.csv", "ends in .npz or .pt")):
        (tmp_path / name).write_text("1,2,3")
        error = refused(given, capsys, "--data", str(tmp_path / name))
        assert str(tmp_path / name) in error
        assert message in error
    whole = (given.folder / "data.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    assert "half.npz: not an archive, or truncated" in refused(given, capsys, "--data", str(tmp_path / "half.npz"))


X, Y = np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"expected the arrays x .* and y; it has x"),
        ({"y": Y}, "it has y"),
        ({"images": X, "labels": Y}, "it has images, labels"),
        ({"x": X, "y": Y[:3]}, r"x has shape \(4, 1, 8, 8\), y has 3 samples"),
        ({"x": X, "y": Y.astype(np.float32)}, "y: expected the class of every sample as integers"),
        ({"x": X, "y": Y.astype(bool)}, "y: expected the class of every sample as integers .* of torch.bool"),
        ({"x": X[:0], "y": Y[:0]}, "y: expected the class of every sample as integers"),
        ({"x": X, "y": Y + 5}, "y: expected classes from 0 to 4, got 5 to 5"),
        ({"x": X[..., :7], "y": Y}, r"input: expected shape \['any', 1, 8, 8\]"),
        ({"x": X, "z": X, "y": Y}, "inputs: expected positional arguments input; got keyword"),
        ({"x": X.astype(object), "y": Y}, "cannot be read: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit(given, capsys, tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    assert re.search(message, refused(given, capsys, "--data", str(tmp_path / "data.npz")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--timesteps", "10"), "steps: expected integers from 1 to timesteps=9"),
        (("--batch", "0"), "batch: expected an integer >= 1, got 0"),
    ],
)
def test_options_that_do_not_fit(given, capsys, options, message):
    assert message in refused(given, capsys, "--data", str(given.folder / "data.npz"), *options)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64, np.int8])
def test_labels_of_any_integers(given, tmp_path, dtype):
    np.savez(given.folder / "short.npz", x=given.x.numpy(), y=given.y.numpy().astype(dtype))
    assert evaluated(given, tmp_path, data="short.npz")["correct"]["9"] == SAMPLES - 5


def test_tokens_beyond_the_table(tmp_path, capsys):
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(20, 3))
    tokens = torch.arange(40).reshape(8, 5)
    convert(model, [tokens % 10], timesteps=2, schedule=Exponential(0.3, 0.8)).save(tmp_path / "tokens.snn")
    np.savez(tmp_path / "data.npz", x=tokens.numpy(), y=np.zeros(8, np.int64))
    options = ("--data", str(tmp_path / "data.npz"), "--batch", "2")
    assert "inputs: samples 2 to 3: index out of range" in refused(
        None, capsys, *options, model=str(tmp_path / "tokens.snn")
    )


def test_an_output_file_in_no_folder_is_refused_before_the_work(given, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.SpikingModel, "load", lambda path: pytest.fail("work began before the folder was tried"))
    out = tmp_path / "none" / "out.json"
    options = ("--data", str(given.folder / "data.npz"), "--json", str(out))
    assert f"--json: expected a file in a folder that is there, got {out}" in refused(given, capsys, *options)


def test_a_failed_write_names_the_users_file_and_keeps_the_table(given, capsys, tmp_path):
    options = ("--data", str(given.folder / "data.npz"), "--json", str(tmp_path))
    assert cli.main(["eval", str(given.folder / "cnn.snn"), *options]) == 2
    captured = capsys.readouterr()
    assert "86.49%" in captured.out
    assert f"error: {tmp_path}: Is a directory" in captured.err


def test_more_processes_than_gpus(given, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "process 1 of this machine has no GPU: there are 1" in refused(
        given, capsys, "--data", str(given.folder / "data.npz")
    )


@pytest.mark.gpu
def test_nccl(given, tmp_path):
    """One process a GPU, started by torchrun: the counts meet over NCCL."""
    out = tmp_path / "nccl.json"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "snn_convert.cli"]
    options = ["--data", str(given.folder / "data.npz"), "--batch", "8", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, *launch, "eval", str(given.folder / "cnn.snn"), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # Sums in another order may turn a close decision.
    assert abs(json.loads(out.read_text())["correct"]["9"] - (SAMPLES - 5)) <= 2
