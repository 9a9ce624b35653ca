"""Neurons whose target is a function of their vector, in Triton: a program owns a vector through all steps."""

from __future__ import annotations

import triton
import triton.language as tl

from ... import triton_math as m
from ...triton_memory import is_aligned, load_currents, load_operand, on_device, store
from ..currents import is_train
from ..neuron.triton_steps import chase, decoded

__all__ = ["vector_kernel", "vector_triton"]

LONGEST = 4096  # elements that a program keeps in registers

OPERANDS = ("amplitude", "offset", "scale", "a", "b", "x", "v")
FIELDS = " ".join(f"p_{name} {name}_inner {name}_period" for name in OPERANDS)


@triton.jit
def softmax(x, keep, b, eps, length, inside):
    kept = inside & (keep != 0.0)
    highest = tl.max(tl.where(kept, x, float("-inf")), 0)
    weight = tl.where(kept, m.exp_of_negative(x - highest), 0.0)
    total = tl.sum(weight, 0)
    return weight * tl.where(total == 0.0, 0.0, tl.math.div_rn(1.0, total))


@triton.jit
def rms_norm(x, weight, bias, eps, length, inside):
    u = tl.where(inside, x, 0.0)
    mean_square = tl.math.div_rn(tl.sum(u * u, 0), length)
    return x * tl.math.div_rn(1.0, tl.math.sqrt_rn(mean_square + eps)) * weight + bias


@triton.jit
def layer_norm(x, weight, bias, eps, length, inside):
    mean = tl.math.div_rn(tl.sum(tl.where(inside, x, 0.0), 0), length)
    return rms_norm(x - mean, weight, bias, eps, length, inside)


VECTOR_FUNCTIONS = {"softmax": softmax, "layer_norm": layer_norm, "rms_norm": rms_norm}


RUN_TIME = f"p_current stride p_eta eps {FIELDS} p_x_out p_v_out p_bytes timesteps neurons length".split()


@triton.jit(do_not_specialize=RUN_TIME)
def vector_kernel(
    p_current,
    stride: tl.int64,
    p_eta,
    eps: tl.float32,
    p_amplitude,
    amplitude_inner: tl.int64,
    amplitude_period: tl.int64,
    p_offset,
    offset_inner: tl.int64,
    offset_period: tl.int64,
    p_scale,
    scale_inner: tl.int64,
    scale_period: tl.int64,
    p_a,
    a_inner: tl.int64,
    a_period: tl.int64,
    p_b,
    b_inner: tl.int64,
    b_period: tl.int64,
    p_x,
    x_inner: tl.int64,
    x_period: tl.int64,
    p_v,
    v_inner: tl.int64,
    v_period: tl.int64,
    p_x_out,
    p_v_out,
    p_bytes,
    timesteps: tl.int64,
    neurons: tl.int64,
    length: tl.int64,
    H: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``PACKED`` currents are bits of a train's bytes, each worth the amplitude.

    ``ALIGNED`` promises that pointers are multiples of 16 bytes, the stride and ``length`` multiples of 16 elements.
    """
    d = tl.arange(0, BLOCK)
    inside = d < length
    if ALIGNED:
        inside = tl.max_constancy(inside, 16)
    first = tl.program_id(0).to(tl.int64) * length
    if ALIGNED:
        first = tl.multiple_of(first, 16)
    n = first + d
    x = load_operand(p_x, x_inner, x_period, n, neurons, inside)
    v = load_operand(p_v, v_inner, v_period, n, neurons, inside)
    offset = load_operand(p_offset, offset_inner, offset_period, n, neurons, inside)
    scale = load_operand(p_scale, scale_inner, scale_period, n, neurons, inside)
    a = load_operand(p_a, a_inner, a_period, n, neurons, inside)
    b = load_operand(p_b, b_inner, b_period, n, neurons, inside)
    if PACKED:
        amplitude = load_operand(p_amplitude, amplitude_inner, amplitude_period, n, neurons, inside)
    for group in range(0, (timesteps + 7) // 8):
        byte = tl.zeros([BLOCK], tl.int32)
        if PACKED:
            received = load_currents(p_current, stride, n, inside, group, 1, ALIGNED)[0].to(tl.int32)
        # A loop at run time: unrolled, eight reductions and their loads do not fit the registers.
        for t in range(group * 8, tl.minimum(group * 8 + 8, timesteps)):
            if PACKED:
                current = tl.where(received & 1 != 0, amplitude, 0.0)
                received = received >> 1
            else:
                current = load_currents(p_current, stride, n, inside, t, 1, ALIGNED)[0].to(tl.float32)
            eta = tl.load(p_eta + t)
            x = decoded(x, eta, current, offset)
            v, spike = chase(v, H(x, a, b, eps, length.to(tl.float32), inside), eta, scale)
            byte |= (spike.to(tl.int32) << t % 8).to(tl.int32)
        store(p_bytes + group * neurons, byte.to(tl.uint8), n, inside, ALIGNED)
    store(p_x_out, x, n, inside, ALIGNED)
    store(p_v_out, v, n, inside, ALIGNED)


def warps_of(block: int) -> int:
    """Four elements a thread, eight in the longest vectors: with their operands they fit its registers."""
    return min(max(1, block // 128), 16)


def vector_triton(function, timesteps, flat, stride, amplitude, eta, eps, operands, outputs) -> None:
    """Run the kernel over vectors that are not empty; ``outputs`` are written."""
    bytes, x_out, v_out = outputs
    length, neurons = v_out.shape[-1], v_out.numel()
    if length > LONGEST:
        raise ValueError(f"current: expected at most {LONGEST} elements a vector on backend 'triton', got {length}")
    block = triton.next_power_of_2(length)
    with on_device(v_out):
        vector_kernel[(neurons // length,)](
            flat,
            stride,
            eta,
            eps,
            *amplitude,
            *(part for operand in operands for part in operand),
            x_out,
            v_out,
            bytes,
            timesteps,
            neurons,
            length,
            H=VECTOR_FUNCTIONS[function],
            PACKED=is_train(flat),
            ALIGNED=is_aligned((flat, bytes, x_out, v_out), (length, stride)),
            BLOCK=block,
            num_warps=warps_of(block),
            enable_fp_fusion=False,
        )
