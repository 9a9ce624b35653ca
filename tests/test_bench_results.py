"""The bench's timing, its files, their comparison and their pages, on made-up computations and times."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from rich.console import Console
from torch._dynamo.exc import FailOnRecompileLimitHit

from bench.__main__ import main
from bench.compare import changes, report
from bench.experiments import EXPERIMENTS
from bench.machine import cpu, file_name, machine
from bench.memory import peak_bytes
from bench.render import render
from bench.results import Row, load, store
from bench.roofline import Roofline, measured
from bench.runner import Comparison, Missing, Variant, Work, compiled, measure, quantiles

CEILING = Roofline(copy=1e9, gemm={"float32": 1e9})


def row(experiment="e", case="c", variant="v", times=(1.0, 1.1, 1.2), **facts) -> Row:
    p20, p50, p80 = times or (None, None, None)
    return Row(experiment, case, variant, "v", p20=p20, p50=p50, p80=p80, **facts)


def comparison(**options) -> Comparison:
    def accept(_: str, output: int) -> str:
        if output != 42:
            raise AssertionError(f"{output} is not 42")
        return "42"

    variants = {
        "slow": lambda: time.sleep(0.004) or int(torch.full((250_000,), 42.0)[0]),
        "fast": Variant(lambda: time.sleep(0.001) or 42, Work(operations=10**5), {"steps": 3}),
        "wrong": lambda: 41,
        "failing": lambda: 1 // 0,
        "absent": Missing("not installed"),
    }
    return Comparison("case", variants, "slow", accept, (2, 3), torch.float32, 8, Work(bytes=10**6), **options)


def test_a_variant_with_a_wrong_answer_has_no_time():
    slow, fast, wrong, failing, absent = measure("e", comparison(), CEILING, 5, 60.0)
    assert wrong.p20 is wrong.p50 is wrong.p80 is wrong.speedup is wrong.roofline is None
    assert (wrong.error, failing.error) == ("41 is not 42", "ZeroDivisionError: integer division or modulo by zero")
    assert (absent.missing, absent.error, absent.p50) == ("not installed", "", None)
    assert slow.correctness == fast.correctness == "42"
    assert (slow.rounds, wrong.rounds) == (5, 0)


def test_times_ratios_and_ceilings():
    slow, fast, *_ = measure("e", comparison(), CEILING, 5, 60.0)
    assert 4 <= slow.p20 <= slow.p50 <= slow.p80  # sleep never ends early
    assert fast.speedup > 1
    # A millisecond for the bytes at the made-up ceiling; a tenth of one for the operations.
    assert slow.roofline == pytest.approx(1 / slow.p50)
    assert fast.roofline == pytest.approx(0.1 / fast.p50)
    assert (slow.bound, fast.bound) == ("copy", "gemm")
    assert (slow.shape, slow.dtype, slow.timesteps, fast.facts) == ([2, 3], "float32", 8, {"steps": 3})


def test_rounds_end_when_the_time_is_over_and_what_runs_once_is_timed_once():
    assert measure("e", comparison(), CEILING, 50, 0.0)[0].rounds == 3
    assert measure("e", comparison(once=True), CEILING, 50, 60.0)[0].rounds == 1


def test_the_peak_of_memory_is_of_what_lives_at_a_time():
    kept = torch.zeros(1024, device="cuda" if torch.cuda.is_available() else "cpu")

    def run() -> torch.Tensor:
        first = kept.clone()
        second = first.clone()
        del first
        return second.clone()  # together with the second

    assert [peak_bytes(run) for _ in range(2)] == [8192, 8192]
    assert peak_bytes(lambda: None) == 0


NEW_PAGES = """
import resource, torch
from bench.memory import keep_memory
if {keep}:
    assert keep_memory()
