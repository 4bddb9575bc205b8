"""Holes and slits of a person's mask, closed: what bags, purses and straps cut out of somebody judged whole."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ahp_toolkit.core.masks import Bool2D, Mask, encode


@dataclass(frozen=True)
class Closing:
    """Which gaps of a mask are closed; all others, such as those between legs or under an arm, stay open.

    Args:
        slit: a gap at most this wide, as a share of the longer side of the mask's box, is closed wherever it is: a
            strap of 2 cm is 0.012 of a person's height.
        speck: a gap that the body encloses is closed up to this share of the mask's area.
        bag: up to this share it is closed if it is shaped like a bag: it fills `FULL` of its smallest rectangle and is
            at most `TALL` times as high as wide, where gaps between limbs are wedges or upright.
    """

    slit: float = 0.012
    speck: float = 0.002
    bag: float = 0.08

    def __call__(self, mask: Mask) -> tuple[Mask, int]:
        """The closed mask and the number of px added. Nothing is ever removed, and the tight box stays the same."""
        x0, y0, x1, y1 = mask.box.pixels()
        if x1 <= x0 or y1 <= y0:
            return mask, 0
        radius = round(self.slit * max(x1 - x0, y1 - y0) / 2)
        pad = radius + 1
        full = mask.decode()
        part = np.pad(full[y0:y1, x0:x1], pad)
        closed = self._closed(part, radius)[pad:-pad, pad:-pad]
        added = int(np.count_nonzero(closed)) - int(np.count_nonzero(part))
        if not added:
            return mask, 0
        full[y0:y1, x0:x1] = closed
        return encode(full), added

    def _closed(self, part: Bool2D, radius: int) -> Bool2D:
        """bool [H, W], False along its border, with its slits of 2 * ``radius`` px and its holes closed."""
        area, out = np.count_nonzero(part), part.astype(np.uint8)
        if radius:
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
            out |= np.asarray(cv2.morphologyEx(out, cv2.MORPH_CLOSE, disc), np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - out, connectivity=4)
        for hole in set(range(1, count)) - {int(labels[0, 0])}:  # 0 is the mask itself, the corner's the surroundings
            x, y, w, h, px = (int(v) for v in stats[hole])
            inside = labels[y : y + h, x : x + w] == hole
            if px <= self.speck * area or (px <= self.bag * area and h <= TALL * w and _fullness(inside, px) >= FULL):
                out[y : y + h, x : x + w] |= inside
        return out.view(np.bool_)


FULL, TALL = 0.65, 1.5


def _fullness(hole: Bool2D, area: int) -> float:
    """The share of its smallest rectangle, turned as it may be, that a hole of ``area`` px fills."""
    points = cv2.findNonZero(hole.astype(np.uint8))
    _, (width, height), _ = cv2.minAreaRect(points)
    return float(area / ((width + 1) * (height + 1)))  # it goes through the centres of the outermost px
