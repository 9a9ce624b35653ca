"""The command ``snn-convert``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

import snn_kernels
from snn_convert import cli


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")


def test_info_prints_every_backend_with_its_reason(capsys):
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    for backend in snn_kernels.backends().values():
        line = next(line for line in printed.splitlines() if f" {backend.name} " in line)
        assert (" yes " if backend.available else " no ") in line
        assert backend.reason in line


def test_info_prints_versions_and_build(capsys):
    cli.main(["info"])
    printed = capsys.readouterr().out
    for value in (snn_kernels.__version__, torch.__version__, sys.version.split()[0], "triton"):
        assert value in printed
    from snn_kernels import _C

    for value in (_C.isa, _C.compiler, _C.cuda_architectures or "built without CUDA"):
        assert value in printed


def test_info_names_the_reason_of_a_missing_backend(capsys, monkeypatch):
    lost = {"cpu": snn_kernels.Backend("cpu", False, "lost [at sea]")}
    monkeypatch.setattr(cli.snn_kernels, "backends", lambda: lost)
    cli.main(["info"])
    assert "lost [at sea]" in capsys.readouterr().out


def test_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "snn_convert.cli", "info"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "reference" in done.stdout


def test_version_and_usage(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert snn_kernels.__version__ in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demonstrate"])


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_missing_extra_is_named(module, package, capsys, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert package in message
    assert 'pip install "snn-kernels[demo]"' in message
    assert not (tmp_path / "out").exists()


class TestDemo:
    @pytest.fixture(autouse=True)
    def extras(self):
        pytest.importorskip("sklearn", reason="the demo's data comes from scikit-learn")
        pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")

    @pytest.mark.parametrize("place", ["a-file", "a-file/below"])
    def test_unwritable_folder(self, place, capsys, monkeypatch, tmp_path):
        from snn_convert import demo

        monkeypatch.setattr(demo, "load_split", lambda: pytest.fail("work began before the folder was tried"))
        (tmp_path / "a-file").write_text("mine")
        assert cli.main(["demo", "--out", str(tmp_path / place)]) == 2
        captured = capsys.readouterr()
        assert f"cannot write to the output folder {tmp_path / place}" in captured.err
        assert "Traceback" not in captured.err + captured.out
        assert (tmp_path / "a-file").read_text() == "mine"

    def test_options_reach_the_demo(self, monkeypatch, tmp_path):
        from snn_convert import demo

        calls = []
        monkeypatch.setattr(demo, "run", lambda *arguments: calls.append(arguments))
        assert cli.main(["demo", "--quick", "--out", str(tmp_path)]) == 0
        assert cli.main(["demo"]) == 0
        (quick_out, quick_plan), (out, plan) = calls
        assert (quick_out, quick_plan) == (tmp_path, demo.QUICK)
        assert (str(out), plan) == ("demo-report", demo.FULL)
        assert plan.timesteps == (4, 8, 16, 32, 64, 128)
        assert len(plan.networks) == 6

    def test_interruption(self, capsys, monkeypatch):
        from snn_convert import demo

        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(demo, "run", interrupted)
        assert cli.main(["demo"]) == 130
        assert "interrupted" in capsys.readouterr().err
