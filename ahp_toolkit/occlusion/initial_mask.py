"""A stand-in for a detector's mask: the true modal mask with errors of a wanted size (spec: initial mask).

What real instance masks get wrong is imitated: a boundary that wanders slowly, the soft corners of a 28x28 mask head
(thin parts melt, gaps close), and one larger miss or excess somewhere at the outline. Each pixel has the error strength
at which it flips, and flips are monotone in strength, so the strength of a wanted IoU is read off two histograms.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ahp_toolkit.core.hashing import unit_hash
from ahp_toolkit.core.masks import Bool2D

_GRID = 28
_BINS = 4096


def simulate(modal: Bool2D, seed: int, iou: float = 0.775, spread: float = 0.1) -> Bool2D:
    """A seeded degradation of a modal mask.

    Args:
        modal: bool [H, W], the true visible mask.
        seed: decides the errors and this sample's own IoU.
        iou: the mean IoU with ``modal`` over samples, in (0, 1]; the paper's Mask R-CNN has .775.
        spread: samples' IoUs lie within this of ``iou`` (triangular around it), narrower near 0 and 1.

    Returns:
        bool [H, W]; its IoU is within .01 of the sample's own unless the mask has few pixels or that is below about .55
        (errors of this kind seldom reach further); an empty mask stays empty.

    Raises:
        ValueError: when ``iou`` lies outside (0, 1].
    """
    if not 0.0 < iou <= 1.0:
        raise ValueError(f"expected an IoU in (0, 1], got {iou}")
    rows, columns = np.flatnonzero(modal.any(axis=1)), np.flatnonzero(modal.any(axis=0))
    if rows.size == 0:
        return modal.copy()
    spread = min(spread, 1.0 - iou, iou / 2)
    wanted = iou + spread * (unit_hash("iou a", seed) + unit_hash("iou b", seed) - 1.0)
    pad = 4 + (rows[-1] - rows[0] + columns[-1] - columns[0]) // 8
    y0, x0 = max(0, rows[0] - pad), max(0, columns[0] - pad)
    window = (slice(y0, rows[-1] + 1 + pad), slice(x0, columns[-1] + 1 + pad))
    out = np.zeros_like(modal)
    out[window] = _degrade(np.ascontiguousarray(modal[window]), _field(modal[window], seed), wanted)
    return out


def _field(part: Bool2D, seed: int) -> NDArray[np.float64]:
    """The wandering of the boundary on a coarse grid [28, 28]: smooth noise and one bump at the outline."""
    rng = np.random.Generator(np.random.PCG64(seed & (2**63 - 1)))
    coarse = rng.random((6, 6)) * 2.0 - 1.0
    at = np.linspace(0.0, 4.999, _GRID)
    low, t = at.astype(np.int64), at - at.astype(np.int64)
    t = t * t * (3.0 - 2.0 * t)
    rows = coarse[low] * (1 - t)[:, None] + coarse[low + 1] * t[:, None]
    field = rows[:, low] * (1 - t) + rows[:, low + 1] * t
    ys, xs = np.nonzero(part[:, 1:] != part[:, :-1])
    if ys.size:
        k = int(rng.random() * ys.size)
        v, u = ys[k] / part.shape[0] * (_GRID - 1), xs[k] / part.shape[1] * (_GRID - 1)
        radius, sign = 2.0 + 3.0 * rng.random(), 1.0 if rng.random() < 0.5 else -1.0
        grid = np.arange(_GRID, dtype=np.float64)
        square = ((grid[:, None] - v) ** 2 + (grid[None, :] - u) ** 2) / radius**2
        field = field + sign * 2.0 * np.maximum(0.0, 1.0 - square)
    return field


@njit(cache=True)
def _distance(mask):  # type: ignore[no-untyped-def]
    """Chamfer distance to the outline in thirds of a px (3-4 weights), positive on both sides."""
    height, width = mask.shape
    far = 1 << 28
    out = np.full((height, width), far, np.int32)
    for y in range(height):
        for x in range(width):
            d = out[y, x]
            here = mask[y, x]
            if x and mask[y, x - 1] != here:
                d, out[y, x - 1] = 2, 2
            if y and mask[y - 1, x] != here:
                d, out[y - 1, x] = 2, 2
            out[y, x] = d
    for y in range(height):
        for x in range(width):
            d = out[y, x]
            if x:
                d = min(d, out[y, x - 1] + 3)
            if y:
                d = min(d, out[y - 1, x] + 3)
                if x:
                    d = min(d, out[y - 1, x - 1] + 4)
                if x + 1 < width:
                    d = min(d, out[y - 1, x + 1] + 4)
            out[y, x] = d
    for y in range(height - 1, -1, -1):
        for x in range(width - 1, -1, -1):
            d = out[y, x]
            if x + 1 < width:
                d = min(d, out[y, x + 1] + 3)
            if y + 1 < height:
                d = min(d, out[y + 1, x] + 3)
                if x + 1 < width:
                    d = min(d, out[y + 1, x + 1] + 4)
                if x:
                    d = min(d, out[y + 1, x - 1] + 4)
            out[y, x] = d
    return out


@njit(cache=True)
def _upsampled(grid, y, x, height, width):  # type: ignore[no-untyped-def]
    n = grid.shape[0]
    v, u = (y + 0.5) * (n - 1) / height, (x + 0.5) * (n - 1) / width
    i, j = int(v), int(u)
    s, t = v - i, u - j
    top = grid[i, j] * (1.0 - t) + grid[i, j + 1] * t
    low = grid[i + 1, j] * (1.0 - t) + grid[i + 1, j + 1] * t
    return top * (1.0 - s) + low * s


@njit(cache=True)
def _degrade(mask, field, wanted):  # type: ignore[no-untyped-def]
    height, width = mask.shape
    n = field.shape[0]
    distance = _distance(mask)
    unit = 0.08 * np.sqrt(float(mask.sum())) * 3.0  # of the boundary's wandering at strength 1, thirds of a px
    soft = np.empty((n, n))  # the signed distance as a low-resolution mask head sees it
    for i in range(n):
        for j in range(n):
            y, x = (i * (height - 1)) // (n - 1), (j * (width - 1)) // (n - 1)
            soft[i, j] = float(distance[y, x]) if mask[y, x] else -float(distance[y, x])
    strength = np.empty((height, width), np.int32)
    lost, gained = np.zeros(_BINS + 1, np.int64), np.zeros(_BINS + 1, np.int64)
    for y in range(height):
        for x in range(width):
            signed = float(distance[y, x]) if mask[y, x] else -float(distance[y, x])
            push = unit * _upsampled(field, y, x, height, width)
            push += 0.5 * (_upsampled(soft, y, x, height, width) - signed)
            bin_ = _BINS
            if signed * push < 0:  # pushed across the outline at |signed| / |push|
                bin_ = min(_BINS, int(abs(signed) / abs(push) * (_BINS / 8)))
            strength[y, x] = bin_
            if mask[y, x]:
                lost[bin_] += 1
            else:
                gained[bin_] += 1
    limit, ties = _solve(lost, gained, mask.sum(), wanted)
    out = mask.copy()
    for y in range(height):
        for x in range(width):
            if strength[y, x] < limit:
                out[y, x] = not mask[y, x]
            elif strength[y, x] == limit and ties > 0:  # within one bin, in reading order
                out[y, x] = not mask[y, x]
                ties -= 1
    return out


@njit(cache=True)
def _solve(lost, gained, area, wanted):  # type: ignore[no-untyped-def]
    """(first bin that does not flip as a whole, pixels of it that do) so that the IoU comes down to ``wanted``."""
    fn, fp = 0, 0
    for k in range(_BINS):
        fn_next, fp_next = fn + lost[k], fp + gained[k]
        if (area - fn_next) < wanted * (area + fp_next):
            span = lost[k] + gained[k]
            # each flip takes about (1 + iou) / 2 px of the slack: a share of the bin by linear interpolation
            before = (area - fn) / (area + fp)
            after = (area - fn_next) / (area + fp_next)
            return k, int(span * (before - wanted) / (before - after)) if before > wanted else 0
        fn, fp = fn_next, fp_next
    return _BINS, 0
