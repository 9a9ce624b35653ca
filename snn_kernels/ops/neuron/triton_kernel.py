"""The neurons in Triton: a program owns BLOCK neurons and carries their state in registers through all steps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...layout import Operand, as_operand
from ...triton_memory import is_aligned, load_operand, load_received, on_device, store
from ..currents import is_train
from .triton_steps import model_of

__all__ = ["block_of", "neuron_kernel", "neuron_triton"]


# Pointers and sizes, all of them read at run time: a model compiles once for a type of current and an alignment.
INPUT = (
    "p_current_{0} stride_{0} p_amplitude_{0} amplitude_{0}_inner amplitude_{0}_period p_offset_{0} offset_{0}_inner "
    "offset_{0}_period p_{0} {0}_inner {0}_period p_{0}_out"
)
OPERANDS = " ".join(f"p_{name} {name}_inner {name}_period" for name in ("scale", "a", "b", "v"))
RUN_TIME = (
    f"{INPUT.format('x')} p_m_x {INPUT.format('y')} p_m_y {OPERANDS} p_v_out p_m_v p_eta momentum p_bytes "
    "timesteps neurons"
).split()


@triton.jit(do_not_specialize=RUN_TIME)
def neuron_kernel(
    p_current_x,
    stride_x: tl.int64,
    p_amplitude_x,
    amplitude_x_inner: tl.int64,
    amplitude_x_period: tl.int64,
    p_offset_x,
    offset_x_inner: tl.int64,
    offset_x_period: tl.int64,
    p_x,
    x_inner: tl.int64,
    x_period: tl.int64,
    p_x_out,
    p_m_x,
    p_current_y,
    stride_y: tl.int64,
    p_amplitude_y,
    amplitude_y_inner: tl.int64,
    amplitude_y_period: tl.int64,
    p_offset_y,
    offset_y_inner: tl.int64,
    offset_y_period: tl.int64,
    p_y,
    y_inner: tl.int64,
    y_period: tl.int64,
    p_y_out,
    p_m_y,
    p_scale,
    scale_inner: tl.int64,
    scale_period: tl.int64,
    p_a,
    a_inner: tl.int64,
    a_period: tl.int64,
    p_b,
    b_inner: tl.int64,
    b_period: tl.int64,
    p_v,
    v_inner: tl.int64,
    v_period: tl.int64,
    p_v_out,
    p_m_v,
    p_eta,
    momentum: tl.float32,
    p_bytes,
    timesteps: tl.int64,
    neurons: tl.int64,
    STEP: tl.constexpr,
    H: tl.constexpr,
    BINARY: tl.constexpr,
    DECODES: tl.constexpr,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``y`` is the second decoded input, there in the BINARY ones only; an operand is a pointer, inner and period.
    ``PACKED`` currents are bytes of trains, each spike worth an amplitude, which is not read otherwise.

    ``ALIGNED`` promises that pointers are multiples of 16 bytes, strides and ``neurons`` multiples of 16 elements.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = n < neurons
    if ALIGNED:
        alive = tl.max_constancy(alive, 16)
    b_v = load_operand(p_v, v_inner, v_period, n, neurons, alive)
    b_scale = load_operand(p_scale, scale_inner, scale_period, n, neurons, alive)
    b_a = load_operand(p_a, a_inner, a_period, n, neurons, alive)
    b_b = load_operand(p_b, b_inner, b_period, n, neurons, alive)
    b_offset_x = load_operand(p_offset_x, offset_x_inner, offset_x_period, n, neurons, alive)
    b_x, m_x, m_v = b_v, b_v, b_v
    if DECODES:
        b_x = load_operand(p_x, x_inner, x_period, n, neurons, alive)
    if MOMENTUM:
        m_x = tl.load(p_m_x + n, mask=alive, other=0.0)
        m_v = tl.load(p_m_v + n, mask=alive, other=0.0)
    amplitude_x = b_v
    if PACKED:
        amplitude_x = load_operand(p_amplitude_x, amplitude_x_inner, amplitude_x_period, n, neurons, alive)
    b_y, m_y, b_offset_y, amplitude_y = b_x, m_x, b_offset_x, amplitude_x
    if BINARY:
        if PACKED:
            amplitude_y = load_operand(p_amplitude_y, amplitude_y_inner, amplitude_y_period, n, neurons, alive)
        b_y = load_operand(p_y, y_inner, y_period, n, neurons, alive)
        b_offset_y = load_operand(p_offset_y, offset_y_inner, offset_y_period, n, neurons, alive)
        if MOMENTUM:
            m_y = tl.load(p_m_y + n, mask=alive, other=0.0)

    whole = timesteps // 8 * 8
    for t in range(0, whole, 8):
        xs = load_received(p_current_x, stride_x, amplitude_x, n, alive, t, 0, 8, PACKED, ALIGNED)
        ys = load_received(p_current_y, stride_y, amplitude_y, n, alive, t, 0, 8, PACKED, ALIGNED) if BINARY else xs
        byte = tl.zeros([BLOCK], tl.int32)
        for s in tl.static_range(8):
            eta = tl.load(p_eta + t + s)
            b_x, b_y, b_v, m_x, m_y, m_v, spike = STEP(
                b_x, b_y, b_v, m_x, m_y, m_v, b_offset_x, b_offset_y, b_scale, b_a, b_b,
                xs[s], ys[s], eta, momentum, H, BINARY, NESTEROV,
            )  # fmt: skip
            byte += tl.where(spike, 1 << s, 0)
        store(p_bytes + t // 8 * neurons, byte.to(tl.uint8), n, alive, ALIGNED)

    byte = tl.zeros([BLOCK], tl.int32)
    for t in range(whole, timesteps):
        bit = (t - whole).to(tl.int32)
        xs = load_received(p_current_x, stride_x, amplitude_x, n, alive, t, bit, 1, PACKED, ALIGNED)
        ys = load_received(p_current_y, stride_y, amplitude_y, n, alive, t, bit, 1, PACKED, ALIGNED) if BINARY else xs
        eta = tl.load(p_eta + t)
        b_x, b_y, b_v, m_x, m_y, m_v, spike = STEP(
            b_x, b_y, b_v, m_x, m_y, m_v, b_offset_x, b_offset_y, b_scale, b_a, b_b,
            xs[0], ys[0], eta, momentum, H, BINARY, NESTEROV,
        )  # fmt: skip
        byte |= spike.to(tl.int32) << bit
    if whole < timesteps:
        store(p_bytes + whole // 8 * neurons, byte.to(tl.uint8), n, alive, ALIGNED)

    store(p_v_out, b_v, n, alive, ALIGNED)
    if DECODES:
        store(p_x_out, b_x, n, alive, ALIGNED)
    if BINARY:
        store(p_y_out, b_y, n, alive, ALIGNED)
    if MOMENTUM:
        store(p_m_x, m_x, n, alive, ALIGNED)
        store(p_m_v, m_v, n, alive, ALIGNED)
        if BINARY:
            store(p_m_y, m_y, n, alive, ALIGNED)


def block_of(light: bool, bytes_per_current: int, aligned: bool) -> int:
    """Neurons a program of 128 threads owns: 16 bytes of currents a thread where loads are what it waits for.

    Two neurons a thread where it computes (the function stands there eight times a neuron: more would leave the
    registers and the instruction cache) or cannot load neighbours at once (each load has an address of its own).
    """
    return 128 * 16 // bytes_per_current if aligned and light else 256


def neuron_triton(received, eta, model, operands, x, v, momentum, order, outputs) -> None:
    """Run the kernel over a population that is not empty; ``outputs`` are written."""
    bytes, x_out, v_out, m_out = outputs
    step, function, binary, light = model_of(model, bool(m_out))
    shape, neurons = v_out.shape, v_out.numel()

    def operand(tensor: torch.Tensor) -> Operand:
        return as_operand(tensor, shape, order)

    decoded = zip(x, x_out) if x else [(v, v_out)] * len(received)
    gradients = m_out or [v_out] * len(received)
    inputs = [
        (current, stride, *amplitude, *operand(offset), *operand(xi), out, m)
        for (current, stride, amplitude), offset, (xi, out), m in zip(received, operands.offsets, decoded, gradients)
    ]
    padded = [*operands.parameters, *[operands.scale] * (2 - len(operands.parameters))]
    pointers = [bytes, v_out, *x_out, *m_out, *(current for current, *_ in received)]
    aligned = is_aligned(pointers, (neurons, *(stride for _, stride, _ in received)))
    packed = is_train(received[0][0])
    block = block_of(light, 4 if packed else received[0][0].element_size(), aligned)
    with on_device(v_out):
        neuron_kernel[(triton.cdiv(neurons, block),)](
            *inputs[0],
            *inputs[-1],
            *operand(operands.scale),
            *operand(padded[0]),
            *operand(padded[1]),
            *operand(v),
            v_out,
            m_out[-1] if m_out else v_out,
            eta.contiguous(),
            momentum.beta,
            bytes,
            len(eta),
            neurons,
            STEP=step,
            H=function,
            BINARY=binary,
            DECODES=bool(x),
            MOMENTUM=bool(m_out),
            NESTEROV=momentum.nesterov,
            PACKED=packed,
            ALIGNED=aligned,
            BLOCK=block,
            num_warps=4,
            enable_fp_fusion=False,
        )
