"""Weights prepared for the tensor cores in Triton, see ``Weights``."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["weight_kernel"]

LARGEST_FLOAT = tl.constexpr(3.4028234663852886e38)


@triton.jit
def power_of_two(exponent):
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def weights_of_output(
    p_weight,
    channel_stride,
    tap_stride,
    p_amplitude,
    channels,
    tap_channels,
    inputs,
    start,
    UNIFORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A run of an output's inputs in the order of the product, with 0 for those that pad a tap."""
    k = start + tl.arange(0, BLOCK)
    tap = k // tap_channels
    c = k - tap * tap_channels
    alive = (k < inputs) & (c < channels)
    value = tl.load(p_weight + c * channel_stride + tap * tap_stride, mask=alive, other=0.0).to(tl.float32)
    if not UNIFORM:
        value = value * tl.load(p_amplitude + c, mask=alive, other=0.0)
    return value


WEIGHT = ["p_weight", "output_stride", "channel_stride", "tap_stride", "p_amplitude", "p_bias", "p_values"]
WEIGHT += ["part_stride", "p_multiplier", "p_bias_out", "outputs", "channels", "tap_channels", "inputs", "lowest"]


@triton.jit(do_not_specialize=WEIGHT)
def weight_kernel(
    p_weight,
    output_stride: tl.int64,
    channel_stride: tl.int64,
    tap_stride: tl.int64,
    p_amplitude,
    p_bias,
    p_values,
    part_stride: tl.int64,
    p_multiplier,
    p_bias_out,
    outputs: tl.int64,
    channels: tl.int64,
    tap_channels: tl.int64,
    inputs: tl.int64,
    lowest: tl.int64,
    UNIFORM: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The float16 weights of an output, see ``Weights``; 0 behind the last output."""
    n = tl.program_id(0).to(tl.int64)
    p_weight += tl.minimum(n, outputs - 1) * output_stride
    inputs_here = tl.where(n < outputs, inputs, 0)
    size = tl.zeros([BLOCK], tl.float32)
    for start in range(0, inputs_here, BLOCK):
        value = weights_of_output(
            p_weight, channel_stride, tap_stride, p_amplitude, channels, tap_channels, inputs_here, start,
            UNIFORM, BLOCK,
        )  # fmt: skip
        size = tl.maximum(size, tl.where(tl.abs(value) <= LARGEST_FLOAT, tl.abs(value), 0.0))
    biased = tl.max(size, 0).to(tl.int32, bitcast=True) >> 23
    exponent = tl.minimum(tl.maximum(141 - biased, lowest.to(tl.int32)), 126)
    factor = power_of_two(exponent)
    for start in range(0, inputs, BLOCK):
        rest = factor * weights_of_output(
            p_weight, channel_stride, tap_stride, p_amplitude, channels, tap_channels, inputs_here, start,
            UNIFORM, BLOCK,
        )  # fmt: skip
        k = start + tl.arange(0, BLOCK)
        for part in tl.static_range(PARTS):
            rounded = rest.to(tl.float16)
            tl.store(p_values + part * part_stride + n * inputs + k, rounded, mask=k < inputs)
            given = rounded.to(tl.float32)
            rest = tl.where(tl.abs(given) <= LARGEST_FLOAT, rest - given, 0.0)
    multiplier = power_of_two(-exponent)
    if UNIFORM and p_amplitude is not None:
        multiplier = multiplier * tl.load(p_amplitude)
    tl.store(p_multiplier + n, multiplier)
    bias = 0.0
    if p_bias is not None:
        bias = tl.load(p_bias + n, mask=n < outputs, other=0.0)
    tl.store(p_bias_out + n, bias)
