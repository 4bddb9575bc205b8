"""A person with some of what stands around them: the rectangular crops that segmenters and parsers see."""

from __future__ import annotations

import numpy as np

from ahp_toolkit.core.masks import Bool2D, Box


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
