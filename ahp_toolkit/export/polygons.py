"""Masks to polygons that rasterise back exactly.

The polygons run along the edges of pixels (integer corners), where COCO's rasteriser has nothing to round: it samples
each column at the pixel's centre. Several loops, holes too, become one polygon by bridges that are walked there and
back: under the even-odd rule a line walked twice is no line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.masks import Mask

Loop = NDArray[np.int64]


def loops(mask: Mask) -> list[Loop]:
    """The edge loops of a mask as corners int [N, 2] (x, y), px; holes are loops too. Empty mask: none."""
    x0, y0, x1, y1 = mask.box.pixels()
    if x1 <= x0 or y1 <= y0:
        return []
    part = np.pad(mask.decode()[y0:y1, x0:x1], 1).astype(np.int8)
    a, b, c, d = part[:-1, :-1], part[:-1, 1:], part[1:, :-1], part[1:, 1:]
    total = a + b + c + d
    ys, xs = np.nonzero((total & 1 == 1) | ((total == 2) & (a == d)))
    twice = np.where(total[ys, xs] == 2, 2, 1)  # where two pixels meet by a corner two loops (or parts of one) pass
    corners = np.repeat(np.stack([xs + x0, ys + y0], 1), twice, axis=0)
    return _trace(corners)


def _trace(corners: Loop) -> list[Loop]:
    """Join corners by turns along rows and columns: sorted, the first and second of a row are an edge, and so on."""
    beside, above = np.empty(len(corners), np.int64), np.empty(len(corners), np.int64)
    for order, partner in (
        (np.lexsort((corners[:, 0], corners[:, 1])), beside),
        (np.lexsort((corners[:, 1], corners[:, 0])), above),
    ):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    across, down, left = beside.tolist(), above.tolist(), [True] * len(corners)
    found = []
    for start in range(len(corners)):
        at, walk = start, []
        while left[at]:
            other = across[at]
            walk += [at, other]
            left[at] = left[other] = False
            at = down[other]
        if walk:
            found.append(corners[walk])
    return found


def flat(found: list[Loop]) -> list[int]:
    """All loops as one flat polygon x, y, x, y, ..., joined by bridges from the first loop's first corner."""
    if not found:
        return []
    home = found[0][:1]
    points = [found[0]]
    for loop in found[1:]:
        points += [home, loop, loop[:1]]
    walk = np.concatenate(points)
    # an edge of no length divides by zero in COCO's rasteriser
    keep = np.any(walk != np.roll(walk, 1, axis=0), axis=1)
    return [int(v) for v in walk[keep].ravel()]


def area(loop: Loop) -> float:
    """Area inside a loop, px²."""
    x, y = loop[:, 0], loop[:, 1]
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def polygons(mask: Mask) -> list[list[int]]:
    """A mask as a list of flat polygons: its parts, or, where it has holes, all of it as one bridged polygon."""
    found = loops(mask)
    if sum(area(x) for x in found) == mask.area:
        return [[int(v) for v in x.ravel()] for x in found]
    return [flat(found)] if found else []
