"""``convert``: from a trained PyTorch network to a spiking one."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from snn_kernels.schedules import Constant, Schedule

from .calibrate import calibrate, set_scales
from .corrections import CORRECTIONS, calibrate_corrections
from .encoders import ENCODERS
from .errors import CalibrationError
from .lower import lower
from .model import SpikingModel
from .nodes import apart
from .quantized import own_weights
from .recipes import Recipe, recipe_named, timing
from .search import leading_items, search_schedule
from .storage import copy_of
from .trace import as_arguments, export

__all__ = ["convert"]


@apart()
def convert(
    model: nn.Module,
    calibration: Iterable[Any] | Tensor | Mapping[str, Any],
    *,
    timesteps: int = 32,
    recipe: str = "default",
    schedule: Schedule | None = None,
    encoder: str | None = None,
    scale: str | float | None = None,
    v0: str | None = None,
    normalisation: str | None = None,
    onset_delay: int | None = None,
    correction: str | None = None,
    weight_bits: int | None = None,
    progress: bool = False,
) -> SpikingModel:
    """Convert a trained network to a spiking one without training (Oh & Lee, ICML 2024).

    The model is traced with ``torch.export`` in eval mode (and left in the mode it was found in), BatchNorm is folded,
    every nonlinearity becomes a population of signGD neurons, and the populations' scales and offsets are measured.

    Args:
        model: any float32 module that ``torch.export`` takes with a dynamic batch in dimension 0 of its inputs.
        calibration: model inputs, each a tensor, a tuple of arguments or a mapping of keyword arguments; or one of
            them, if it is a tensor or a mapping.
        timesteps: the number of steps ``T`` that every population makes in a run.
        recipe: ``default`` (best accuracy) or ``paper`` (Oh & Lee exactly); for networks of ReLUs and max pooling also
            ``subgradient`` (Oh & Lee), ``integrate_and_fire`` (rate coding) and ``parallel`` (Hao et al. 2025, for
            networks trained with :class:`~snn_convert.QCFS` too). The arguments up to ``correction`` override it.
        schedule: step sizes, see :mod:`snn_kernels.schedules`.
        encoder: ``direct``, ``float``, ``spike`` or ``stochastic``.
        scale: ``channel``, ``paper`` or a number for every population.
        v0: ``mean`` or ``zero``.
        normalisation: ``vector`` or ``decomposed``, see :class:`~snn_convert.recipes.Recipe`.
        onset_delay: 0, and all populations start together; or ``d``, and each starts ``d`` steps after the latest of
            those that feed it. The output is complete after :attr:`SpikingModel.latency` steps. From ``d = timesteps``
            on, what enters a population is complete when it starts, and every affine map is evaluated once.
        correction: of parallel neurons, ``published``, ``unbiased`` or ``none``.
        weight_bits: 8, and linear maps and 2d convolutions that read spikes have weights of 8 bits with a scale for
            each output (:func:`snn_kernels.quantize_weight` of the weights times what a spike of each input is worth),
            which AMX multiplies in a quarter of the instructions; or ``None``, and all weights are the model's.
        progress: show progress bars.

    Returns:
        A :class:`SpikingModel` on the model's device.

    Raises:
        ValueError: ``timesteps`` < 1, ``onset_delay`` < 0, an unknown recipe or override or one that its neurons
            do not have, ``weight_bits`` of another number.
        TypeError: the model is no module or of other parameters than float32, or ``schedule`` is none of
            :mod:`snn_kernels.schedules`.
        CalibrationError: no calibration data, an item the model refuses, NaN or infinity.
        UnsupportedOperation: an operation with no spiking counterpart; it names the place in the model.
    """
    if weight_bits not in (None, 8):
        raise ValueError(f"weight_bits: expected None or 8, got {weight_bits!r}")
    overrides = {
        "schedule": schedule, "encoder": encoder, "scale": scale, "v0": v0, "normalisation": normalisation,
        "onset_delay": onset_delay, "correction": correction,
    }  # fmt: skip
    chosen = replace(recipe_named(recipe), **{key: value for key, value in overrides.items() if value is not None})
    _check(chosen)
    schedule = Constant(1.0) if chosen.schedule is None else chosen.schedule
    timesteps, onset_delay = timing(chosen.dynamics, schedule, timesteps, chosen.onset_delay)
    _check_model(model)
    if isinstance(calibration, (Tensor, Mapping)):
        calibration = [calibration]
    try:
        items = iter(calibration)
    except TypeError:
        raise CalibrationError(f"calibration: expected an iterable of model inputs, got {calibration!r}") from None
    leading = leading_items(items)
    if not leading:
        raise CalibrationError("calibration: expected at least one model input, got none")

    def shown(iterable: Iterable, what: str, total: int | None = None) -> Iterable:
        return track(iterable, description=what, total=total, transient=True) if progress else iterable

    with torch.device(_device_of(leading[0])):
        traced = lower(export(model, leading[0]), chosen.substitutes, chosen.normalisation, chosen.dynamics)
        if weight_bits:
            own_weights(traced.network)
        snn = SpikingModel(traced, timesteps, schedule, chosen.encoder, onset_delay, chosen.dynamics).eval()
    size = len(calibration) if hasattr(calibration, "__len__") else None
    data = itertools.chain(leading, items)
    if chosen.dynamics == "parallel":
        data = list(data)  # gone through more than once
    statistics = calibrate(snn, data, lambda data: shown(data, "calibrating", size))
    silent = set_scales(snn, statistics, chosen.scale, chosen.v0)
    if silent:
        warnings.warn(f"populations that never moved in the calibration data: {', '.join(silent)}", stacklevel=3)
    if weight_bits:
        _round_weights(snn)
    args, kwargs = as_arguments(leading[0])
    snn.measure_offsets(*args, **kwargs)
    if chosen.dynamics == "parallel" and chosen.correction != "none":
        calibrate_corrections(snn, data, chosen.correction, lambda updates: shown(updates, "calibrating corrections"))
    if chosen.schedule is None:
        search_schedule(snn, leading, lambda candidates: shown(candidates, "choosing step sizes"))
    return copy_of(snn) if torch.is_inference_mode_enabled() else snn  # whose tensors no state could be loaded into


def _device_of(item: Any) -> torch.device:
    """Where a calibration item's first tensor is, and so the model and what is made for it."""
    leaves = pytree.tree_leaves(as_arguments(item))
    return next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))


