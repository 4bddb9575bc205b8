"""Crops of a person: rectangles of the photo, and square frames of picture, mask and labels.

One rule for all square frames: crop pixel (i, j) shows the full-frame point at its centre,
x = x0 + (j + 1/2) * side / size. Masks and labels take the pixel that holds the point (nearest), pictures are
area-averaged when they shrink and linearly interpolated when they grow. Outside the photo: black, False, 0.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from ahp_toolkit.core.masks import Bool2D, Box, Label2D, Mask

#: Side of the protocol's square crop of a human, px (spec §7).
SIDE = 256


def around(box: Box, width: int, height: int, factor: float) -> Box:
    """The integer box, inside the frame and at least 1x1 px, that holds ``box`` enlarged about its centre."""
    x0, y0, x1, y1 = box.enlarged(factor).clip(width, height).pixels()
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return Box(float(x0), float(y0), float(max(x1, x0 + 1)), float(max(y1, y0 + 1)))


def within(box: Box, crop: Box) -> Box:
    """A box of the full frame in px of the crop; it may reach outside."""
    return Box(box.x0 - crop.x0, box.y0 - crop.y0, box.x1 - crop.x0, box.y1 - crop.y0)


def kept_inside(found: Bool2D, crop: Box, box: Box, shape: tuple[int, int]) -> Bool2D:
    """A crop's mask in the full frame ``shape`` (height, width), with what lies outside the original box cut away."""
    x0, y0, x1, y1 = crop.pixels()
    full = np.zeros(shape, np.bool_)
    full[y0:y1, x0:x1] = found
    bx0, by0, bx1, by1 = box.clip(shape[1], shape[0]).pixels()
    out = np.zeros(shape, np.bool_)
    out[by0:by1, bx0:bx1] = full[by0:by1, bx0:bx1]
    return out


def square_around(box: Box, factor: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Box:
    """The integer square around a box: side = ``factor`` times its longer side, its centre moved by ``shift`` sides.

    Returns a Box with integer px, which may reach outside the photo.
    """
    side = max(2, round(max(box.width, box.height) * factor))
    cx = (box.x0 + box.x1) / 2 + shift[0] * side
    cy = (box.y0 + box.y1) / 2 + shift[1] * side
    x0, y0 = round(cx - side / 2), round(cy - side / 2)
    return Box(float(x0), float(y0), float(x0 + side), float(y0 + side))


def _ints(box: Box) -> tuple[int, int, int, int]:
    return int(box.x0), int(box.y0), int(box.x1), int(box.y1)


def cut(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The integer box of an array [H, W] or [H, W, C], zeros outside the frame; a copy."""
    x0, y0, x1, y1 = _ints(box)
    h, w = pixels.shape[:2]
    out = np.zeros((y1 - y0, x1 - x0, *pixels.shape[2:]), pixels.dtype)
    sx0, sy0, sx1, sy1 = max(x0, 0), max(y0, 0), min(x1, w), min(y1, h)
    if sx0 < sx1 and sy0 < sy1:
        out[sy0 - y0 : sy1 - y0, sx0 - x0 : sx1 - x0] = pixels[sy0:sy1, sx0:sx1]
    return out


def crop_image(pixels: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] (or [H, W]) to its integer box at size x size."""
    part = cut(pixels, box)
    shrink = part.shape[0] > size
    out = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return np.asarray(out, np.uint8)


def _index(start: int, side: int, size: int) -> NDArray[np.int64]:
    return start + ((2 * np.arange(size) + 1) * side) // (2 * size)


def crop_labels(labels: Label2D, box: Box, size: int) -> Label2D:
    """uint8 or bool [H, W] to its integer box at size x size, nearest; 0 outside."""
    x0, y0, x1, y1 = _ints(box)
    xs, ys = _index(x0, x1 - x0, size), _index(y0, y1 - y0, size)
    h, w = labels.shape
    out = labels.take(ys.clip(0, h - 1), 0).take(xs.clip(0, w - 1), 1)  # twice as fast as one gather by np.ix_
    out[(ys < 0) | (ys >= h), :] = 0
    out[:, (xs < 0) | (xs >= w)] = 0
    return out


@njit(cache=True)
def _rle_to_crop(ends, height, width, xs, ys, out):  # type: ignore[no-untyped-def]
    runs = ends.size
    for j in range(xs.size):
        x = xs[j]
        if x < 0 or x >= width:
            continue
        low, high = 0, runs  # first run that ends after this column's first pixel
        first = x * height
        while low < high:
            mid = (low + high) // 2
            if ends[mid] > first:
                high = mid
            else:
                low = mid + 1
        run = low
        for i in range(ys.size):
            y = ys[i]
            if y < 0 or y >= height:
                continue
            position = first + y
            while ends[run] <= position:
                run += 1
            out[i, j] = (run & 1) == 1


def crop_mask(mask: Mask, box: Box, size: int) -> Bool2D:
    """A Mask to bool [size, size] of its integer box, straight from the run lengths (no full-frame decode)."""
    x0, y0, x1, y1 = _ints(box)
    out = np.zeros((size, size), np.bool_)
    ends = np.cumsum(mask.runs())
    _rle_to_crop(ends, mask.height, mask.width, _index(x0, x1 - x0, size), _index(y0, y1 - y0, size), out)
    return out
