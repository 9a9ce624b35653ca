"""How long ``convert`` takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from snn_convert import convert
from snn_kernels.schedules import Exponential

from .architectures import ARCHITECTURES
from .runner import Comparison, Setting, unavailable

__all__ = ["conversion"]

TIMESTEPS = 32


def _bert(small: bool = False) -> tuple[nn.Module, Any]:
    """BERT-base is the configuration's default."""
    transformers = importlib.import_module("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(**(sizes if small else {}))
    return transformers.BertModel(config), {"input_ids": torch.randint(1, config.vocab_size, (2, 16))}


def _of_images(name: str, size: int, batch: int, **options: Any) -> tuple[nn.Module, Any]:
    return ARCHITECTURES[name].build(size, **options), torch.randn(batch, 3, size, size)


def conversion(setting: Setting) -> Iterator[Comparison]:
    """Random weights, a calibration set of one batch; timed as it is checked, once, as conversion is."""
    yield from (_comparison(name, make, setting) for name, make in _models(setting))


def _models(setting: Setting) -> tuple[tuple[str, Callable[[], tuple[nn.Module, Any]]], ...]:
    convnext = partial(_of_images, "ConvNeXt-T")
    tiny = (
        ("BERT, small", partial(_bert, small=True)),
        ("ConvNeXt, small", partial(convnext, 32, 2, **ARCHITECTURES["ConvNeXt-T"].small)),
    )
    full = (
        ("ResNet-18, 32x32", partial(_of_images, "ResNet-18", 32, 8)),
        ("BERT-base", _bert),
        ("ConvNeXt-T, 224x224", partial(convnext, 224, 2)),
    )
    return setting.choose(tiny, (), full)


def _comparison(name: str, make: Callable[[], tuple[nn.Module, Any]], setting: Setting) -> Comparison:
    case, dtype = f"{name}, T={TIMESTEPS}", torch.float32
    torch.manual_seed(0)
    try:
        model, sample = make()
    except ImportError as error:
        return unavailable(case, error)
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
