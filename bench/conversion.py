"""How long ``convert`` takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from snn_convert import convert
from snn_kernels.schedules import Exponential

from .networks import resnet18
from .runner import Comparison, Missing, Setting

__all__ = ["conversion"]

TIMESTEPS = 32


def _resnet18() -> tuple[nn.Module, Any]:
    return resnet18(), torch.randn(8, 3, 32, 32)


def _bert(small: bool = False) -> tuple[nn.Module, Any]:
    """BERT-base is the configuration's default."""
    transformers = importlib.import_module("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(**(sizes if small else {}))
    return transformers.BertModel(config), {"input_ids": torch.randint(1, config.vocab_size, (2, 16))}


def _convnext(small: bool = False) -> tuple[nn.Module, Any]:
    """ConvNeXt-T is the configuration's default."""
    transformers = importlib.import_module("transformers")
    sizes = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
    config = transformers.ConvNextConfig(**(sizes if small else {}))
    size = 32 if small else 224
    return transformers.ConvNextForImageClassification(config), {"pixel_values": torch.randn(2, 3, size, size)}


def conversion(setting: Setting) -> Iterator[Comparison]:
    """Random weights, a calibration set of one batch; timed as it is checked, once, as conversion is."""
    yield from (_comparison(name, make, setting) for name, make in _models(setting))


def _models(setting: Setting) -> tuple[tuple[str, Callable[[], tuple[nn.Module, Any]]], ...]:
    tiny = (("BERT, small", lambda: _bert(small=True)), ("ConvNeXt, small", lambda: _convnext(small=True)))
    return setting.choose(
        tiny, (), (("ResNet-18, 32x32", _resnet18), ("BERT-base", _bert), ("ConvNeXt-T, 224x224", _convnext))
    )


def _comparison(name: str, make: Callable[[], tuple[nn.Module, Any]], setting: Setting) -> Comparison:
    case, dtype = f"{name}, T={TIMESTEPS}", torch.float32
    torch.manual_seed(0)
    try:
        model, sample = make()
    except ImportError as error:
        missing = {"default recipe": Missing(f"cannot be imported: {error}")}
        return Comparison(case, missing, "", lambda *_: "", timesteps=TIMESTEPS, once=True)
    model = model.eval().requires_grad_(False).to(setting.device)
    sample = pytree.tree_map(lambda leaf: leaf.to(setting.device), sample)

    def ann() -> Any:
        with torch.no_grad():
            return model(**sample) if isinstance(sample, dict) else model(sample)

    wanted = pytree.tree_leaves(ann())

    def accept(variant: str, output: Any) -> str:
        if variant != "ANN":
            output = output.network(*output.flat_inputs(*((), sample) if isinstance(sample, dict) else ((sample,), {})))
        return nearest(pytree.tree_leaves(output), wanted)

    variants = {
        "ANN": ann,
        "default recipe": lambda: convert(model, [sample], timesteps=TIMESTEPS),
        "default recipe, given step sizes": lambda: convert(
            model, [sample], timesteps=TIMESTEPS, schedule=Exponential()
        ),
        "paper recipe": lambda: convert(model, [sample], timesteps=TIMESTEPS, recipe="paper"),
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shape = tuple(pytree.tree_leaves(sample)[0].shape)
    facts = {"parameters": parameters}
    return Comparison(
        case, variants, "ANN", accept, shape=shape, dtype=dtype, timesteps=TIMESTEPS, facts=facts, once=True
    )


def nearest(outputs: list[Tensor], wanted: list[Tensor]) -> str:
    """The relative error of what the traced network computes; GELUs are replaced in the paper's recipe."""
    error = max(float((a - b).norm() / b.norm()) for a, b in zip(outputs, wanted))
    if not error < 1e-1:
        raise AssertionError(f"relative error of the traced network {error:.1e}")
    return f"traced network's relative error {error:.1e}"
