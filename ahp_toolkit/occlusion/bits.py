"""Masks as bits: tight crops packed 64 pixels a chunk along y, their runs, and the integer kernels that count overlaps.

Columns lead because COCO's RLE is column-major: its runs become bits without a full-frame decode. Offsets
(dx, dy) are those of the occluder's frame corner from the human's tight corner. Only integers decide anything here, so
every machine gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ahp_toolkit.core.masks import Bool2D, Mask

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A mask cut tight and packed once, for any number of placements.

    ``x0``, ``y0``: the crop's corner in its full frame, px. ``bits`` uint64 [width, chunks + 2], a zero chunk at either
    end. ``ptr``, ``lows``, ``highs``: runs [low, high) of column x are those from ptr[x] to ptr[x + 1]. ``columns`` and
    ``rows``: true pixels of each. ``area``: true pixels. ``total``: the area ratios are relative to.
    """

    x0: int
    y0: int
    width: int
    height: int
    area: int
    total: int
    bits: NDArray[np.uint64]
    ptr: Ints
    lows: Ints
    highs: Ints
    columns: Ints
    rows: Ints


def pack(mask: Bool2D | Mask, total: int | None = None) -> Packed:
    """Cut a mask tight and pack it.

    Args:
        mask: bool [H, W] or a Mask: a person (full frame) or an occluder (full frame or crop).
        total: area of the whole person, px, when ``mask`` is only what other occluders have left visible of it; the
            ratio is then that of the union. None: the mask's own area.

    Raises:
        ValueError: when the mask is empty, or ``total`` is smaller than its area.
    """
    if isinstance(mask, Mask):
        ptr, lows, highs = _lines_from_runs(mask.runs(), mask.height, mask.width)
    else:
        ptr, lows, highs = _lines_from_bool(np.ascontiguousarray(mask, dtype=np.bool_))
    if lows.size == 0:
        raise ValueError("expected a mask with at least one pixel, got an empty one")
    used = np.flatnonzero(np.diff(ptr))
    x0, x1, y0, y1 = int(used[0]), int(used[-1]) + 1, int(lows.min()), int(highs.max())
    ptr = np.ascontiguousarray(ptr[x0 : x1 + 1])
    lows, highs = lows - np.int32(y0), highs - np.int32(y0)
    bits, columns, rows = fill(ptr, lows, highs, y1 - y0)
    area = int(columns.sum())
    if total is not None and total < area:
        raise ValueError(f"expected a total of at least the mask's own {area} px, got {total}")
    return Packed(x0, y0, x1 - x0, y1 - y0, area, total or area, bits, ptr, lows, highs, columns, rows)


@njit(cache=True)
def _lines_from_bool(mask):  # type: ignore[no-untyped-def]
    height, width = mask.shape
    counts = np.zeros(width + 1, np.int32)
    for y in range(height):  # row order: the array's own
        for x in range(width):
            if mask[y, x] and (y == 0 or not mask[y - 1, x]):
                counts[x + 1] += 1
    ptr = np.zeros(width + 1, np.int32)
    for x in range(width):
        ptr[x + 1] = ptr[x] + counts[x + 1]
    at = ptr.copy()
    lows, highs = np.empty(ptr[width], np.int32), np.empty(ptr[width], np.int32)
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                if y == 0 or not mask[y - 1, x]:
                    lows[at[x]] = y
                    at[x] += 1
                highs[at[x] - 1] = y + 1
    return ptr, lows, highs


@njit(cache=True)
def _lines_from_runs(runs, height, width):  # type: ignore[no-untyped-def]
    pieces, position = 0, 0
    for i in range(runs.size):
        if i & 1 and runs[i] > 0:
            pieces += (position + runs[i] - 1) // height - position // height + 1
        position += runs[i]
    ptr = np.zeros(width + 1, np.int32)
    lows, highs = np.empty(pieces, np.int32), np.empty(pieces, np.int32)
    n, position = 0, 0
    for i in range(runs.size):
        end = position + runs[i]
        while i & 1 and position < end:  # a run that goes on in the next column is cut at the border
            x = position // height
            stop = min(end, (x + 1) * height)
            lows[n], highs[n] = position - x * height, stop - x * height
            ptr[x + 1] += 1
            n += 1
            position = stop
        position = end
    for x in range(width):
        ptr[x + 1] += ptr[x]
    return ptr, lows, highs


