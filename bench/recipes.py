"""How many time-steps each recipe needs until the spiking network's output is the ANN's to within 1%."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from snn_convert import SpikingModel, convert
from snn_convert.demo.data import load_split
from snn_convert.demo.networks import NETWORKS
from snn_convert.demo.training import train
from snn_convert.errors import UnsupportedOperation

from .runner import Comparison, Missing, Setting, Variant

__all__ = ["recipes"]

NEAR = 0.01
LENGTHS = (8, 32, 128)
MORE = ("resnet", "convnext")
FINE = (2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Recipe:
    """A recipe, whether its step sizes fit any number of steps, and whether populations start one after the other."""

    name: str
    any_length: bool = False
    staggered: bool = False


RECIPES = {
    "paper": Recipe("paper", any_length=True),
    "subgradient": Recipe("subgradient", any_length=True),
    "integrate_and_fire": Recipe("integrate_and_fire", any_length=True),
    "parallel": Recipe("parallel"),
    "default": Recipe("default"),
    "default, onset_delay=timesteps": Recipe("default", staggered=True),
}


def recipes(setting: Setting) -> Iterator[Comparison]:
    """The demo's networks, trained on scikit-learn's digits, and their outputs for digits that were held out."""
    split = load_split()
    epochs = 1 if setting.size == "tiny" else 8
    lengths = FINE if setting.size == "full" else setting.choose((2,), LENGTHS)
    for name in setting.choose(("vgg",), ("vgg",), MORE):
        model = train(replace(NETWORKS[name], epochs=epochs), split).to(setting.device)
        count = 8 if setting.size == "tiny" else 64
        images = (split.train_images[:count], split.test_images[:count])
        yield _comparison(name, model, *(part.to(setting.device) for part in images), lengths)


def _comparison(name: str, model: nn.Module, calibration: Tensor, x: Tensor, lengths: tuple[int, ...]) -> Comparison:
    with torch.no_grad():
        wanted = model(x)
    variants: dict[str, Variant | Missing] = {"ANN": Variant(lambda: model(x))}
    for label, recipe in RECIPES.items():
        try:
            snn = _shortest(model, calibration, x, wanted, lengths, recipe)
        except UnsupportedOperation as error:
            variants[label] = Missing(f"{error}".splitlines()[0])
            continue
        facts = {"steps": snn.timesteps, "latency": snn.latency}
        variants[label] = Variant(lambda snn=snn: snn(x), facts=facts)

    def accept(_: str, output: Tensor) -> str:
        found = error_of(output, wanted)
        if not found <= NEAR:
            raise AssertionError(f"not within {NEAR:.0%} after {lengths[-1]} steps: {found:.1%}")
        return f"relative error {found:.2%}"

    return Comparison(f"{name} on digits", variants, "ANN", accept, shape=tuple(x.shape), facts={"limit": NEAR})


def error_of(output: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm of the ANN's output, over all samples together."""
    return ((output - wanted).norm() / wanted.norm()).item()


def _shortest(
    model: nn.Module, calibration: Tensor, x: Tensor, wanted: Tensor, lengths: tuple[int, ...], recipe: Recipe
) -> SpikingModel:
    """The network of the first length that is near enough, or else of the last."""
    if recipe.any_length:
        snn = convert(model, [calibration], timesteps=lengths[-1], recipe=recipe.name)
        outputs = zip(lengths, snn.outputs_at(x, steps=list(lengths)))
        near = (length for length, output in outputs if error_of(output, wanted) <= NEAR)
        snn.set_schedule(snn.schedule, next(near, lengths[-1]))
        return snn
    for timesteps in lengths:
        delay = {"onset_delay": timesteps} if recipe.staggered else {}
        snn = convert(model, [calibration], timesteps=timesteps, recipe=recipe.name, **delay)
        if error_of(snn(x), wanted) <= NEAR:
            break
    return snn
