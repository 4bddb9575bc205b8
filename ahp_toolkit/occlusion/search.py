"""The search for one translation: random tries on packed bits, then the exact counts of all translations.

Both halves draw from the same set and so from the same distribution. A try is uniform over the product of the columns
and rows that the projection bound leaves open; it holds every admissible translation, so the first admissible try is
uniform among the admissible ones (rejection sampling). When the tries run out, the exact counts of all dy, one dx after
the other, number the admissible translations and one is drawn by its number. Which half answered says nothing about the
answer, since tries that failed are independent of what follows. No count found means none exists: the proof.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ahp_toolkit.occlusion.bits import bounds, draw, fill, overlap, overlaps_of_column, resample


@njit(cache=True)
def _open(bound, least):  # type: ignore[no-untyped-def]
    return np.flatnonzero(bound >= least)


@njit(cache=True)
def _tries(bits, height, o_bits, o_height, xs, ys, low, high, tries, state):  # type: ignore[no-untyped-def]
    """(column index, row index, count) of the first admissible try; count -1: none."""
    for _ in range(tries):
        kx, ky = xs[draw(state, xs.size)], ys[draw(state, ys.size)]
        count = overlap(bits, height, o_bits, o_height, kx - o_bits.shape[0] + 1, ky - o_height + 1)
        if low <= count <= high:
            return kx, ky, count
    return 0, 0, -1


@njit(cache=True)
def _nearest(filled, wanted, state):  # type: ignore[no-untyped-def]
    """Index of the non-empty stratum nearest to ``wanted``; a coin decides between two; -1: all are empty."""
    for away in range(filled.size):
        below = wanted - away >= 0 and filled[wanted - away] > 0
        above = wanted + away < filled.size and filled[wanted + away] > 0
        if below and above:
            return wanted - away if draw(state, 2) == 0 else wanted + away
        if below or above:
            return wanted - away if below else wanted + away
    return -1


@njit(cache=True)
def _every(human, height, other, o_height, xs, ys, low, high, strata, wanted, state):  # type: ignore[no-untyped-def]
    """The exact search: (column index, row index, count or -1, largest count met)."""
    ptr, lows, highs = human
    o_ptr, o_lows, o_highs = other
    span, most = high - low + 1, np.int64(0)
    hits = np.zeros((xs.size, strata), np.int64)
    line = np.empty(height + o_height, np.int32)
    first, last = ys[0] + 1, ys[-1] + 2  # line index of a row index k is k + 1
    for i in range(xs.size):
        dx = xs[i] - o_ptr.size + 2
        overlaps_of_column(ptr, lows, highs, o_ptr, o_lows, o_highs, o_height, dx, line)
        for k in range(first, last):
            count = np.int64(line[k])
            most = max(most, count)
            if low <= count <= high:
                hits[i, ((count - low + 1) * strata - 1) // span] += 1
    stratum = _nearest(hits.sum(axis=0), wanted, state)
    if stratum < 0:
        return 0, 0, -1, most
    number, i = draw(state, hits[:, stratum].sum()), 0
    while number >= hits[i, stratum]:
        number -= hits[i, stratum]
        i += 1
    dx = xs[i] - o_ptr.size + 2
    overlaps_of_column(ptr, lows, highs, o_ptr, o_lows, o_highs, o_height, dx, line)
    for k in range(first, last):
        count = np.int64(line[k])
        if low <= count <= high and ((count - low + 1) * strata - 1) // span == stratum:
            if number == 0:
                return xs[i], k - 1, count, most
            number -= 1
    return 0, 0, -1, most


@njit(cache=True)
def _shuffled(n, state):  # type: ignore[no-untyped-def]
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = draw(state, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


@njit(cache=True)
def scaled_sizes(width, height, scales, flips):  # type: ignore[no-untyped-def]
    """Rows (width, height, flip, index of the scale) of the sizes that ``scales`` lead to, none twice."""
    out = np.empty((scales.size * flips, 4), np.int64)
    n = 0
    for i in range(scales.size):
        w = max(1, int(np.floor(width * scales[i] + 0.5)))
        h = max(1, int(np.floor(height * scales[i] + 0.5)))
        if n and out[n - 1, 0] == w and out[n - 1, 1] == h:
            continue
        for flip in range(flips):
            out[n, 0], out[n, 1], out[n, 2], out[n, 3] = w, h, flip, i
            n += 1
    return out[:n]


@njit(cache=True)
def search(  # type: ignore[no-untyped-def]
    h_bits, h_ptr, h_lows, h_highs, h_columns, h_rows, o_ptr, o_lows, o_highs, o_height,
    scales, flips, low, high, strata, wanted, tries, seed,
):  # fmt: skip
    """One translation whose overlap lies in [low, high], over all scales (rising) and flips (1 or 2) in drawn order.

    ``strata``: equal slices of [low, high]; the one numbered ``wanted`` (-1: drawn) is looked for first.
    Returns (index of the scale or -1, flip, dx, dy, count, upper bound of the overlap), offsets of tight corners.
    """
    state = np.array([seed], np.uint64)
    span, reach = high - low + 1, 0
    wanted = draw(state, strata) if wanted < 0 else wanted
    slice_low, slice_high = low + wanted * span // strata, low + (wanted + 1) * span // strata - 1
    sizes = scaled_sizes(o_ptr.size - 1, o_height, scales, flips)
    for k in _shuffled(sizes.shape[0], state):
        width, height, flip, scale = sizes[k]
        ptr, lows, highs, area = resample(o_ptr, o_lows, o_highs, o_ptr.size - 1, o_height, width, height, flip != 0)
        if area < low:
            reach = max(reach, area)
            continue
        bits, columns, rows = fill(ptr, lows, highs, height)
        by_x, by_y = bounds(h_columns, columns), bounds(h_rows, rows)
        xs, ys = _open(by_x, low), _open(by_y, low)
        if xs.size == 0 or ys.size == 0:
            reach = max(reach, min(by_x.max(), by_y.max()))
            continue
        near_x, near_y = _open(by_x, slice_low), _open(by_y, slice_low)
        kx, ky, count = 0, 0, -1
        if near_x.size and near_y.size:
            kx, ky, count = _tries(
                h_bits, h_rows.size, bits, height, near_x, near_y, slice_low, slice_high, tries, state
            )
        if count < 0:
            human, other = (h_ptr, h_lows, h_highs), (ptr, lows, highs)
            kx, ky, count, most = _every(human, h_rows.size, other, height, xs, ys, low, high, strata, wanted, state)
            reach = max(reach, max(most, low - 1))
        if count >= 0:
            return scale, flip, kx - width + 1, ky - height + 1, count, reach
    return -1, 0, 0, 0, 0, reach