@njit(cache=True)
def fill(ptr, lows, highs, height):  # type: ignore[no-untyped-def]
    """Runs to (bits, true pixels of each column, true pixels of each row)."""
    width = ptr.size - 1
    bits = np.zeros((width, (height + 63) // 64 + 2), np.uint64)
    columns, steps = np.zeros(width, np.int32), np.zeros(height + 1, np.int32)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    for x in range(width):
        for i in range(ptr[x], ptr[x + 1]):
            low, last = lows[i], highs[i] - 1
            columns[x] += last + 1 - low
            steps[low] += 1
            steps[last + 1] -= 1
            head = ones << np.uint64(low & 63)
            tail = ones >> np.uint64(63 - (last & 63))
            first, final = (low >> 6) + 1, (last >> 6) + 1
            if first == final:
                bits[x, first] |= head & tail
            else:
                bits[x, first] |= head
                for k in range(first + 1, final):
                    bits[x, k] = ones
                bits[x, final] |= tail
    return bits, columns, np.cumsum(steps)[:height].astype(np.int32)


@njit(cache=True)
def resample(ptr, lows, highs, width, height, new_width, new_height, flip):  # type: ignore[no-untyped-def]
    """(ptr, lows, highs, area), mirrored (if ``flip``) and resized: pixel j shows pixel ((2 j + 1) * n) // (2 * m)."""
    pieces = 0
    for x in range(new_width):
        source = ((2 * x + 1) * width) // (2 * new_width)
        source = width - 1 - source if flip else source
        pieces += ptr[source + 1] - ptr[source]
    out_ptr = np.zeros(new_width + 1, np.int32)
    out_lows, out_highs = np.empty(pieces, np.int32), np.empty(pieces, np.int32)
    n, area = 0, 0
    for x in range(new_width):
        source = ((2 * x + 1) * width) // (2 * new_width)
        source = width - 1 - source if flip else source
        for i in range(ptr[source], ptr[source + 1]):
            # the first j whose source pixel is >= a: ceil((2 m a - n) / (2 n))
            low = -((height - 2 * new_height * np.int64(lows[i])) // (2 * height))
            high = -((height - 2 * new_height * np.int64(highs[i])) // (2 * height))
            if low < high:
                out_lows[n], out_highs[n] = low, high
                area += high - low
                n += 1
        out_ptr[x + 1] = n
    return out_ptr, out_lows[:n], out_highs[:n], area


@intrinsic
def popcount(typingctx, chunk):  # type: ignore[no-untyped-def]
    """Set bits of a uint64: one machine instruction where there is one."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@njit(cache=True)
def overlap(a, a_height, b, b_height, dx, dy):  # type: ignore[no-untyped-def]
    """True pixels in common of bits ``a`` and of bits ``b`` moved by (dx, dy)."""
    low, high = max(0, dy), min(a_height, dy + b_height)
    if low >= high:
        return 0
    first, last = low >> 6, (high - 1) >> 6
    start = (first << 6) - dy  # b's row under the first bit of a's first chunk; -63 at the least
    q, r = (start >> 6) + 1, np.uint64(start & 63)
    left = np.uint64(63) - r
    total = np.uint64(0)
    one = np.uint64(1)
    for x in range(max(0, dx), min(a.shape[0], dx + b.shape[0])):
        for k in range(last - first + 1):
            under = (b[x - dx, q + k] >> r) | ((b[x - dx, q + k + 1] << left) << one)
            total += popcount(a[x, first + 1 + k] & under)
    return np.int64(total)


@njit(cache=True)
def bounds(a, b):  # type: ignore[no-untyped-def]
    """For every shift d from -(len(b) - 1) on: the sum over i of min(a[i], b[i - d]).

    With the columns' (or rows') pixel counts this bounds the overlap of every placement with that dx (or dy).
    """
    out = np.zeros(a.size + b.size - 1, np.int32)
    for k in range(out.size):
        d = k - b.size + 1
        low, high = max(0, d), min(a.size, d + b.size)
        left, right = a[low:high], b[low - d : high - d]
        total = np.int32(0)
        for i in range(left.size):
            total += min(left[i], right[i])
        out[k] = total
    return out


@njit(cache=True)
def overlaps_of_column(a_ptr, a_lows, a_highs, b_ptr, b_lows, b_highs, b_height, dx, out):  # type: ignore[no-untyped-def]
    """The overlap of every dy at one dx, into ``out``: dy = index - b_height, its length a_height + b_height.

    The overlap of two runs as a function of dy is a trapezoid: four steps of its slope. Two running sums of all steps
    give the exact counts, in time proportional to pairs of runs and without a Fourier transform.
    """
    out[:] = 0
    for x in range(max(0, dx), min(a_ptr.size - 1, dx + b_ptr.size - 1)):
        for i in range(a_ptr[x], a_ptr[x + 1]):
            low, high = a_lows[i] + b_height, a_highs[i] + b_height
            for j in range(b_ptr[x - dx], b_ptr[x - dx + 1]):
                out[low - b_highs[j]] += 1
                out[low - b_lows[j]] -= 1
                out[high - b_highs[j]] -= 1
                if high - b_lows[j] < out.size:
                    out[high - b_lows[j]] += 1
    slope, value = np.int32(0), np.int32(0)
    for k in range(out.size):
        step = out[k]
        out[k] = value
        slope += step
        value += slope


@njit(cache=True)
def draw(state, n):  # type: ignore[no-untyped-def]
    """An exactly uniform integer in [0, n), n < 2**32 (splitmix64, Lemire's rejection); ``state`` uint64 [1] moves."""
    mask = np.uint64(0xFFFFFFFF)
    size = np.uint64(n)
    while True:
        state[0] += np.uint64(0x9E3779B97F4A7C15)
        z = state[0]
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        product = ((z ^ (z >> np.uint64(31))) >> np.uint64(32)) * size
        rest = product & mask
        if rest >= size or rest >= (np.uint64(0x100000000) - size) % size:
            return np.int64(product >> np.uint64(32))
