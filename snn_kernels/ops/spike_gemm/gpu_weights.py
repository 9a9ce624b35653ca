"""Weights as the kernels of a GPU read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .synapses import Synapses

__all__ = ["EVENT_BLOCK", "Weights", "dense_weights", "event_weights", "in_sections", "is_uniform"]

EVENT_BLOCK = 16  # inputs that the event method passes over together


class Weights(NamedTuple):
    """Weights as float16 in an order of the backend's, whose sums are multiplied by ``multiplier``.

    ``multiplier[n]`` times the sum of a weight's parts is ``weight * amplitude`` up to

    - nothing for float16 weights without amplitude, and weights of 8 bits;
    - ``2**-39 max|weight[n]|`` for bfloat16 ones: nothing for those above ``2**-31`` of the output's largest;
    - ``2**-23 |weight| + 2**-39 max|weight[n]|`` for float32 ones, in two parts.

    The multiplier is a power of two, undoing one that brought the largest weight of an output to ``[2**14, 2**15)``,
    times the amplitude where that is the same for all inputs. An amplitude for each input is multiplied in as float32.
    Weights of 8 bits are float16 numbers, exactly, and their scale is part of the multiplier. Outputs and inputs are
    padded to whole blocks of the tile.
    """

    values: Tensor  # [parts, N, K], of these sizes in any order; of the event method float32 [K, N]
    multiplier: Tensor  # [N]
    bias: Tensor  # [N]

    @property
    def parts(self) -> int:
        """float16 numbers a weight."""
        return len(self.values) if self.values.ndim == 3 else 1


def is_uniform(amplitude: Tensor | None) -> bool:
    return amplitude is None or amplitude.numel() == 1 or amplitude.stride(0) == 0


def in_sections(
    synapses: Synapses, amplitude: Tensor | None, groups: int, tile: dict[str, int]
) -> tuple[Synapses, Tensor | None, int]:
    """A convolution with groups as the kernels take it, whose blocks of outputs each read whole blocks of inputs.

    Neighbouring groups are joined to a section, with weights of 0 from one group to another: the fewest that fill the
    blocks of the tile, or all. Returned are the weights ``[N, C of a section, kh, kw]``, the amplitude that is still to
    be applied, and the outputs of a section.
    """
    if groups == 1:
        return synapses, amplitude, synapses.outputs
    weight = synapses.weight.unflatten(0, (groups, -1))
    _, outputs, inputs, *_ = weight.shape
    if not is_uniform(amplitude):
        weight, amplitude = weight.float() * amplitude.reshape(groups, 1, inputs, 1, 1), None
    blocks = ((tile["BLOCK_N"], outputs), (tile["BLOCK_K"], inputs))
    together = min(groups, math.lcm(*(block // math.gcd(block, size) for block, size in blocks)))
    group = torch.arange(groups, device=weight.device)
    joined = weight.new_zeros((groups, outputs, together, *weight.shape[2:]))
    joined[group, :, group % together] = weight
    return synapses._replace(weight=joined.flatten(2, 3).flatten(0, 1)), amplitude, together * outputs


def dense_weights(synapses: Synapses, amplitude: Tensor | None, tile: dict[str, int], prepare: Callable) -> Weights:
    """What a backend's ``prepare`` makes of a ``weight[N, C, taps]``, in one launch."""
    weight, (scale, bias) = synapses.weight, synapses.floats()
    weight = weight if weight.is_floating_point() else weight.half()
    outputs, channels, taps = weight.shape
    padded, tap_inputs = (
        -(-size // block) * block for size, block in ((outputs, tile["BLOCK_N"]), (channels, tile["BLOCK_K"]))
    )
    uniform = is_uniform(amplitude)
    parts = 2 if weight.dtype == torch.float32 or not uniform else 1
    values = weight.new_empty((parts, padded, taps * tap_inputs), dtype=torch.float16)
    weights = Weights(values, *weight.new_empty((2, padded), dtype=torch.float32))
    if amplitude is not None:
        amplitude = None if not channels else amplitude if uniform else amplitude.contiguous()
    if padded:
        # float16 weights as they are fit as they are: scaled down, the smallest would not.
        lowest = 0 if weight.dtype == torch.float16 and uniform else -126
        prepare(weight, amplitude, bias, tap_inputs, lowest, weights)
    if scale is not None:
        weights.multiplier[:outputs].mul_(scale)
    return weights


def event_weights(synapses: Synapses, amplitude: Tensor | None) -> Weights:
    """A ``weight[N, C, taps]`` as float32 ``[K, N]``, taps padded to whole blocks of channels."""
    value, (scale, bias) = synapses.weight.float(), synapses.floats()
    multiplier = value.new_ones(len(value)) if scale is None else scale
    if amplitude is not None and is_uniform(amplitude) and amplitude.numel():
        multiplier = multiplier * amplitude[:1]
    elif amplitude is not None:
        value = value * amplitude.unsqueeze(1)
    padded = F.pad(value.permute(2, 1, 0), (0, 0, 0, -value.shape[1] % EVENT_BLOCK))
    bias = torch.zeros_like(multiplier) if bias is None else bias
    return Weights(padded.contiguous().flatten(0, 1), multiplier, bias)
