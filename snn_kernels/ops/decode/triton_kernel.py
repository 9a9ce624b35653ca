"""Decoded inputs in Triton: a program owns BLOCK of them and carries them through all steps."""

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_memory import is_aligned, load_operand, load_received, on_device, store
from ..currents import is_train
from ..neuron.triton_steps import decoded

__all__ = ["BLOCK", "decode_kernel", "decode_triton"]

BLOCK = 512
RUN_TIME = (  # noqa: SIM905
    "p_current stride p_eta p_amplitude amplitude_inner amplitude_period p_offset offset_inner offset_period "
    "p_x x_inner x_period p_out timesteps neurons"
).split()


@triton.jit(do_not_specialize=RUN_TIME)
def decode_kernel(
    p_current,
    stride: tl.int64,
    p_eta,
    p_amplitude,
    amplitude_inner: tl.int64,
    amplitude_period: tl.int64,
    p_offset,
    offset_inner: tl.int64,
    offset_period: tl.int64,
    p_x,
    x_inner: tl.int64,
    x_period: tl.int64,
    p_out,
    timesteps: tl.int64,
    neurons: tl.int64,
    PACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``x <- x - eta (2 current - offset)``, stored after each step; ``PACKED`` currents are bits of a train's bytes,
    each worth the amplitude. ``ALIGNED`` is that of the neurons."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = n < neurons
    if ALIGNED:
        alive = tl.max_constancy(alive, 16)
    offset = load_operand(p_offset, offset_inner, offset_period, n, neurons, alive)
    x = load_operand(p_x, x_inner, x_period, n, neurons, alive)
    amplitude = offset
    if PACKED:
        amplitude = load_operand(p_amplitude, amplitude_inner, amplitude_period, n, neurons, alive)
    whole = timesteps // 8 * 8
    for t in range(0, whole, 8):
        currents = load_received(p_current, stride, amplitude, n, alive, t, 0, 8, PACKED, ALIGNED)
        for s in tl.static_range(8):
            x = decoded(x, tl.load(p_eta + t + s), currents[s], offset)
            store(p_out + (t + s) * neurons, x, n, alive, ALIGNED)
    for t in range(whole, timesteps):
        bit = (t - whole).to(tl.int32)
        currents = load_received(p_current, stride, amplitude, n, alive, t, bit, 1, PACKED, ALIGNED)
        x = decoded(x, tl.load(p_eta + t), currents[0], offset)
        store(p_out + t * neurons, x, n, alive, ALIGNED)


def decode_triton(flat, stride, amplitude, eta, operands, out) -> None:
    """Run the kernel; ``out``, which is not empty, is written."""
    neurons = out[0].numel()
    with on_device(out):
        decode_kernel[(triton.cdiv(neurons, BLOCK),)](
            flat,
            stride,
            eta,
            *amplitude,
            *(part for operand in operands for part in operand),
            out,
            len(out),
            neurons,
            PACKED=is_train(flat),
            ALIGNED=is_aligned((flat, out), (neurons, stride)),
            BLOCK=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
