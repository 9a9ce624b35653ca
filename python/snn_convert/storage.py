"""A converted network as one file, and as settings and tensors.

The file is a zip: ``snn-convert.json`` with the format's version, the graph, the populations and the settings, and one
entry of raw little-endian numbers a tensor. Nothing is pickled and nothing in it is code.
"""

from __future__ import annotations

import json
import math
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

import snn_kernels
from snn_kernels import schedules

from .errors import ModelFileError
from .files import replacing
from .graph_json import (
    constant,
    graph_from_json,
    graph_to_json,
    populations_from_json,
    populations_to_json,
    submodule,
)
from .structures import outputs_from_text, structure_from_text, structure_to_text
from .trace import Traced

if TYPE_CHECKING:
    from .model import SpikingModel

__all__ = ["copy_of", "load", "save", "schedule_from_json", "schedule_to_json"]

HEAD = "snn-convert.json"
FORMAT, VERSION = "snn-convert model", 1


def save(snn: SpikingModel, path: str | Path) -> None:
    """Write ``snn`` to one file that :func:`load` reads; what was at ``path`` is kept until the new file is whole.

    Raises:
        TypeError: the network holds something that the format has no place for.
        OSError: the file cannot be written.
    """
    head, tensors = describe(snn)
    head |= {"format": FORMAT, "version": VERSION, "written_by": f"snn-kernels {snn_kernels.__version__}"}
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        file.writestr(HEAD, json.dumps(head, allow_nan=False))
        for place, tensor in enumerate(tensors):
            file.writestr(f"tensors/{place}", _raw(tensor))


@torch.inference_mode(False)  # whose tensors no state can be loaded into
def load(path: str | Path) -> SpikingModel:
    """Read what :func:`save` wrote; the network gives the same bits. It is on the CPU, in evaluation mode.

    Outputs of a class with named fields that nothing has imported yet are dicts of these, with a warning.

    Raises:
        OSError: the file cannot be opened.
        ModelFileError: it is no converted network, is truncated or damaged, or of a later version of the format.
    """
    try:
        with zipfile.ZipFile(path) as file:
            head = _head(file, path)
            tensors = [
                _from_raw(file.read(f"tensors/{place}"), form) for place, form in enumerate(head["tensor_forms"])
            ]
        return assemble(head, tensors)
    except (OSError, ModelFileError):
        raise
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{path}: not a converted network, or truncated or damaged ({error})") from error
    # A damaged description can name anything and hold anything: no narrower class covers what that leads to.
    except Exception as error:
        raise ModelFileError(f"{path}: a converted network that cannot be read: {error}") from error


@torch.inference_mode(False)
def copy_of(snn: SpikingModel) -> SpikingModel:
    """An independent copy, of tensors that can be written to."""
    head, tensors = describe(snn)
    return assemble(head, [tensor.clone() for tensor in tensors], snn.training)


def _head(file: zipfile.ZipFile, path: str | Path) -> dict[str, Any]:
    if HEAD not in file.namelist():
        raise ModelFileError(f"{path}: not a converted network: a zip file without {HEAD}")
    head = json.loads(file.read(HEAD))
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ModelFileError(f"{path}: not a converted network: its {HEAD} is of another program")
    if head.get("version") != VERSION:
        raise ModelFileError(
            f"{path}: version {head.get('version')} of the format, written by {head.get('written_by')}; this is "
            f"snn-kernels {snn_kernels.__version__}, which reads version {VERSION}"
        )
    return head


# Settings and tensors


