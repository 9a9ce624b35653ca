"""The event-driven product of packed trains in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_windows import PRODUCT, SIZES, next_block, row_offsets, section_of, tile_of

__all__ = ["event_kernel"]


@triton.jit(do_not_specialize=[*PRODUCT, "p_out", "out_step", "out_row", *SIZES])
def event_kernel(
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
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Event-driven: the currents of a row for the steps of one byte group, of float32 weights ``[K, N]``.

    Four silent inputs are passed over together; the weights of an input that fires are read once for all its steps.
    """
    row, first_output = tile_of(outputs, 1, BLOCK_N)
    group = tl.program_id(1).to(tl.int64)
    p_bytes += group * group_stride + section_of(first_output, section_outputs, tap_blocks, WINDOWS, BLOCK_K)
    p_bytes += tl.max(row_offsets(height, width, sample_stride, y_stride, x_stride, row, rows, WINDOWS, BLOCK_M=1), 0)
    n = first_output + tl.arange(0, BLOCK_N)
    sums = ()
    for _ in tl.static_range(8):
        sums += (tl.zeros([BLOCK_N], tl.float32),)
    start = tap_blocks * 0
    tap_block = start
    tap_x = start
    for first in range(0, inputs, BLOCK_K):
        word = tl.load(tl.multiple_of(p_bytes + start, BLOCK_K).to(tl.pointer_type(tl.int32)))
        if word != 0:
            for k in tl.static_range(BLOCK_K):
                byte = (word >> (8 * k)) & 255
                if byte != 0:
                    weight = tl.load(p_weight + (first + k) * outputs + n, mask=n < outputs, other=0.0)
                    added = ()
                    for s in tl.static_range(8):
                        added += (sums[s] + tl.where(((byte >> s) & 1) != 0, weight, 0.0),)
                    sums = added
        start, tap_block, tap_x = next_block(
            start, tap_block, tap_x, kernel_width, tap_y_stride, tap_x_stride, tap_blocks, WINDOWS, BLOCK_K
        )
    multiplier = tl.load(p_multiplier + n, mask=n < outputs, other=0.0)
    bias = tl.load(p_bias + n, mask=n < outputs, other=0.0)
    for s in tl.static_range(8):
        t = group * 8 + s
        if t < timesteps:
            tl.store(p_out + t * out_step + row * out_row + n, sums[s] * multiplier + bias, mask=n < outputs)
