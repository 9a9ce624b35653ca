"""Whole converted networks against the plain PyTorch loop that runs the same dynamics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snn_convert import SpikingModel, convert
from snn_convert.loop import single_step_loop
from snn_kernels.schedules import Exponential

from .architectures import ARCHITECTURES
from .graphs import SUFFIX, graphs
from .recipes import error_of
from .runner import Comparison, Setting, Variant, Work, unavailable

__all__ = ["networks", "whole_network"]

# How far from its target an estimate may be where a neuron decides otherwise than the loop, relative to its scale or,
# if they are larger, to the inputs of its population (their root mean square). An input is decoded from as many sums as
# there are steps, each off by ulps of its K terms, which together are about sqrt(K) times as large as the sum: the
# farthest of 1e8 decisions has been seen at 3.1e-5. The scale alone says little: with the recipe `paper` that of a
# neuron which calibration never saw fire is 1, whatever reaches it.
CROSSING = 1e-4

# Name, batch and time-steps.
QUICK = (("ResNet-18", 8, 32), ("ResMLP-24", 2, 8))


def networks(setting: Setting) -> Iterator[Comparison]:
    """Every architecture by two recipes. The loop is what published code does: one network pass a step."""
    tiny = tuple((name, 2, 3) for name in ARCHITECTURES)
    batch = 32 if setting.device == "cuda" else 2
    every = tuple((name, batch, timesteps) for name in ARCHITECTURES for timesteps in (8, 32, 64))
    for name, batch, timesteps in setting.choose(tiny, QUICK, tuple(case for case in every if case not in QUICK)):
        try:
            model, size = ARCHITECTURES[name].made(setting)
        except ImportError as error:
            yield unavailable(f"{name}, T={timesteps}", error)
            continue
        x = torch.randn(batch, 3, size, size, device=setting.device)
        for recipe in setting.choose(("paper",), ("paper", "default")):
            case = f"{name}, {size}x{size}, batch {batch}, T={timesteps}, {recipe} recipe"
            yield whole_network(case, model, x, timesteps, recipe)


def whole_network(case: str, model: nn.Module, x: Tensor, timesteps: int, recipe: str) -> Comparison:
    """The plain loop, the converted network and the ANN, with their peaks of memory; on a GPU as CUDA graphs too.

    By the recipe ``default`` also the network with weights of 8 bits; products with the scales of ``paper``, one for
    each neuron, take none.
    """
    data, options = [torch.randn_like(x)], {"timesteps": timesteps, "recipe": recipe, "schedule": Exponential()}
    snn = convert(model, data, **options)
    converted = {"snn_convert": snn}
    if recipe == "default":
        converted["snn_convert int8"] = convert(model, data, weight_bits=8, **options)

    @torch.no_grad()
    def network() -> Tensor:
        return snn.network(x)[0]  # the ANN with BatchNorm folded

    with FlopCounterMode(display=False) as flops:
        ann = network()
    once = flops.get_total_flops()
    calls = {
        "single-step loop": lambda: single_step_loop(snn, x),
        **{name: partial(one, x) for name, one in converted.items()},
        "ANN": network,
    }
    calls |= graphs(calls, x.device.type)
    of_one_pass = {name: Variant(run, Work(operations=once)) for name, run in calls.items() if name.startswith("ANN")}
    accept = {name: _accept(one, x, ann) for name, one in converted.items()}

    def accepted(name: str, output: Tensor) -> str:
        name = name.removesuffix(SUFFIX)
        return accept.get(name, accept["snn_convert"])(name, output)

    return Comparison(
        case,
        {**calls, **of_one_pass},
        "single-step loop",
        accepted,
        shape=tuple(x.shape),
        timesteps=timesteps,
        work=Work(operations=once * timesteps),  # of a network pass a step
        images=len(x),
        memory=True,
    )


def _root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def _accept(snn: SpikingModel, x: Tensor, ann: Tensor) -> Callable[[str, Tensor], str]:
    """The loop, again, gives what it gave; the converted network's every spike is checked by the loop.

    Another order of addition moves a current by an ulp and so, where an estimate meets its target, a spike, and what
    deep networks make of one is as large as it likes. So the loop follows the network's spikes: from the same inputs
    each neuron has to decide as the loop does unless it stands at such a crossing, and the output has to be the same.
    """
    loop, trains = single_step_loop(snn, x), snn.spikes(x)
    crossings, populations = [], dict(snn.populations())

    def compare(t: int, name: str, inputs: tuple, target: Tensor, v: Tensor, spike: Tensor) -> None:
        other = spike.bool() != trains[name].step(t).bool()
        size = populations[name].scale.clamp(min=max(_root_mean_square(x) for x in inputs))
        crossings.extend(((v - target).abs() / size)[other].tolist())

    followed = single_step_loop(snn, x, record=compare, follow=trains)
    decisions = sum(train.timesteps * train.shape.numel() for train in trains.values())

    def accept(name: str, output: Tensor) -> str:
        if name in ("single-step loop", "ANN"):  # the same operations again, which libraries may add in another order
            return f"relative error {_below(error_of(output, ann if name == 'ANN' else loop), 1e-5):.1e}"
        farthest = max(crossings, default=0.0)
        if farthest > CROSSING:
            raise AssertionError(f"a spike the loop would not fire, {farthest:.1e} of its inputs from the target")
        error = _below(error_of(output, followed), 1e-4)
        return f"relative error {error:.1e}, {len(crossings)} of {decisions:.1e} spikes at a crossing"

    return accept


def _below(error: float, limit: float) -> float:
    if not error < limit:
        raise AssertionError(f"relative error {error:.1e}, expected below {limit:.1e}")
    return error
