"""Products of packed trains in Triton, alone and fused with the signGD neuron, on tensor cores.

A byte of a train holds eight steps of an input. Widened to 16 bits and masked with ``1 << s`` it is, read as float16, the
subnormal ``spike * 2**(s - 24)``: tensor cores multiply it with a float16 weight without rounding and add in float32, and
the sum is multiplied by ``2**(24 - s)``, without rounding, at the end. One tile of bytes serves eight products.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..signgd.triton_kernel import advance, load_operand

__all__ = ["product_kernel", "product_signgd_kernel"]


@triton.jit
def sums_of_a_group(
    p_bytes,  # [BLOCK_M] rows of the byte group
    p_taps,
    p_weight,
    part_stride,
    first_output,
    inputs,
    PARTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``STEPS`` tiles ``[BLOCK_M, BLOCK_N]``: at step ``s``, ``2**(s - 24)`` times the sum of the weights that fire.

    Inputs and outputs are padded to whole blocks and every run of inputs starts at a multiple of 16 bytes.
    """
    k = tl.arange(0, BLOCK_K)
    n = (first_output + tl.arange(0, BLOCK_N)).to(tl.int64)
    p_bytes = tl.multiple_of(p_bytes[:, None] + k[None, :], (1, 16))
    p_weight = tl.multiple_of(p_weight + n[None, :] * inputs + k[:, None], (16, 1))
    sums = ()
    for _ in tl.static_range(STEPS):
        sums += (tl.zeros([BLOCK_M, BLOCK_N], tl.float32),)
    for block in range(0, inputs // BLOCK_K):
        if p_taps is None:
            start = block * BLOCK_K
        else:
            start = tl.load(p_taps + block)
        bits = tl.load(tl.multiple_of(p_bytes + start, (1, 16))).to(tl.int16)
        for part in tl.static_range(PARTS):
            b_weight = tl.load(p_weight + part * part_stride + block * BLOCK_K)
            added = ()
            for s in tl.static_range(STEPS):
                added += (tl.dot((bits & (1 << s)).to(tl.float16, bitcast=True), b_weight, sums[s]),)
            sums = added
    return sums


@triton.jit
def current_of(total, multiplier, bias, s: tl.constexpr):
    """The first product is exact; the second is, too, where no amplitude stands in the multiplier."""
    return total * (1 << (24 - s)) * multiplier[None, :] + bias[None, :]


@triton.jit
def tile_of(outputs, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The rows and the first output of this program: programs side by side share their rows."""
    column_blocks = (outputs + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0).to(tl.int64)
    return program // column_blocks * BLOCK_M + tl.arange(0, BLOCK_M), program % column_blocks * BLOCK_N


SIZES = "group_stride row_stride part_stride out_step out_row timesteps rows outputs inputs".split()


@triton.jit(do_not_specialize=["p_bytes", "p_rows", "p_taps", "p_weight", "p_multiplier", "p_bias", "p_out", *SIZES])
def product_kernel(
    p_bytes,
    group_stride: tl.int64,
    p_rows,
    row_stride: tl.int64,
    p_taps,
    p_weight,
    part_stride: tl.int64,
    p_multiplier,
    p_bias,
    p_out,
    out_step: tl.int64,
    out_row: tl.int64,
    timesteps: tl.int64,
    rows: tl.int64,
    outputs: tl.int64,
    inputs: tl.int64,
    PARTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The currents of a tile of rows and outputs for the steps of one byte group."""
    row, first_output = tile_of(outputs, BLOCK_M, BLOCK_N)
    group = tl.program_id(1).to(tl.int64)
    # A row past the last one reads the last one.
    inside = tl.minimum(row, rows - 1)
    if p_rows is None:
        row_offset = inside * row_stride
    else:
        row_offset = tl.load(p_rows + inside)
    sums = sums_of_a_group(
        p_bytes + group * group_stride + row_offset,
        p_taps,
        p_weight,
        part_stride,
        first_output,
        inputs,
        PARTS,
        STEPS,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    n = first_output + tl.arange(0, BLOCK_N)
    multiplier = tl.load(p_multiplier + n)
    bias = tl.load(p_bias + n)
    alive = (row < rows)[:, None] & (n < outputs)[None, :]
    p_out += row[:, None] * out_row + n[None, :]
    for s in tl.static_range(STEPS):
        t = group * 8 + s
        if t < timesteps:
            tl.store(p_out + t * out_step, current_of(sums[s], multiplier, bias, s), mask=alive)


FIELDS = ("offset", "x", "scale", "a", "b", "v")
NEURON = " ".join(f"p_{name} {name}_inner {name}_period" for name in FIELDS).split()
PRODUCT = ["p_bytes", "group_stride", "p_rows", "row_stride", "p_taps", "p_weight", "part_stride", "p_multiplier"]
OUTPUT = ["p_bias", "p_eta", "p_train", "p_x_out", "p_v_out", "timesteps", "rows", "outputs", "inputs"]


@triton.jit(do_not_specialize=[*PRODUCT, *NEURON, *OUTPUT])
def product_signgd_kernel(
    p_bytes,
    group_stride: tl.int64,
    p_rows,
    row_stride: tl.int64,
    p_taps,
    p_weight,
    part_stride: tl.int64,
    p_multiplier,
    p_bias,
    p_offset,
    offset_inner: tl.int64,
    offset_period: tl.int64,
    p_x,
    x_inner: tl.int64,
    x_period: tl.int64,
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
    p_eta,
    p_train,
    p_x_out,
    p_v_out,
    timesteps: tl.int64,
    rows: tl.int64,
    outputs: tl.int64,
    inputs: tl.int64,
    H: tl.constexpr,
    PARTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of neurons through all steps: a thread has the sums of its neurons for every step of a byte group.

    Decoded input and estimate stay in registers. The other operands are read again in every byte group, because beside
    the sums there is no room to keep them.
    """
    row, first_output = tile_of(outputs, BLOCK_M, BLOCK_N)
    n = first_output + tl.arange(0, BLOCK_N)
    alive = (row < rows)[:, None] & (n < outputs)[None, :]
    neuron = row[:, None] * outputs + n[None, :]
    neurons = rows * outputs
    b_x = load_operand(p_x, x_inner, x_period, neuron, neurons, alive)
    b_v = load_operand(p_v, v_inner, v_period, neuron, neurons, alive)
    inside = tl.minimum(row, rows - 1)
    if p_rows is None:
        row_offset = inside * row_stride
    else:
        row_offset = tl.load(p_rows + inside)
    for group in range(0, (timesteps + 7) // 8):
        sums = sums_of_a_group(
            p_bytes + group * group_stride + row_offset,
            p_taps,
            p_weight,
            part_stride,
            first_output,
            inputs,
            PARTS,
            STEPS,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
        )
        multiplier = tl.load(p_multiplier + n)
        bias = tl.load(p_bias + n)
        b_offset = load_operand(p_offset, offset_inner, offset_period, neuron, neurons, alive)
        b_scale = load_operand(p_scale, scale_inner, scale_period, neuron, neurons, alive)
        b_a = load_operand(p_a, a_inner, a_period, neuron, neurons, alive)
        b_b = load_operand(p_b, b_inner, b_period, neuron, neurons, alive)
        byte = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
        for s in tl.static_range(STEPS):
            t = group * 8 + s
            if t < timesteps:
                eta = tl.load(p_eta + t)
                current = current_of(sums[s], multiplier, bias, s)
                b_x, _, b_v, spike = advance(
                    b_x, b_x, b_v, b_a, b_b, eta, b_offset, b_offset, b_scale, current, current, H, False
                )
                byte |= spike << s
        tl.store(p_train + group * neurons + neuron, byte.to(tl.uint8), mask=alive)
    tl.store(p_x_out + neuron, b_x, mask=alive)
    tl.store(p_v_out + neuron, b_v, mask=alive)
