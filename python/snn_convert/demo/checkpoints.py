"""Trained networks on disk, so that a second run of the demo does not train again."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from .data import Split
from .files import write_bytes
from .networks import Network
from .training import BATCH_SIZE, SEED, build

__all__ = ["CheckpointError", "checkpoint_path", "load", "save"]

FORMAT = "snn-convert demo checkpoint 1"
PROBE_SAMPLES = 16
# The probe is answered again by the same weights, perhaps with another number of threads or another CPU: only the
# order of float32 sums may differ, which moves outputs of size 10 by less than 1e-4.
PROBE_TOLERANCE = 1e-3


class CheckpointError(Exception):
    """The file is not a checkpoint of this network, or is damaged; the message says which."""


def fingerprint(network: Network, split: Split) -> str:
    """A hash of everything that training depends on: modules, shapes, settings and the training images."""
    settings = {key: value for key, value in asdict(network).items() if key not in ("build", "description")}
    model = build(network)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    text = json.dumps([FORMAT, settings, BATCH_SIZE, SEED, repr(model), shapes], sort_keys=True)
    images = split.train_images.numpy().tobytes() + split.train_labels.numpy().tobytes()
    return hashlib.sha256(text.encode() + images).hexdigest()[:16]


def checkpoint_path(folder: Path, network: Network, split: Split) -> Path:
    """Where the checkpoint of ``network`` lies; another network or other settings lie elsewhere."""
    return folder / f"{network.name}-{fingerprint(network, split)}.pt"


def _probe(model: nn.Module, split: Split) -> Tensor:
    with torch.inference_mode():
        return model(split.train_images[:PROBE_SAMPLES]).clone()


def save(path: Path, network: Network, model: nn.Module, split: Split) -> None:
    """Writes the state and the network's answers to a few training images, which :func:`load` checks."""
    content = {
        "format": FORMAT,
        "fingerprint": fingerprint(network, split),
        "state": model.state_dict(),
        "probe": _probe(model, split),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path, network: Network, split: Split) -> nn.Module:
    """The trained network in evaluation mode.

    Raises:
        CheckpointError: the file cannot be read, is of another network, or its weights do not give the answers
            they gave when they were saved.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever its zip reader and unpickler meet in a damaged file: no narrower class covers them.
    except Exception as error:
        raise CheckpointError(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError("it is not a checkpoint of this demo")
    if content.get("fingerprint") != fingerprint(network, split):
        raise CheckpointError("it is of another network or of other training settings")
    model = build(network)
    try:
        model.load_state_dict(content["state"])
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise CheckpointError("its weights do not fit the network") from error
    model = model.eval().requires_grad_(False)
    answers, stored = _probe(model, split), content.get("probe")
    if not isinstance(stored, Tensor) or stored.shape != answers.shape:
        raise CheckpointError("the answers to check it by are missing")
    if not torch.allclose(answers, stored, rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE):
        raise CheckpointError("its weights are damaged: they no longer give the answers they were saved with")
    return model
