"""Named ways to choose scales, initial values, encoder and step sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

from snn_kernels.checks import kind
from snn_kernels.schedules import Exponential, Inverse, Schedule, Uniform

from .checks import whole

__all__ = ["RECIPES", "Recipe", "recipe_named", "timing"]


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
            together (Oh & Lee). ``None`` is the neurons' own, see :func:`timing`.
        substitutes: activations that are used in place of others.
        dynamics: the neurons' model: ``signgd``, or for networks of ReLUs and maxima ``subgradient``,
            ``integrate_and_fire`` or ``parallel``.
        correction: how parallel neurons are corrected, see :func:`~snn_convert.corrections.calibrate_corrections`:
            ``published``, ``unbiased`` or ``none``; ``None`` for other neurons.
    """

    encoder: str
    schedule: Schedule | None
    scale: str | float
    v0: str
    normalisation: str = "vector"
    onset_delay: int | None = None
    substitutes: dict[str, str] = field(default_factory=dict)
    dynamics: str = "signgd"
    correction: str | None = None


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
    "parallel": Recipe(
        encoder="direct", schedule=Uniform(), scale="channel", v0="zero", dynamics="parallel", correction="published"
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in tuple(RECIPES):  # what cannot be hashed either
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}; got {name!r}")
    return RECIPES[name]


def timing(dynamics: str, schedule: Schedule, timesteps: int, onset_delay: int | None) -> tuple[int, int]:
    """The number of steps and the onset delay of neurons with these ``dynamics``.

    Integrate-and-fire neurons start together. Parallel ones need the currents of all steps before their first, which
    makes ``timesteps`` their onset delay, and every step counts alike. For the others ``None`` is 0.

    Raises:
        TypeError: ``schedule`` is none of :mod:`snn_kernels.schedules`.
        ValueError: ``timesteps`` is not an integer of at least 1, or ``onset_delay`` of at least 0; the neurons have
            another onset delay, or other step sizes.
    """
    timesteps = whole("timesteps", timesteps, 1)
    own = {"integrate_and_fire": 0, "parallel": timesteps}.get(dynamics)
    onset_delay = own or 0 if onset_delay is None else whole("onset_delay", onset_delay, 0)
    if own not in (None, onset_delay):
        raise ValueError(f"onset_delay: expected {own}, that of {dynamics} neurons, got {onset_delay}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule: expected one of snn_kernels.schedules, got {kind(schedule)}")
    if dynamics == "parallel" and not isinstance(schedule, Uniform):
        raise ValueError(f"schedule: expected Uniform(), that of parallel neurons, got {schedule!r}")
    return timesteps, onset_delay