def _round_weights(snn: SpikingModel) -> None:
    inputs = snn.engine.example_inputs(snn.eta.device)
    snn.engine.round_weights(snn.engine.start(inputs, lambda population, x: population(*x)))


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__} {model!r}")
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise TypeError(
                f"model: expected float32 parameters, got {parameter.dtype} in {name!r}: convert model.float(), and "
                "then .half() or .bfloat16() the spiking network"
            )


def _check(chosen: Recipe) -> None:
    scale = chosen.scale
    if chosen.encoder not in tuple(ENCODERS):
        raise ValueError(f"encoder: expected one of {', '.join(ENCODERS)}; got {chosen.encoder!r}")
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool) and 0 < scale < math.inf
    if scale not in ("channel", "paper") and not number:
        raise ValueError(f"scale: expected 'channel', 'paper' or a positive number, got {scale!r}")
    corrections = CORRECTIONS if chosen.dynamics == "parallel" else (None,)
    if chosen.correction not in corrections:
        expected = ", ".join(map(str, corrections))
        raise ValueError(
            f"correction: expected one of {expected} for {chosen.dynamics} neurons, got {chosen.correction!r}"
        )
    if chosen.dynamics != "signgd" and (chosen.encoder, chosen.v0) != ("direct", "zero"):
        raise ValueError(
            f"encoder, v0: {chosen.dynamics} neurons take 'direct' and 'zero', got {chosen.encoder!r}, {chosen.v0!r}"
        )
    if chosen.v0 not in ("mean", "zero"):
        raise ValueError(f"v0: expected 'mean' or 'zero', got {chosen.v0!r}")
    if chosen.normalisation not in ("vector", "decomposed"):
        raise ValueError(f"normalisation: expected 'vector' or 'decomposed', got {chosen.normalisation!r}")
