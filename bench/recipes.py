"""How many time-steps each recipe needs until the spiking network's output is the ANN's to within 1%."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from snn_convert import SpikingModel, convert
from snn_convert.demo.data import load_split
from snn_convert.demo.networks import NETWORKS
from snn_convert.demo.training import train

from .runner import Comparison, Missing, Setting, Variant

__all__ = ["recipes"]

NEAR = 0.01
LENGTHS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
RECIPES = {
    "paper": {"recipe": "paper"},
    "subgradient": {"recipe": "subgradient"},
    "integrate_and_fire": {"recipe": "integrate_and_fire"},
    "parallel": {"recipe": "parallel"},
    "default": {"recipe": "default"},
    "default, onset_delay=timesteps": {"recipe": "default"},
}


def recipes(setting: Setting) -> Iterator[Comparison]:
    """The demo's networks, trained on scikit-learn's digits, and their outputs for digits that were held out."""
    split = load_split()
    for name, epochs in setting.choose((("vgg", 1),), (("vgg", 8),), (("resnet", 8), ("convmixer", 8))):
        model = train(replace(NETWORKS[name], epochs=epochs), split).to(setting.device)
        calibration = split.train_images[:256].to(setting.device)
        x = split.test_images[: 8 if setting.size == "tiny" else 64].to(setting.device)
        lengths = setting.choose((2, 8), LENGTHS[:10], LENGTHS[10:])
        yield _comparison(name, model, calibration, x, lengths)


def _comparison(name: str, model: nn.Module, calibration: Tensor, x: Tensor, lengths: tuple[int, ...]) -> Comparison:
    with torch.no_grad():
        wanted = model(x)
    variants: dict[str, Variant | Missing] = {"ANN": Variant(lambda: model(x))}
    for recipe, options in RECIPES.items():
        variants[recipe] = _shortest(model, calibration, x, wanted, lengths, recipe, options)

    def accept(_: str, output: Tensor) -> str:
        found = error_of(output, wanted)
        if not found <= NEAR:
            raise AssertionError(f"not within {NEAR:.0%} after {lengths[-1]} steps: {found:.1%}")
        return f"relative error {found:.2%}"

    case = f"{name} on digits, within {NEAR:.0%}, at most {lengths[-1]} steps"
    return Comparison(case, variants, "ANN", accept, shape=tuple(x.shape), facts={"limit": NEAR})


def error_of(output: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm of the ANN's output, over all samples together."""
    return ((output - wanted).norm() / wanted.norm()).item()


def _shortest(model, calibration, x, wanted, lengths, recipe, options) -> Variant | Missing:
    """The network of the first length that is near enough, or else of the last."""
    snn: SpikingModel | None = None
    for timesteps in lengths:
        delay = {"onset_delay": timesteps} if "onset_delay" in recipe else {}
        try:
            snn = convert(model, [calibration], timesteps=timesteps, **options, **delay)
        except NotImplementedError as error:  # the recipe's neurons have no such function
            return Missing(f"cannot be converted: {error}".splitlines()[0])
        if error_of(snn(x), wanted) <= NEAR:
            break
    return Variant(lambda: snn(x), facts={"steps": snn.timesteps, "latency": snn.latency})
