"""The signGD neuron in Triton: a program owns BLOCK neurons and carries their state in registers through all steps."""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl

from ...layout import Operand, as_operand, flat_steps
from ...triton_activations import TRITON_ACTIVATIONS

__all__ = ["signgd_kernel", "signgd_triton"]


@triton.jit
def load_operand(operand, n, neurons, alive):
    """Neuron ``n`` of a broadcast operand reads ``data[(n // inner) % period]``."""
    p_data, inner, period = operand
    if period == 1:
        value = tl.zeros_like(n).to(tl.float32) + tl.load(p_data)
    elif period >= neurons:
        value = tl.load(p_data + n, mask=alive, other=0.0)
    elif neurons <= 0x7FFFFFFF:  # a 64-bit division costs as much as several steps of a neuron
        phase = n.to(tl.uint32) // inner.to(tl.uint32) % period.to(tl.uint32)
        value = tl.load(p_data + phase, mask=alive, other=0.0)
    else:
        value = tl.load(p_data + n // inner % period, mask=alive, other=0.0)
    return value


@triton.jit
def load_currents(current, n, alive, t, STEPS: tl.constexpr, ALIGNED: tl.constexpr):
    """The currents of ``STEPS`` steps from ``t`` on, all loads issued before the first use of one."""
    p_current, step_stride = current
    currents = ()
    for s in tl.static_range(STEPS):
        pointers = p_current + (t + s) * step_stride + n
        if ALIGNED:
            pointers = tl.multiple_of(pointers, 16)
        currents = currents + (tl.load(pointers, mask=alive, other=0.0),)
    return currents


@triton.jit
def store(p_out, values, n, alive, ALIGNED: tl.constexpr):
    pointers = p_out + n
    if ALIGNED:
        pointers = tl.multiple_of(pointers, 16)
    tl.store(pointers, values, mask=alive)


@triton.jit
def decoded_input(x, current, offset, eta):
    """``x - eta * (2 * current - offset)``: see csrc/core/signgd.h."""
    current = current.to(tl.float32)
    return x - eta * (current + current - offset)


@triton.jit
def advance(x, y, v, a, b, eta, offset_x, offset_y, scale, current_x, current_y, H: tl.constexpr, BINARY: tl.constexpr):
    """One step; ties fire."""
    x = decoded_input(x, current_x, offset_x, eta)
    if BINARY:
        y = decoded_input(y, current_y, offset_y, eta)
        target = H(x, y)
    else:
        target = H(x, a, b)
    spike = v >= target
    step = eta * scale
    v = tl.where(spike, v - step, v + step)
    return x, y, v, spike.to(tl.int32)


# Nothing is specialised on a value: one compilation an activation, a type of current and an alignment.
RUN_TIME = ("current_x", "current_y", "offset_x", "offset_y", "x", "y", "scale", "a", "b", "v")
RUN_TIME = (*RUN_TIME, "p_eta", "p_x_out", "p_y_out", "p_v_out", "p_bytes", "timesteps", "neurons")


@triton.jit(do_not_specialize=RUN_TIME)
def signgd_kernel(
    current_x,
    current_y,
    offset_x,
    offset_y,
    x,
    y,
    scale,
    a,
    b,
    v,
    p_eta,
    p_x_out,
    p_y_out,
    p_v_out,
    p_bytes,
    timesteps: tl.int64,
    neurons: tl.int64,
    H: tl.constexpr,
    BINARY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``current_x`` and ``current_y`` are (pointer, step stride) pairs, the operands (pointer, inner, period) triples.

    ``ALIGNED`` promises that pointers are multiples of 16 bytes, strides and ``neurons`` multiples of 16 elements.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = n < neurons
    if ALIGNED:
        alive = tl.max_constancy(alive, 16)
    b_x = load_operand(x, n, neurons, alive)
    b_y = load_operand(y, n, neurons, alive) if BINARY else b_x
    b_v = load_operand(v, n, neurons, alive)
    b_scale = load_operand(scale, n, neurons, alive)
    b_a = load_operand(a, n, neurons, alive)
    b_b = load_operand(b, n, neurons, alive)
    b_offset_x = load_operand(offset_x, n, neurons, alive)
    b_offset_y = load_operand(offset_y, n, neurons, alive) if BINARY else b_offset_x

    whole = timesteps // 8 * 8
    for t in range(0, whole, 8):
        xs = load_currents(current_x, n, alive, t, 8, ALIGNED)
        ys = load_currents(current_y, n, alive, t, 8, ALIGNED) if BINARY else xs
        byte = tl.zeros([BLOCK], tl.int32)
        for s in tl.static_range(8):
            eta = tl.load(p_eta + t + s)
            b_x, b_y, b_v, spike = advance(
                b_x, b_y, b_v, b_a, b_b, eta, b_offset_x, b_offset_y, b_scale, xs[s], ys[s], H, BINARY
            )
            byte |= spike << s
        store(p_bytes + t // 8 * neurons, byte.to(tl.uint8), n, alive, ALIGNED)

    byte = tl.zeros([BLOCK], tl.int32)
    for t in range(whole, timesteps):
        xs = load_currents(current_x, n, alive, t, 1, ALIGNED)
        ys = load_currents(current_y, n, alive, t, 1, ALIGNED) if BINARY else xs
        eta = tl.load(p_eta + t)
        b_x, b_y, b_v, spike = advance(
            b_x, b_y, b_v, b_a, b_b, eta, b_offset_x, b_offset_y, b_scale, xs[0], ys[0], H, BINARY
        )
        byte |= spike << (t - whole).to(tl.int32)
    if whole < timesteps:
        store(p_bytes + whole // 8 * neurons, byte.to(tl.uint8), n, alive, ALIGNED)

    store(p_x_out, b_x, n, alive, ALIGNED)
    if BINARY:
        store(p_y_out, b_y, n, alive, ALIGNED)
    store(p_v_out, b_v, n, alive, ALIGNED)


def signgd_triton(currents, eta, offsets, x, scale, parameters, v, activation, order, bytes, x_out, v_out) -> None:
    """Run the kernel over a population that is not empty; ``bytes``, ``x_out`` and ``v_out`` are written."""
    row = TRITON_ACTIVATIONS[activation]
    shape, neurons = v_out.shape, v_out.numel()

    def operand(tensor: torch.Tensor) -> Operand:
        return tuple(as_operand(tensor, shape, order))

    steps = [flat_steps(current, order) for current in currents]
    first, last = 0, row.arity - 1
    padded = [*parameters, *[scale] * (2 - len(parameters))]
    pointers = [bytes, v_out, *x_out, *(data for data, _ in steps)]
    aligned = all(tensor.data_ptr() % 16 == 0 for tensor in pointers)
    aligned = aligned and all(size % 16 == 0 for size in (neurons, *(stride for _, stride in steps)))
    block = 128 * 16 // currents[0].element_size()  # 16 bytes of currents a thread
    guard = torch.cuda.device(v_out.device) if v_out.is_cuda else contextlib.nullcontext()
    with guard:
        signgd_kernel[(triton.cdiv(neurons, block),)](
            steps[first],
            steps[last],
            operand(offsets[first]),
            operand(offsets[last]),
            operand(x[first]),
            operand(x[last]),
            operand(scale),
            operand(padded[0]),
            operand(padded[1]),
            operand(v),
            eta.contiguous(),
            x_out[first],
            x_out[last],
            v_out,
            bytes,
            len(currents[0]),
            neurons,
            H=row.function,
            BINARY=row.arity == 2,
            ALIGNED=aligned,
            BLOCK=block,
            num_warps=4,
            enable_fp_fusion=False,
        )
