"""Masks and boxes in FiftyOne's units: a box relative to the photo, a mask as the crop of that box. Exact both ways."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import crops, masks
from ahp_toolkit.core.masks import Box, Mask


def relative(mask: Mask) -> list[float]:
    """FiftyOne's relative [x, y, width, height] of a mask's tight box."""
    x0, y0, x1, y1 = mask.box
    return [x0 / mask.width, y0 / mask.height, (x1 - x0) / mask.width, (y1 - y0) / mask.height]


def crop_of(mask: Mask) -> NDArray[np.uint8]:
    """uint8 0/1 of a mask's tight box, from the runs alone: no full frame is decoded."""
    x0, y0, x1, y1 = (int(v) for v in mask.box)
    side = max(x1 - x0, y1 - y0, 1)
    square = crops.crop_mask(mask, Box(float(x0), float(y0), float(x0 + side), float(y0 + side)), side)
    return np.ascontiguousarray(square[: y1 - y0, : x1 - x0]).view(np.uint8)


def mask_of(box: Iterable[float], crop: NDArray[np.generic], height: int, width: int) -> Mask:
    """FiftyOne's relative box and mask crop, of any resolution, back to a Mask of the photo.

    The exact inverse of `relative` and `crop_of`; a crop painted in the App (canvas resolution) is resampled to the
    box's size in px, nearest, and everything above 0 is the person.
    """
    x, y, w, h = box
    x0, y0 = round(x * width), round(y * height)
    columns, rows = max(1, round(w * width)), max(1, round(h * height))
    out = np.zeros((height, width), np.bool_)
    js = ((2 * np.arange(columns) + 1) * crop.shape[1]) // (2 * columns)
    ys = ((2 * np.arange(rows) + 1) * crop.shape[0]) // (2 * rows)
    part = np.asarray(crop)[np.ix_(ys, js)] > 0
    top, left = max(0, -y0), max(0, -x0)
    part = part[top : height - y0, left : width - x0]
    out[max(0, y0) :, max(0, x0) :][: part.shape[0], : part.shape[1]] = part
    return masks.encode(out)
