"""Where Triton's products find the inputs of a row, see ``Windows``, and what all of them take."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["PRODUCT", "SIZES", "next_block", "row_offsets", "section_of", "tile_of"]

# Arguments of the kernels that multiply.
PRODUCT = ["p_bytes", "group_stride", "height", "width", "sample_stride", "y_stride", "x_stride", "kernel_width"]
PRODUCT += ["tap_y_stride", "tap_x_stride", "tap_blocks", "section_outputs", "p_weight", "part_stride"]
PRODUCT += ["p_multiplier", "p_bias"]
SIZES = ["timesteps", "rows", "outputs", "inputs"]


@triton.jit
def tile_of(outputs, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The first row and the first output of this program: programs side by side share their rows."""
    column_blocks = (outputs + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0).to(tl.int64)
    return program // column_blocks * BLOCK_M, program % column_blocks * BLOCK_N


@triton.jit
def row_offsets(
    height,
    width,
    sample_stride,
    y_stride,
    x_stride,
    first_row,
    rows,
    WINDOWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Where the rows of a tile begin in a byte group; past the last one, the last one again."""
    row = tl.minimum(first_row + tl.arange(0, BLOCK_M), rows - 1)
    if WINDOWS:
        line = row // width
        sample = line // height
        offset = sample * sample_stride + (line - sample * height) * y_stride + (row - line * width) * x_stride
    else:
        offset = row * sample_stride
    return offset


@triton.jit
def section_of(first_output, section_outputs, tap_blocks, WINDOWS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Where the section begins that a tile of outputs sees."""
    start = tap_blocks * 0
    if WINDOWS:
        start = first_output // section_outputs * tap_blocks * BLOCK_K
    return start


@triton.jit
def next_block(
    start,
    tap_block,
    tap_x,
    kernel_width,
    tap_y_stride,
    tap_x_stride,
    tap_blocks,
    WINDOWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Where the next block of inputs starts: in this tap or the next one, in this row of the window or the next."""
    start += BLOCK_K
    if WINDOWS:
        tap_block += 1
        start += tl.where(tap_block == tap_blocks, tap_x_stride - tap_blocks * BLOCK_K, 0)
        tap_x += tl.where(tap_block == tap_blocks, 1, 0)
        tap_block = tl.where(tap_block == tap_blocks, 0, tap_block)
        start += tl.where(tap_x == kernel_width, tap_y_stride - kernel_width * tap_x_stride, 0)
        tap_x = tl.where(tap_x == kernel_width, 0, tap_x)
    return start, tap_block, tap_x
