"""Parallel spiking neurons in Triton: a program owns BLOCK neurons and reads their currents of all steps."""

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_memory import is_aligned, load_currents, load_operand, on_device, store

__all__ = ["count_kernel", "mix_kernel", "parallel_triton"]

BLOCK = 512


@triton.jit(
    do_not_specialize=[
        "p_current",
        "step_stride",
        "p_threshold",
        "threshold_inner",
        "threshold_period",
        "p_shift",
        "shift_inner",
        "shift_period",
        "p_bytes",
        "timesteps",
        "neurons",
    ]
)
def count_kernel(
    p_current,
    step_stride: tl.int64,
    p_threshold,
    threshold_inner: tl.int64,
    threshold_period: tl.int64,
    p_shift,
    shift_inner: tl.int64,
    shift_period: tl.int64,
    p_bytes,
    timesteps: tl.int64,
    neurons: tl.int64,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Step ``t`` (from 1) is a spike where ``t <= (sum + threshold / 2 + shift * T) / threshold``.

    ``ALIGNED`` is that of the neurons.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = n < neurons
    if ALIGNED:
        alive = tl.max_constancy(alive, 16)
    total = tl.zeros([BLOCK], tl.float32)
    whole = timesteps // 8 * 8
    for t in range(0, whole, 8):
        currents = load_currents(p_current, step_stride, n, alive, t, 8, ALIGNED)
        for s in tl.static_range(8):
            total += currents[s].to(tl.float32)
    for t in range(whole, timesteps):
        total += load_currents(p_current, step_stride, n, alive, t, 1, ALIGNED)[0].to(tl.float32)
    threshold = load_operand(p_threshold, threshold_inner, threshold_period, n, neurons, alive)
    shift = load_operand(p_shift, shift_inner, shift_period, n, neurons, alive)
    level = tl.math.div_rn(total + 0.5 * threshold + shift * timesteps.to(tl.float32), threshold)
    for group in range(0, (timesteps + 7) // 8):
        byte = tl.zeros([BLOCK], tl.int32)
        for s in tl.static_range(8):
            step = group * 8 + s + 1
            fires = (step.to(tl.float32) <= level) & (step <= timesteps)
            byte |= fires.to(tl.int32) << s
        store(p_bytes + group * neurons, byte.to(tl.uint8), n, alive, ALIGNED)


@triton.jit(
    do_not_specialize=["p_current", "step_stride", "p_weight", "p_threshold", "p_bytes", "timesteps", "neurons"]
)
def mix_kernel(
    p_current,
    step_stride: tl.int64,
    p_weight,
    p_threshold,
    p_bytes,
    timesteps: tl.int64,
    neurons: tl.int64,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Step ``t`` is a spike where ``sum_u weight[t, u] * current[u] >= threshold[t]``; eight sums a pass."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = n < neurons
    if ALIGNED:
        alive = tl.max_constancy(alive, 16)
    for group in range(0, (timesteps + 7) // 8):
        totals = ()
        for _ in tl.static_range(8):
            totals += (tl.zeros([BLOCK], tl.float32),)
        for u in range(0, timesteps):
            current = load_currents(p_current, step_stride, n, alive, u, 1, ALIGNED)[0].to(tl.float32)
            added = ()
            for s in tl.static_range(8):
                t = tl.minimum(group * 8 + s, timesteps - 1)
                added += (totals[s] + tl.load(p_weight + t * timesteps + u) * current,)
            totals = added
        byte = tl.zeros([BLOCK], tl.int32)
        for s in tl.static_range(8):
            t = group * 8 + s
            if t < timesteps:
                byte |= (totals[s] >= tl.load(p_threshold + t)).to(tl.int32) << s
        store(p_bytes + group * neurons, byte.to(tl.uint8), n, alive, ALIGNED)


def parallel_triton(flat, stride, fields, weights, out) -> None:
    """Run the counting kernel on ``fields`` (operands) or the mixing one on ``weights``; ``out`` is not empty."""
    neurons, timesteps = out[0].numel(), len(flat)
    grid = (triton.cdiv(neurons, BLOCK),)
    aligned = is_aligned((flat, out), (neurons, stride))
    options = {"ALIGNED": aligned, "BLOCK": BLOCK, "num_warps": 4, "enable_fp_fusion": False}
    with on_device(out):
        if weights is None:
            threshold, shift = fields
            count_kernel[grid](flat, stride, *threshold, *shift, out, timesteps, neurons, **options)
        else:
            mix_kernel[grid](flat, stride, *weights, out, timesteps, neurons, **options)