def describe(snn: SpikingModel) -> tuple[dict[str, Any], list[Tensor]]:
    """Everything that ``snn`` is made of: what goes into JSON, and the tensors."""
    network, tensors, places, names = snn.network, [], {}, {}
    derived = set(snn.engine.derived)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for name, tensor in {**parameters, **dict(network.named_buffers(remove_duplicate=False))}.items():
        if name in derived:
            continue
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else name
        if key not in places:
            places[key] = len(tensors)
            tensors.append(tensor.detach())
        names[name] = {"tensor": places[key], "parameter": name in parameters}
    head = {
        "graph": graph_to_json(network.graph),
        "populations": populations_to_json(network),
        "tensors": names,
        "tensor_forms": [_form(tensor) for tensor in tensors],
        "inputs": structure_to_text(snn.input_spec),
        "outputs": structure_to_text(snn.output_spec),
        "precision": str(snn.engine.precision).removeprefix("torch."),
        "settings": snn.get_extra_state(),
    }
    return head, tensors


def assemble(head: dict[str, Any], tensors: list[Tensor], training: bool = False) -> SpikingModel:
    """The network that :func:`describe` took apart."""
    from .model import SpikingModel

    root = nn.Module()
    populations_from_json(root, head["populations"])
    missing = [name for name, _ in root.named_buffers() if name not in head["tensors"]]
    if missing:
        raise ValueError(f"the tensors {', '.join(missing)} are missing")
    for name, entry in head["tensors"].items():
        parent, _, last = name.rpartition(".")
        tensor, module = tensors[entry["tensor"]], submodule(root, parent)
        if entry["parameter"]:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(last, tensor)
    network = fx.GraphModule(root, graph_from_json(head["graph"]))
    traced = Traced(network, structure_from_text(head["inputs"]), outputs_from_text(head["outputs"]))
    settings = head["settings"]
    schedule = schedule_from_json(settings["schedule"])
    dynamics = {name: settings[name] for name in ("encoder", "onset_delay", "dynamics")}
    snn = SpikingModel(traced, settings["timesteps"], schedule, **dynamics).train(training)
    snn.engine.precision = constant(head["precision"], torch.dtype)
    snn.set_extra_state(settings)
    snn.eta = snn.eta.to(tensors[0].device if tensors else "cpu")
    snn.engine.move(snn.eta.device)  # what the graph makes, where it was converted on another
    snn.refresh()
    return snn


def schedule_to_json(schedule: schedules.Schedule, timesteps: int) -> dict[str, Any]:
    """A schedule of :mod:`snn_kernels.schedules` by its name; any other as its table."""
    name = type(schedule).__name__
    if name not in schedules.__all__ or type(schedule) is not getattr(schedules, name):
        schedule, name = schedules.Table(tuple(schedule.table(timesteps).tolist())), "Table"

    def plain(value: Any) -> Any:  # of NumPy's numbers
        return value.item() if hasattr(value, "item") else value

    return {"name": name, **pytree.tree_map(plain, asdict(schedule))}


def schedule_from_json(found: dict[str, Any]) -> schedules.Schedule:
    values = {key: tuple(value) if isinstance(value, (list, tuple)) else value for key, value in found.items()}
    name = values.pop("name")
    if name not in schedules.__all__:
        raise ValueError(f"the schedule {name!r} is not known")
    return getattr(schedules, name)(**values)


# Tensors


def _order(tensor: Tensor) -> list[int]:
    """Its dimensions from the slowest in memory to the fastest."""
    return sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim))


def _form(tensor: Tensor) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(tensor.shape), "order": _order(tensor)}


def _raw(tensor: Tensor) -> bytes:
    flat = tensor.cpu().permute(_order(tensor)).contiguous().reshape(-1)
    if sys.byteorder == "big":
        raise TypeError("the format is little-endian, and this machine is not")
    return flat.view(torch.uint8).numpy().tobytes()


def _from_raw(raw: bytes, form: dict[str, Any]) -> Tensor:
    """The tensor, its dimensions in memory in the order they had: a convolution may compute along them."""
    dtype = constant(form["dtype"], torch.dtype)
    shape, order = form["shape"], form["order"]
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} in {dtype} does not have {len(raw)} bytes")
    flat = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    inverse = [order.index(dim) for dim in range(len(order))]
    return flat.reshape([shape[dim] for dim in order]).permute(inverse)
