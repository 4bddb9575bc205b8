"""Paste occluders over a person: image, modal, amodal and recovered, exact in the masks and clean at the edges.

The binary truth decides everything: modal = amodal AND NOT occluder, counted on these very pixels. Only colours are
blended: along the occluder's edge by a 3x3 matte of its binary mask, at least half inside and less than half outside,
so that a pixel looks like what the truth says it is. Integers only: the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.images import Rgb
from ..core.masks import Bool2D
from ..core.records import Placement
from ..core.store import digest_bytes
from .place import occluder_at

FULL = 16  # alpha is in sixteenths


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """An occluder cut tight: its binary mask bool [h, w] and its colours RGB uint8 [h, w, 3].

    Colours outside the mask, and on its outermost ring where the old background shines through, are those of the
    nearest pixel well inside it: nothing of the old background comes along.
    """

    mask: Bool2D
    pixels: Rgb


@dataclass(frozen=True, slots=True, eq=False)
class Pasted:
    """One occluded person: RGB uint8 [H, W, 3] and bool [H, W], in the frame of the person's photo."""

    image: Rgb
    modal: Bool2D
    amodal: Bool2D
    recovered: Rgb

    @property
    def invisible(self) -> Bool2D:
        """amodal AND NOT modal."""
        return self.amodal & ~self.modal


def cut_out(photo: Rgb, mask: Bool2D) -> Cutout:
    """Cut an occluder out of its photo (both full frame).

    Raises:
        ValueError: when the mask is empty, or not of the photo's size.
    """
    if mask.shape != photo.shape[:2]:
        raise ValueError(f"mask of {mask.shape}, photo of {photo.shape[:2]} px")
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if ys.size == 0:
        raise ValueError("expected an occluder with at least one pixel, got an empty mask")
    window = (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
    tight = np.ascontiguousarray(mask[window])
    return Cutout(tight, _from_inside(photo[window], tight))


def _from_inside(pixels: Rgb, mask: Bool2D) -> Rgb:
    """Every pixel that is not well inside the mask takes the colour of the nearest one that is."""
    solid = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
    if not solid.any():
        solid = mask.astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(1 - solid, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    ys, xs = np.nonzero(solid)
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[ys, xs]] = pixels[ys, xs]
    return colours[nearest]


@njit(cache=True)
def _weights(n, m):  # type: ignore[no-untyped-def]
    """Source pixels and integer weights of each of m output pixels over n: area when it shrinks, linear when it grows."""
    width = n // m + 2 if m < n else 2
    index = np.zeros((m, width), np.int64)
    weight = np.zeros((m, width), np.int64)
    for j in range(m):
        if m < n:
            for k in range(width):
                i = j * n // m + k
                low, high = max(i * m, j * n), min((i + 1) * m, (j + 1) * n)
                if i < n and high > low:
                    index[j, k], weight[j, k] = i, high - low
        else:
            p = (2 * j + 1) * n - m
            i = p // (2 * m)
            index[j, 0], index[j, 1] = max(i, 0), min(i + 1, n - 1)
            weight[j, 1] = p - i * 2 * m
            weight[j, 0] = 2 * m - weight[j, 1]
    return index, weight


@njit(cache=True)
def _resample(pixels, height, width, flip):  # type: ignore[no-untyped-def]
    h, w = pixels.shape[:2]
    yi, yw = _weights(h, height)
    xi, xw = _weights(w, width)
    out = np.empty((height, width, 3), np.uint8)
    total = yw[0].sum() * xw[0].sum()
    for y in range(height):
        for x in range(width):
            r, g, b = total // 2, total // 2, total // 2
            column = width - 1 - x if flip else x
            for a in range(yi.shape[1]):
                for c in range(xi.shape[1]):
                    f = yw[y, a] * xw[column, c]
                    if f:
                        p = pixels[yi[y, a], xi[column, c]]
                        r += f * p[0]
                        g += f * p[1]
                        b += f * p[2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = r // total, g // total, b // total
    return out


def colours_at(cutout: Cutout, placement: Placement, shape: tuple[int, int]) -> Rgb:
    """The cutout's colours as scaled and mirrored by a placement, RGB uint8 of (height, width) ``shape``."""
    if shape == cutout.mask.shape:
        return cutout.pixels[:, ::-1] if placement.flip else cutout.pixels
    return np.asarray(_resample(cutout.pixels, shape[0], shape[1], placement.flip), np.uint8)


def matte(mask: Bool2D) -> NDArray[np.uint16]:
    """Alpha in sixteenths of a mask padded by one px on each side: uint16 [h + 2, w + 2]."""
    m = np.pad(mask, 2).astype(np.uint16)
    rows = m[:-2] + 2 * m[1:-1] + m[2:]
    alpha = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    inside = m[1:-1, 1:-1] > 0
    return np.where(inside, np.maximum(alpha, FULL // 2), np.minimum(alpha, FULL // 2 - 1)).astype(np.uint16)


def paste(photo: Rgb, human: Bool2D, layers: Sequence[tuple[Cutout, Placement]]) -> Pasted:
    """Paste occluders over a person, the first at the bottom.

    Args:
        photo: RGB uint8 [H, W, 3] with the whole person.
        human: bool [H, W], the amodal mask.
        layers: occluders and where they go; they may stick out of the photo.

    Returns:
        The recovered image keeps the occluder outside the person (spec: the person moves in front of it).
    """
    image, hidden = photo.copy(), np.zeros(human.shape, np.bool_)
    for cutout, placement in layers:
        mask = occluder_at(cutout.mask, placement)
        colours = np.pad(colours_at(cutout, placement, mask.shape), ((1, 1), (1, 1), (0, 0)), mode="edge")
        _blend(image, hidden, colours, matte(mask), placement.dx - 1, placement.dy - 1)
    recovered = np.where(human[:, :, None], photo, image)
    return Pasted(image, human & ~hidden, human, recovered)


def _blend(image: Rgb, hidden: Bool2D, colours: Rgb, alpha: NDArray[np.uint16], x: int, y: int) -> None:
    """Blend a padded layer with its corner at (x, y) into the image, in place, and mark what it hides."""
    height, width = hidden.shape
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + alpha.shape[1], width), min(y + alpha.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    a = alpha[y0 - y : y1 - y, x0 - x : x1 - x]
    top = colours[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.uint16)
    under = image[y0:y1, x0:x1].astype(np.uint16)
    image[y0:y1, x0:x1] = (under * (FULL - a)[:, :, None] + top * a[:, :, None] + FULL // 2) // FULL
    hidden[y0:y1, x0:x1] |= a >= FULL // 2


def sample_digest(image: Rgb, modal: Bool2D, amodal: Bool2D) -> str:
    """sha256 hex over the exact pixels of a sample: occluded image, modal and amodal mask."""
    shape = np.asarray(image.shape, "<i8").tobytes()
    masks = [np.packbits(m, axis=None).tobytes() for m in (modal, amodal)]
    return digest_bytes(shape, np.ascontiguousarray(image).tobytes(), *masks)
