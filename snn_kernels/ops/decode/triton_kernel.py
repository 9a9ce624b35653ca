"""Decoded inputs in Triton: a program owns BLOCK of them and carries them through all steps."""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl

from ..currents import is_train
from ..neuron.triton_kernel import load_operand
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
    BLOCK: tl.constexpr,
):
    """``x <- x - eta (2 current - offset)``, stored after each step; ``PACKED`` currents are bits of a train's bytes,
    each worth the amplitude."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = n < neurons
    offset = load_operand(p_offset, offset_inner, offset_period, n, neurons, alive)
    x = load_operand(p_x, x_inner, x_period, n, neurons, alive)
    if PACKED:
        amplitude = load_operand(p_amplitude, amplitude_inner, amplitude_period, n, neurons, alive)
        for group in range(0, (timesteps + 7) // 8):
            byte = tl.load(p_current + group * stride + n, mask=alive, other=0).to(tl.int32)
            for t in range(group * 8, tl.minimum(group * 8 + 8, timesteps)):
                current = tl.where(byte & 1 != 0, amplitude, 0.0)
                byte = byte >> 1
                x = decoded(x, tl.load(p_eta + t), current, offset)
                tl.store(p_out + t * neurons + n, x, mask=alive)
    else:
        for t in range(0, timesteps):
            current = tl.load(p_current + t * stride + n, mask=alive, other=0.0).to(tl.float32)
            x = decoded(x, tl.load(p_eta + t), current, offset)
            tl.store(p_out + t * neurons + n, x, mask=alive)


def decode_triton(flat, stride, amplitude, eta, operands, out) -> None:
    """Run the kernel; ``out``, which is not empty, is written."""
    neurons = out[0].numel()
    with torch.cuda.device(out.device) if out.is_cuda else contextlib.nullcontext():
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
            BLOCK=BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
