"""``snn-convert eval``: the accuracy of a saved network over a data set, by one process or by several."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from .files import replacing
from .model import SpikingModel

__all__ = ["Counts", "DataError", "count_correct", "load_data", "processes", "write_json"]

LABELS, INPUT = "y", "x"


class DataError(ValueError):
    """A data file that is not what is expected; the message begins with its path."""


@dataclass(frozen=True)
class Counts:
    """How many samples there are, and how many of them are classified right after each number of steps."""

    samples: int
    correct: dict[int, int]

    @property
    def accuracy(self) -> dict[int, float]:
        return {steps: count / self.samples for steps, count in self.correct.items()}


def load_data(path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs by name and the labels ``y`` of a file of arrays: ``.npz``, or ``.pt`` with a dict of tensors.

    Nothing is unpickled but tensors.

    Raises:
        OSError: the file cannot be opened.
        DataError: another kind of file, no ``y`` or nothing beside it, labels that are no list of classes, arrays of
            different lengths.
    """
    arrays = _arrays(path)
    if LABELS not in arrays or len(arrays) < 2:
        found = ", ".join(arrays) or "none"
        raise DataError(
            f"{path}: expected the arrays {INPUT} (or one an argument, by its name) and {LABELS}; it has {found}"
        )
    labels = arrays.pop(LABELS)
    of_integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.ndim != 1 or not of_integers or not len(labels):
        form = f"{tuple(labels.shape)} of {labels.dtype}"
        raise DataError(f"{path}: {LABELS}: expected the class of every sample as integers [N], got shape {form}")
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(labels):
            raise DataError(f"{path}: {name} has shape {tuple(array.shape)}, {LABELS} has {len(labels)} samples")
    return arrays, labels.long()


def _arrays(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".npz", ".pt"):
        raise DataError(f"{path}: expected a file that ends in .npz or .pt")
    with path.open("rb"):  # so that a file that is not there says so, whatever its kind
        pass
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: torch.from_numpy(file[name]) for name in file.files}
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # Readers raise whatever they meet in a damaged file: no narrower class covers them.
    except Exception as error:
        truncated = isinstance(error, (zipfile.BadZipFile, EOFError))
        raise DataError(
            f"{path}: {'not an archive, or truncated' if truncated else 'cannot be read'}: {error}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path}: expected a dict of tensors, got {type(found).__name__}")
    return found


@contextmanager
def processes() -> Iterator[tuple[int, int, torch.device]]:
    """This process's rank, their number and its device: alone, or one of those that torchrun started.

    They meet over NCCL where there are GPUs, one a process, and else over gloo.

    Raises:
        ValueError: more processes on this machine than it has GPUs.
    """
    gpus = torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_RANK", 0))
    if gpus and local >= gpus:
        raise ValueError(f"process {local} of this machine has no GPU: there are {gpus}; start one process a GPU")
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if not dist.is_torchelastic_launched():
        yield 0, 1, device
        return
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size(), device
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def count_correct(
    snn: SpikingModel,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
    steps: Sequence[int],
    batch: int,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[Sequence], Sequence] = iter,
) -> Counts:
    """Classify every sample once and count what is right after each of ``steps``.

    Batches go to the processes in turn and are the same for any number of them, so that each prediction is too. The
    counts are integers and are added over all processes; every process returns the sums.

    Raises:
        ValueError: ``batch`` < 1, a step beyond those of ``snn``, inputs that do not fit it, a token or a label beyond
            those that there are.
        TypeError: inputs of another structure or dtype than the network takes.
    """
    if batch < 1:
        raise ValueError(f"batch: expected an integer >= 1, got {batch}")
    device = snn.eta.device
    by_place = list(inputs) == [INPUT] and [node.target for node in snn.engine.inputs] != [INPUT]
    counts = torch.zeros(1 + len(steps), dtype=torch.int64, device=device)
    for start in progress(range(rank * batch, len(labels), world * batch)):
        part = slice(start, start + batch)
        given = {name: _as_input(snn, array[part]) for name, array in inputs.items()}
        wanted = labels[part].to(device)
        args, kwargs = ((given[INPUT],), {}) if by_place else ((), given)
        try:
            outputs = snn.outputs_at(*args, steps=list(steps), **kwargs)
        except IndexError as error:  # of an embedding
            raise ValueError(f"inputs: samples {start} to {start + len(wanted) - 1}: {error}") from error
        for place, output in enumerate(outputs):
            counts[1 + place] += _right(output, wanted)
        counts[0] += len(wanted)
    if world > 1:
        dist.all_reduce(counts)
    samples, *correct = counts.tolist()
    return Counts(samples, dict(zip(steps, correct)))


def _as_input(snn: SpikingModel, array: Tensor) -> Tensor:
    """Analog inputs in the network's precision, whatever they are stored in."""
    dtype = snn.engine.precision if array.is_floating_point() else array.dtype
    return array.to(snn.eta.device, dtype)


def _right(output: Any, labels: Tensor) -> Tensor:
    logits = output if isinstance(output, Tensor) else output.get("logits") if hasattr(output, "get") else None
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(
            f"model: expected logits [B, classes], or them as 'logits' of a dict; got {type(output).__name__}"
        )
    least, most = labels.min().item(), labels.max().item()
    if least < 0 or most >= logits.shape[1]:
        raise ValueError(f"{LABELS}: expected classes from 0 to {logits.shape[1] - 1}, got {least} to {most}")
    return (logits.argmax(1) == labels).sum()


def write_json(path: Path, counts: Counts, **about: Any) -> None:
    """Write the counts and what they are of."""
    found = {**about, "samples": counts.samples, "correct": counts.correct, "accuracy": counts.accuracy}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
