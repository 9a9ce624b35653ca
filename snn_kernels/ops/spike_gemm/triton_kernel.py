"""Products of packed trains in Triton, alone and fused with the signGD neuron, on tensor cores: see ``gpu``.

One tile of bytes serves the products of eight steps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..neuron.triton_steps import signgd_step
from .triton_windows import PRODUCT, SIZES, next_block, row_offsets, section_of, tile_of

__all__ = ["product_kernel", "product_signgd_kernel"]


@triton.jit
def pairs_of(words):
    """The two bytes of each word, 16 bits apart in 32: a register of factors, which one operation masks."""
    words = words.to(tl.int32)
    return (words | (words << 8)) & 0x00FF00FF


@triton.jit
def spikes_at(pairs, s: tl.constexpr):
    """The spikes of step ``s`` as the float16 number whose exponent has their bit: see ``gpu``."""
    shift: tl.constexpr = 10 if s < 5 else 7
    spikes = (pairs << shift) & (0x00010001 << (s + shift))
    first = spikes.to(tl.int16).to(tl.float16, bitcast=True)
    second = (spikes >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    return tl.join(first, second).reshape([pairs.shape[0], 2 * pairs.shape[1]])


@triton.jit
def undone(s: tl.constexpr):
    """One over that number."""
    exponent_bit: tl.constexpr = s if s < 5 else s - 3
    return 2.0 ** (15 - (1 << exponent_bit))


@triton.jit
def sums_of_a_pass(
    p_rows,  # [BLOCK_M] rows of the byte group
    walk,  # kernel_width, tap_y_stride, tap_x_stride, tap_blocks
    p_weight,
    part_stride,
    first_output,
    inputs,
    WINDOWS: tl.constexpr,
    PARTS: tl.constexpr,
    FIRST: tl.constexpr,
    PASS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``PASS`` tiles ``[BLOCK_M, BLOCK_N]``: from step ``FIRST`` on, the sum of the weights that fire over ``undone``.

    Inputs and outputs are padded to whole blocks and every run of inputs starts at a multiple of 16 bytes.
    """
    k = tl.arange(0, BLOCK_K)
    pair = tl.arange(0, BLOCK_K // 2)
    n = (first_output + tl.arange(0, BLOCK_N)).to(tl.int64)
    p_words = tl.multiple_of(p_rows.to(tl.pointer_type(tl.uint16))[:, None] + pair[None, :], (1, 8))
    p_weight = tl.multiple_of(p_weight + n[None, :] * inputs + k[:, None], (16, 1))
    sums = ()
    for _ in tl.static_range(PASS):
        sums += (tl.zeros([p_rows.shape[0], BLOCK_N], tl.float32),)
    start = inputs * 0
    tap_block = start
    tap_x = start
    # A part of a block a turn: two products with one sum in a turn would have to wait for each other.
    for turn in range(0, inputs // BLOCK_K * PARTS):
        block, part = turn // PARTS, turn % PARTS
        pairs = pairs_of(tl.load(tl.multiple_of(p_words + start // 2, (1, 8))))
        b_weight = tl.load(tl.multiple_of(p_weight + part * part_stride + block * BLOCK_K, (16, 1)))
        added = ()
        for s in tl.static_range(PASS):
            added += (tl.dot(spikes_at(pairs, FIRST + s), b_weight, sums[s]),)
        sums = added
        after = next_block(start, tap_block, tap_x, walk[0], walk[1], walk[2], walk[3], WINDOWS, BLOCK_K)
        start = tl.where(part == PARTS - 1, after[0], start)
        tap_block = tl.where(part == PARTS - 1, after[1], tap_block)
        tap_x = tl.where(part == PARTS - 1, after[2], tap_x)
    return sums


@triton.jit
def current_of(total, multiplier, bias, s: tl.constexpr):
    """The first product is exact; the second is, too, where no amplitude stands in the multiplier."""
    return total * undone(s) * multiplier[None, :] + bias[None, :]


@triton.jit
def alive_of(first_row, first_output, rows, outputs, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Which neurons of a tile there are."""
    m = tl.arange(0, BLOCK_M) < tl.minimum(rows - first_row, BLOCK_M).to(tl.int32)
    n = tl.arange(0, BLOCK_N) < tl.minimum(outputs - first_output, BLOCK_N).to(tl.int32)
    return m[:, None] & n[None, :]


@triton.jit
def pointers_of(p_data, row_stride, first_row, first_output, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """A tile whose outputs lie side by side; offsets inside the tile have 32 bits, which halves their registers."""
    m = tl.arange(0, BLOCK_M) * row_stride.to(tl.int32)
    return p_data + (first_row * row_stride + first_output) + (m[:, None] + tl.arange(0, BLOCK_N)[None, :])


@triton.jit(do_not_specialize=[*PRODUCT, "p_out", "out_step", "out_row", *SIZES])
def product_kernel(
    p_bytes,
    group_stride: tl.int64,
    height: tl.int64,
    width: tl.int64,
    sample_stride: tl.int64,
    y_stride: tl.int64,
    x_stride: tl.int64,
    kernel_width: tl.int64,
    tap_y_stride: tl.int64,
    tap_x_stride: tl.int64,
    tap_blocks: tl.int64,
    section_outputs: tl.int64,
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
    WINDOWS: tl.constexpr,
    PARTS: tl.constexpr,
    STEPS: tl.constexpr,
    PASS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The currents of a tile of rows and outputs for the steps of one byte group, ``PASS`` steps at a time.

    ``ALIGNED`` promises that ``p_out`` is a multiple of 16 bytes, and of 4 numbers ``out_step``, ``out_row`` and
    ``outputs``.
    """
    first_row, first_output = tile_of(outputs, BLOCK_M, BLOCK_N)
    group = tl.program_id(1).to(tl.int64)
    p_bytes += section_of(first_output, section_outputs, tap_blocks, WINDOWS, BLOCK_K)
    starts = row_offsets(height, width, sample_stride, y_stride, x_stride, first_row, rows, WINDOWS, BLOCK_M)
    walk = (kernel_width, tap_y_stride, tap_x_stride, tap_blocks)
    n = tl.arange(0, BLOCK_N)
    multiplier = tl.load(p_multiplier + first_output + n)
    bias = tl.load(p_bias + first_output + n)
    alive = alive_of(first_row, first_output, rows, outputs, BLOCK_M, BLOCK_N)
    if ALIGNED:
        alive = tl.max_constancy(alive, (1, 4))
    p_out = pointers_of(p_out, out_row, first_row, first_output, BLOCK_M, BLOCK_N)
    # No branch around a pass: behind one, products of Triton 3.6 for sm_90 wait for each other.
    for first in tl.static_range(0, STEPS, PASS):
        p_rows = p_bytes + group * group_stride + starts
        sums = sums_of_a_pass(
            p_rows, walk, p_weight, part_stride, first_output, inputs, WINDOWS, PARTS, first, PASS, BLOCK_N, BLOCK_K
        )
        for s in tl.static_range(first, first + PASS):
            t = group * 8 + s
            if t < timesteps:
                p_tile = p_out + t * out_step
                if ALIGNED:
                    p_tile = tl.multiple_of(p_tile, (1, 16))
                tl.store(p_tile, current_of(sums[s - first], multiplier, bias, s), mask=alive)


@triton.jit
def chase_currents(
    b_x, b_v, byte, currents, fields, p_eta, steps,
    H: tl.constexpr, FIRST: tl.constexpr, PASS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Neurons through the steps of a pass, whose spikes join the byte. Of a group that is not ``WHOLE`` the first
    ``steps`` steps are there. ``fields``: offset, scale and two parameters."""
    for s in tl.static_range(FIRST, FIRST + PASS):
        eta = tl.load(p_eta + (s if WHOLE else tl.minimum(s, steps - 1)))
        x, _, v, _, _, _, spike = signgd_step(
            b_x, b_x, b_v, b_x, b_x, b_v, fields[0], fields[0], fields[1], fields[2], fields[3],
            currents[s - FIRST], currents[s - FIRST], eta, 0.0, H, BINARY=False, NESTEROV=False,
        )  # fmt: skip
        if not WHOLE:
            x = tl.where(s < steps, x, b_x)
            v = tl.where(s < steps, v, b_v)
            spike = spike & (s < steps)
        b_x = x
        b_v = v
        byte += tl.where(spike, 1 << s, 0)
    return b_x, b_v, byte


FIELDS = [f"{kind}_{name}" for name in ("offset", "x", "scale", "a", "b", "v") for kind in ("p", "row")]
RESIDUAL = ["p_residual", "residual_step", "residual_row", "p_amplitude"]
OUTPUT = ["p_eta", "p_train", "p_x_out", "p_v_out"]


@triton.jit(do_not_specialize=[*PRODUCT, *FIELDS, *RESIDUAL, *OUTPUT, *SIZES])
def product_signgd_kernel(
    p_bytes,
    group_stride: tl.int64,
    height: tl.int64,
    width: tl.int64,
    sample_stride: tl.int64,
    y_stride: tl.int64,
    x_stride: tl.int64,
    kernel_width: tl.int64,
    tap_y_stride: tl.int64,
    tap_x_stride: tl.int64,
    tap_blocks: tl.int64,
    section_outputs: tl.int64,
    p_weight,
    part_stride: tl.int64,
    p_multiplier,
    p_bias,
    p_offset,
    row_offset: tl.int64,
    p_x,
    row_x: tl.int64,
    p_scale,
    row_scale: tl.int64,
    p_a,
    row_a: tl.int64,
    p_b,
    row_b: tl.int64,
    p_v,
    row_v: tl.int64,
    p_residual,
    residual_step: tl.int64,
    residual_row: tl.int64,
    p_amplitude,
    p_eta,
    p_train,
    p_x_out,
    p_v_out,
    timesteps: tl.int64,
    rows: tl.int64,
    outputs: tl.int64,
    inputs: tl.int64,
    H: tl.constexpr,
    WINDOWS: tl.constexpr,
    PARTS: tl.constexpr,
    STEPS: tl.constexpr,
    PASS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of neurons through all steps: a thread has the sums of its neurons for the ``PASS`` steps of a pass.

    Decoded input and estimate stay in registers. The other fields are read again in every byte group, because beside
    the sums there is no room to keep them. ``row_<field>`` is 0 where a field has one value for each output. The
    residual is currents or, with an amplitude, a train.
    """
    first_row, first_output = tile_of(outputs, BLOCK_M, BLOCK_N)
    alive = alive_of(first_row, first_output, rows, outputs, BLOCK_M, BLOCK_N)
    b_x = tl.load(pointers_of(p_x, row_x, first_row, first_output, BLOCK_M, BLOCK_N), mask=alive, other=0.0)
    b_v = tl.load(pointers_of(p_v, row_v, first_row, first_output, BLOCK_M, BLOCK_N), mask=alive, other=0.0)
    p_bytes += section_of(first_output, section_outputs, tap_blocks, WINDOWS, BLOCK_K)
    starts = row_offsets(height, width, sample_stride, y_stride, x_stride, first_row, rows, WINDOWS, BLOCK_M)
    walk = (kernel_width, tap_y_stride, tap_x_stride, tap_blocks)
    n = tl.arange(0, BLOCK_N)
    for group in tl.range(0, (timesteps + 7) // 8, disable_licm=True):
        byte = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
        steps = timesteps - group * 8
        for first in tl.static_range(0, STEPS, PASS):
            p_rows = p_bytes + group * group_stride + starts
            sums = sums_of_a_pass(
                p_rows, walk, p_weight, part_stride, first_output, inputs, WINDOWS, PARTS, first, PASS, BLOCK_N, BLOCK_K
            )
            p_tile = pointers_of(p_offset, row_offset, first_row, first_output, BLOCK_M, BLOCK_N)
            b_offset = tl.load(p_tile, mask=alive, other=0.0)
            p_tile = pointers_of(p_scale, row_scale, first_row, first_output, BLOCK_M, BLOCK_N)
            b_scale = tl.load(p_tile, mask=alive, other=0.0)
            b_a = tl.load(pointers_of(p_a, row_a, first_row, first_output, BLOCK_M, BLOCK_N), mask=alive, other=0.0)
            b_b = tl.load(pointers_of(p_b, row_b, first_row, first_output, BLOCK_M, BLOCK_N), mask=alive, other=0.0)
            multiplier = tl.load(p_multiplier + first_output + n)
            bias = tl.load(p_bias + first_output + n)
            if p_amplitude is not None:
                p_tile = p_residual + group * residual_step
                p_tile = pointers_of(p_tile, residual_row, first_row, first_output, BLOCK_M, BLOCK_N)
                residual = tl.load(p_tile, mask=alive, other=0).to(tl.int32)
                amplitude = tl.load(p_amplitude + first_output + n, mask=first_output + n < outputs, other=0.0)
            # Here, not behind the branch below: Triton 3.6 fails on sm_100 where sums are read behind one.
            currents = ()
            for s in tl.static_range(first, first + PASS):
                current = current_of(sums[s - first], multiplier, bias, s)
                if p_amplitude is not None:
                    current += tl.where(((residual >> s) & 1) != 0, amplitude[None, :], 0.0)
                elif p_residual is not None:
                    p_tile = p_residual + (group * 8 + tl.minimum(s, steps - 1)) * residual_step
                    p_tile = pointers_of(p_tile, residual_row, first_row, first_output, BLOCK_M, BLOCK_N)
                    current += tl.load(p_tile, mask=alive, other=0.0)
                currents += (current,)
            # One branch for all steps: what each step behind a branch of its own gives is brought from one layout into
            # another there, through shared memory.
            fields = (b_offset, b_scale, b_a, b_b)
            p_steps = p_eta + group * 8
            if steps >= STEPS:
                b_x, b_v, byte = chase_currents(b_x, b_v, byte, currents, fields, p_steps, steps, H, first, PASS, True)
            else:
                b_x, b_v, byte = chase_currents(b_x, b_v, byte, currents, fields, p_steps, steps, H, first, PASS, False)
        p_tile = pointers_of(p_train + group * rows * outputs, outputs, first_row, first_output, BLOCK_M, BLOCK_N)
        tl.store(p_tile, byte.to(tl.uint8), mask=alive)
    tl.store(pointers_of(p_x_out, outputs, first_row, first_output, BLOCK_M, BLOCK_N), b_x, mask=alive)
    tl.store(pointers_of(p_v_out, outputs, first_row, first_output, BLOCK_M, BLOCK_N), b_v, mask=alive)
