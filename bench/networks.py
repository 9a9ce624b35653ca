"""Whole converted networks against the plain PyTorch loop that runs the same dynamics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snn_convert import SpikingModel, convert
from snn_convert.loop import single_step_loop
from snn_kernels.schedules import Exponential

from .architectures import ARCHITECTURES
from .recipes import error_of
from .runner import Comparison, Setting, Variant, Work, unavailable

__all__ = ["networks", "whole_network"]

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
    """The plain loop, the converted network and the ANN, with their peaks of memory."""
    snn = convert(model, [torch.randn_like(x)], timesteps=timesteps, recipe=recipe, schedule=Exponential())

    @torch.no_grad()
    def network() -> Tensor:
        return snn.network(x)[0]  # the ANN with BatchNorm folded

    with FlopCounterMode(display=False) as flops:
        ann = network()
    once = flops.get_total_flops()
    variants = {
        "single-step loop": lambda: single_step_loop(snn, x),
        "snn_convert": lambda: snn(x),
        "ANN": Variant(network, Work(operations=once)),
    }
    return Comparison(
        case,
        variants,
        "single-step loop",
        _accept(snn, x, ann),
        shape=tuple(x.shape),
        timesteps=timesteps,
        work=Work(operations=once * timesteps),  # of a network pass a step
        images=len(x),
        memory=True,
    )


def _accept(snn: SpikingModel, x: Tensor, ann: Tensor) -> Callable[[str, Tensor], str]:
    wanted = single_step_loop(snn, x)
    rounding = _rounding(snn, x, wanted)

    def accept(name: str, output: Tensor) -> str:
        if name == "ANN":  # the same operations again, which libraries may add in another order
            return f"relative error {_below(error_of(output, ann), 1e-5):.1e}"
        # Another order of addition moves a current by an ulp and so, through ties, single spikes; what deep networks
        # make of them is no more here than in the loop itself. Twice, and 2% at least: three draws may miss the worst.
        error = _below(error_of(output, wanted), max(2e-2, 2 * rounding))
        return f"relative error {error:.1e}, of rounding alone {rounding:.1e}"

    return accept


def _below(error: float, limit: float) -> float:
    if not error < limit:
        raise AssertionError(f"relative error {error:.1e}, expected below {limit:.1e}")
    return error


def _rounding(snn: SpikingModel, x: Tensor, wanted: Tensor) -> float:
    """How far the loop's output comes from ``wanted`` with weights an ulp away: the worst of three draws."""
    errors = []
    for seed in range(3):
        twin, generator = copy.deepcopy(snn), torch.Generator().manual_seed(seed)
        for weight in (*twin.network.parameters(), *twin.network.buffers(recurse=False)):
            if weight.ndim > 1 and weight.is_floating_point():  # not biases, nor what the neurons are scaled by
                moved = (torch.rand(weight.shape, generator=generator) < 0.5).to(weight.device)
                weight.data = torch.where(moved, weight.data.nextafter(weight.data + 1), weight.data)
        errors.append(error_of(single_step_loop(twin, x), wanted))
    return max(errors)
