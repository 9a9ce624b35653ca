"""Named ways to choose scales, initial values, encoder and step sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

from snn_kernels.schedules import Exponential, Inverse, Schedule, Uniform

__all__ = ["RECIPES", "Recipe", "recipe_named"]


@dataclass(frozen=True)
class Recipe:
    """A recipe's defaults; each can be overridden by the keyword argument of the same name of :func:`convert`.

    Attributes:
        encoder: ``direct``, ``float``, ``spike`` or ``stochastic``.
        schedule: the step sizes; ``None`` searches (lr, gamma) on the calibration data for the given time-steps.
        scale: ``channel`` (every population, per channel, the range of its output around ``v0``, widened where the
            calibration data hold less than a thousand values of a channel), ``paper`` (ReLU per neuron, the others 1)
            or a number for all.
        v0: ``mean`` (per channel, of the calibration outputs) or ``zero``.
        normalisation: softmax and layer, group, instance and RMS normalisation as chains of elementwise populations
            (``decomposed``) or as one population each that chases the whole function (``vector``).
        onset_delay: the steps between a population's first step and those of the populations it feeds; with 0 all start
            together (Oh & Lee).
        substitutes: activations that are used in place of others.
        dynamics: the neurons' model: ``signgd``, or for networks of ReLUs and maxima ``subgradient``,
            ``integrate_and_fire`` or ``parallel``.
        correction: how parallel neurons are corrected, see :func:`~snn_convert.corrections.calibrate_corrections`:
            ``published``, ``unbiased`` or ``none``.
    """

    encoder: str
    schedule: Schedule | None
    scale: str | float
    v0: str
    normalisation: str = "vector"
    onset_delay: int = 0
    substitutes: dict[str, str] = field(default_factory=dict)
    dynamics: str = "signgd"
    correction: str = "published"


RECIPES = {
    "default": Recipe(encoder="direct", schedule=None, scale="channel", v0="mean"),
    "paper": Recipe(
        encoder="float",
        schedule=Exponential(0.15, 0.95),
        scale="paper",
        v0="zero",
        normalisation="decomposed",
        substitutes={"gelu": "gelu_sigmoid", "gelu_tanh": "gelu_sigmoid"},
    ),
    "subgradient": Recipe(
        encoder="direct", schedule=Inverse(1.0, start=2), scale="paper", v0="zero", dynamics="subgradient"
    ),
    "integrate_and_fire": Recipe(
        encoder="direct", schedule=Inverse(1.0), scale="channel", v0="zero", dynamics="integrate_and_fire"
    ),
    "parallel": Recipe(encoder="direct", schedule=Uniform(), scale="channel", v0="zero", dynamics="parallel"),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}; got {name!r}")
    return RECIPES[name]