for _ in range(20):  # aligned blocks of one size do not fit where one was: a few are new before some are neighbours
    torch.zeros(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.zeros(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_that_is_kept_is_no_new_pages():
    def new_pages(keep: bool) -> int:
        command = [sys.executable, "-c", NEW_PAGES.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert new_pages(keep=True) < 32  # a tensor is 16384 pages of 4 KB, or 32 of 2 MB
    assert new_pages(keep=False) >= 4 * 32


def test_every_shape_is_compiled_or_none_is_run(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append([tuple(x.shape) for x in inputs])
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        double = compiled(lambda x: 2 * x)
        limit = torch._dynamo.config.recompile_limit
        shapes = [(n,) for n in range(2, limit + 2)]
        for shape in shapes:
            assert torch.equal(double(torch.ones(shape)), torch.full(shape, 2.0))
        assert graphs == [[shape] for shape in shapes]
        with pytest.raises(FailOnRecompileLimitHit):
            double(torch.ones(1000))


def test_images_and_memory_become_facts_of_what_is_right():
    slow, fast, wrong, *_ = measure("e", comparison(images=4, memory=True), CEILING, 3, 60.0)
    assert slow.facts == {"ms per image": pytest.approx(slow.p50 / 4), "peak MB": pytest.approx(1, abs=0.01)}
    assert fast.facts == {"ms per image": pytest.approx(fast.p50 / 4), "steps": 3}  # it allocates nothing
    assert wrong.facts == {}


def test_quantiles():
    assert quantiles([3.0]) == (3.0, 3.0, 3.0)
    assert quantiles([5.0, 1.0, 2.0, 4.0, 3.0, 6.0]) == (2.0, 3.5, 5.0)


def test_a_ceiling_is_the_longer_time():
    roofline = Roofline(copy=100.0, gemm={"float32": 1000.0, "bfloat16": 4000.0})
    assert roofline.fraction(100, 500, "float32", 2.0) == (0.5, "copy")
    assert roofline.fraction(100, 8000, "bfloat16", 4.0) == (0.5, "gemm")
    assert roofline.fraction(0, 8000, "float16", 16.0) == (0.5, "gemm")
    assert roofline.fraction(0, 0, "float32", 1.0) == (None, "")
    here = measured("cpu", tiny=True)
    assert here.copy > 0
    assert here.gemm.keys() == {"float32", "bfloat16"}


def test_the_machine_and_its_file():
    where = machine()
    assert {"driver", "torch", "triton", "compiler", "revision", "dirty", "date", "threads"} <= where.keys()
    where |= {"cpu": "AMD EPYC", "threads": 2, "gpu": "none"}
    assert file_name(where) == "amd-epyc-2-threads.json"
    assert file_name(where | {"gpu": "NVIDIA H200"}) == "nvidia-h200-amd-epyc-2-threads.json"


def test_processors_that_share_a_name_are_told_apart(tmp_path):
    info = tmp_path / "cpuinfo"
    fields = {"processor": "0", "cpu family": "25", "model": "17", "model name": "AMD EPYC"}
    one, other = ("".join(f"{key}\t: {value}\n" for key, value in (fields | {"model": m}).items()) for m in (17, 2))
    info.write_text(one + "\n" + other)
    assert cpu(info) == "AMD EPYC family 25 model 17"
    info.write_text(one.replace("AMD EPYC", "AMD EPYC 9654 96-Core Processor"))
    assert cpu(info) == "AMD EPYC 9654 96-Core Processor"
    assert cpu(tmp_path / "none") != ""


def test_results_are_merged_case_by_case_and_experiment_by_experiment(tmp_path):
    path = tmp_path / "folder" / "x.json"
    store(path, [row("a", "1"), row("a", "2"), row("b", "1")])
    store(path, [row("a", "2", times=(5.0, 5.0, 5.0)), row("c", "1")])
    assert [(r.experiment, r.case, r.p50) for r in load(path)] == [
        ("a", "1", 1.1), ("b", "1", 1.1), ("a", "2", 5.0), ("c", "1", 1.1),
    ]  # fmt: skip
    store(path, [row("a", "3")], whole=True)
    assert [(r.experiment, r.case) for r in load(path)] == [("b", "1"), ("c", "1"), ("a", "3")]
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"rows": [{"surprise": 1}]}', "[]"])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="expected a file of results"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ((1.0, 1.1, 1.2), (1.0, 1.1, 1.2), ""),
        ((1.0, 1.1, 1.2), (1.3, 1.4, 1.5), "slower"),
        ((1.3, 1.4, 1.5), (1.0, 1.1, 1.2), "faster"),
        ((1.0, 1.1, 1.5), (1.4, 1.6, 1.7), ""),  # the middle rounds overlap
        ((1.0, 1.01, 1.02), (1.03, 1.04, 1.05), ""),  # apart, but by less than runs drift
        ((1.0, 1.1, 1.2), None, "failing"),
        (None, (1.0, 1.1, 1.2), ""),
    ],
)
def test_what_changed_beyond_the_noise(old, new, kind):
    found = changes([row(times=old)], [row(times=new, error="" if new else "wrong")])
    assert [change.kind for change in found] == ([kind] if kind else [])


def test_a_library_that_is_gone_is_no_failure():
    (change,) = changes([row()], [row(times=None, missing="not installed")])
    assert change.kind == "missing"
    assert report([row()], [row(times=None, missing="not installed")], Console(file=io.StringIO())) == 0


def test_compare_command(tmp_path, capsys):
    slower = replace(row(case="2", times=(2.0, 2.1, 2.2)), machine={"cpu": "another"})
    store(tmp_path / "old.json", [row(), row(case="2"), row(case="gone")])
    store(tmp_path / "new.json", [row(), slower, row(case="fresh")])
    files = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    assert main(["compare", *files]) == 1
    said = capsys.readouterr().out
    assert "1 slower, 0 failing, 0 faster, 0 missing, of 2 in both files" in said
    assert "not the same cpu" in said
    assert main(["compare", *files[::-1]]) == 0
    assert main(["compare", files[0], files[0]]) == 0


def test_render_writes_a_page_and_its_plots(tmp_path):
    where = {**machine(), "copy": 2e10, "gemm": {"float32": 1e11}}
    rows = [row("growth", f"T={t}", v, sweep="T", facts={"T": t}, machine=where) for t in (8, 16) for v in ("v", "w")]
    rows += [row("recipes", "net", "v", facts={"steps": 4}), row("recipes", "net", "w", None, error="not | within 1%")]
    rows += [row("nothing", times=None, missing="not installed")]
    path = tmp_path / "x.json"
    store(path, rows)
    page = render(path).read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"x.json", "x.md", "x-growth.png", "x-recipes.png"}
    assert "| T=8 | *v* | 1 | 1.1 | 1.2 |" in page
    assert "not \\| within 1%" in page
    assert EXPERIMENTS["growth"].honest in page
    assert "copy 20.0 GB/s, matrix product 100 GFLOP/s float32" in page
    assert "![growth](x-growth.png)" in page
    assert "![nothing]" not in page


def test_the_list_and_what_takes_full(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in EXPERIMENTS)
    with pytest.raises(SystemExit):
        main(["--experiment", "conversion"])
    assert "--experiment conversion: takes --full" in capsys.readouterr().err


def test_the_stored_results_load_and_compare():
    """Those that the repository carries."""
    from bench.__main__ import RESULTS

    files = [
        path for path in RESULTS.glob("*.json") if "experiment" in (json.loads(path.read_text())["rows"] or [{}])[0]
    ]
    assert files
    assert all(not changes(load(path), load(path)) for path in files)
