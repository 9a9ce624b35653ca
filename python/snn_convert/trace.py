"""From a user's model to a plain graph of aten operations with a dynamic batch."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .errors import CalibrationError

__all__ = ["Traced", "as_arguments", "evaluation_mode", "export", "refusal"]

EXPORT_HINT = (
    "snn_convert traces models with torch.export and a dynamic batch dimension: control flow that depends on the data, "
    "or a batch size written into the model, has to go."
)


@dataclass
class Traced:
    """The exported network: a graph module whose placeholders are the flat inputs, and the structure around it."""

    network: fx.GraphModule
    input_spec: pytree.TreeSpec
    output_spec: pytree.TreeSpec

    @staticmethod
    def of(program: torch.export.ExportedProgram, decompositions: Mapping[Callable, Callable]) -> Traced:
        """With some operations written out as others. The network holds copies of the parameters, so that the user's
        model and the spiking one stay apart."""
        with _without_warnings_of_torch():
            program = program.run_decompositions(dict(decompositions))
            network = copy.deepcopy(program.module(check_guards=False)).requires_grad_(False)
        network.graph.set_codegen(fx.graph.CodeGen())
        for node in network.graph.nodes:
            if node.op == "get_attr":
                _register(network, node.target)
        return Traced(network, program.call_spec.in_spec, program.call_spec.out_spec)


def _register(network: fx.GraphModule, path: str) -> None:
    """Make a buffer of a constant tensor that the export has left beside those of a submodule."""
    owner, _, name = path.rpartition(".")
    module = network.get_submodule(owner)
    value = getattr(module, name)
    if isinstance(value, Tensor) and name not in {**module._parameters, **module._buffers}:
        delattr(module, name)
        module.register_buffer(name, value)


# What torch itself does in export and in copying its result: deprecated uses, and LSTM's list of its own weights.
OF_TORCH = ((".*LeafSpec.*", FutureWarning), (".*_flat_weights.* were assigned during export.*", UserWarning))


@contextmanager
def _without_warnings_of_torch() -> Iterator[None]:
    with warnings.catch_warnings():
        for message, category in OF_TORCH:
            warnings.filterwarnings("ignore", message, category)
        yield


def as_arguments(sample: Any) -> tuple[tuple, dict]:
    """A calibration item as ``(args, kwargs)``: a tensor, a tuple of arguments or a mapping of keyword arguments.

    The tensors without gradients, which nothing here asks for.

    Raises:
        CalibrationError: it is none of these, or holds no sample.
    """
    if isinstance(sample, Tensor):
        sample = (sample,)
    if not isinstance(sample, (tuple, list, Mapping)):
        raise CalibrationError(
            "calibration: expected tensors, tuples of arguments or dicts of keyword arguments, got "
            f"{type(sample).__name__}"
        )
    args, kwargs = ((), dict(sample)) if isinstance(sample, Mapping) else (tuple(sample), {})
    for leaf in pytree.tree_leaves((args, kwargs)):
        if isinstance(leaf, Tensor) and leaf.ndim and not len(leaf):
            raise CalibrationError(f"calibration: expected samples in every item, got a tensor {tuple(leaf.shape)}")
    return pytree.tree_map_only(Tensor, Tensor.detach, (args, kwargs))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; every module's own mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def refusal(item: Any, error: Exception) -> str:
    """Why the model refuses a calibration item, with what is often overlooked."""
    hint = "; a tuple or list holds the model's arguments, so leave labels out: (x for x, _ in loader)"
    return f"{error}{hint if isinstance(item, (tuple, list)) and len(item) > 1 else ''}"


def export(model: nn.Module, sample: Any) -> torch.export.ExportedProgram:
    """Export ``model`` in eval mode with dimension 0 of every input tensor dynamic. Its buffers are left as they are.

    Raises:
        CalibrationError: ``sample`` is not something the model takes.
        ValueError: the model fixes its batch size.
        Exception: torch.export's own, with a hint, when it cannot trace the model.
    """
    args, kwargs = pytree.tree_map_only(Tensor, _two_samples, as_arguments(sample))
    with evaluation_mode(model), torch.no_grad():
        try:
            torch.func.functional_call(model, {k: b.clone() for k, b in model.named_buffers()}, args, kwargs)
        except Exception as error:
            raise CalibrationError(
                f"calibration: the model refuses its first item: {refusal(sample, error)}{_unlike(sample)}"
            ) from error
        try:
            with _without_warnings_of_torch(), _all_named(model, kwargs):
                by_name = inspect.signature(model.forward).bind(*args, **kwargs).arguments
                shapes = pytree.tree_map(_dynamic_batch, dict(by_name))
                return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
        except Exception as error:
            if hasattr(error, "add_note"):  # Python >= 3.11
                error.add_note(EXPORT_HINT)
            raise


@contextmanager
def _all_named(model: nn.Module, given: Mapping[str, Any]) -> Iterator[None]:
    """``model`` with a parameter for each argument that its forward takes as one of ``**kwargs``, whose shapes
    torch.export does not find otherwise."""
    forward = model.forward
    signature = inspect.signature(forward)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    others = given.keys() - {p.name for p in parameters}
    if not others:
        yield
        return

    def named(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in given if name in others]
    named.__signature__ = signature.replace(parameters=parameters)
    own = "forward" in vars(model)
    model.forward = named
    try:
        yield
    finally:
        if own:
            model.forward = forward
        else:
            del model.forward


def _dynamic_batch(leaf: Any) -> dict | None:
    return {0: torch.export.Dim.DYNAMIC} if isinstance(leaf, Tensor) and leaf.ndim else None


def _unlike(sample: Any) -> str:
    sizes = sorted({len(leaf) for leaf in pytree.tree_leaves(sample) if isinstance(leaf, Tensor) and leaf.ndim})
    if len(sizes) < 2:
        return ""
    return f"; dimension 0 of every tensor has to be the batch, and this item's have sizes {', '.join(map(str, sizes))}"


def _two_samples(tensor: Tensor) -> Tensor:
    """A tensor of its own, since the export reads one that is two arguments as the first of them; of two samples at
    least, since it reads a batch of one as a constant."""
    return torch.cat([tensor, tensor]) if tensor.ndim and tensor.shape[0] == 1 else tensor.clone()
