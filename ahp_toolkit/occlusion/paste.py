"""Pasting occluders onto a person: occluded image, modal, amodal and recovered, in integers only.

Decided once, for every file of the dataset (spec §2, where the paper is silent):
- O is the placed occluder's binary mask (`place.occluder_at`); modal = amodal AND NOT O, invisible = amodal AND O.
- Blending happens inside O alone: its outermost pixels take between a half and all of the occluder's colour (a 3x3
  binomial filter of O), so edges are smooth while every pixel outside O keeps the photo's own bytes. The visible person
  is therefore untouched, and a perfect recovery of the invisible pixels equals the truth byte for byte.
- recovered = the photo on the amodal mask, the occluded image elsewhere: outside the person the occluder stays.
- Several occluders: the later lies on top; O is their union.

Nothing is read here; callers pass pixels. Colours come from fixed-point bilinear sampling of ours, after exact halvings
when the occluder shrinks below a half: the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ahp_toolkit.core.hashing import digest_bytes
from ahp_toolkit.core.masks import Bool2D, Box
from ahp_toolkit.core.records import Placement
from ahp_toolkit.occlusion.place import occluder_at, scaled_size
from ahp_toolkit.storage.images import Rgb


@dataclass(frozen=True, eq=False)
class Cutout:
    """An occluder ready to be pasted any number of times: keep it in a bank.

    ``mask`` bool [h, w], cut tight; ``levels``: RGB uint8 at full, half, quarter, ... size, colours of the mask's edge
    and of the pixels around it replaced from inside, so that the occluder's own background never shows.
    """

    mask: Bool2D
    levels: tuple[Rgb, ...]


@dataclass(frozen=True, eq=False)
class Pasted:
    """One occluded person. ``image`` and ``photo`` RGB uint8 [H, W, 3]; masks bool [H, W].

    ``occluder`` is O, the pixels of the photo (or crop) that the occluders cover.
    """

    image: Rgb
    photo: Rgb
    amodal: Bool2D
    occluder: Bool2D

    @cached_property
    def modal(self) -> Bool2D:
        """The visible person: amodal AND NOT O."""
        return self.amodal & ~self.occluder

    @cached_property
    def invisible(self) -> Bool2D:
        """The hidden person: amodal AND O."""
        return self.amodal & self.occluder

    @cached_property
    def recovered(self) -> Rgb:
        """The photo's pixels on the amodal mask, the occluded image elsewhere."""
        out = self.image.copy()
        hidden = self.invisible  # the image is the photo already wherever the person is visible
        rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
        if rows.size:
            window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            np.copyto(out[window], self.photo[window], where=hidden[window][:, :, None])
        return out

    @property
    def ratio(self) -> float:
        """area(amodal AND O) / area(amodal), on these pixels; 0 for an empty person."""
        area = int(np.count_nonzero(self.amodal))
        return int(np.count_nonzero(self.invisible)) / area if area else 0.0


def cut_out(photo: Rgb, mask: Bool2D, box: Box | None = None) -> Cutout:
    """Cut an occluder from its photo and clean its edge.

    Args:
        photo: RGB uint8 [H, W, 3], the occluder's own photo.
        mask: bool [H, W] in the photo's frame, or the crop [h, w] of it that ``box`` names.
        box: where a mask crop lies, integer px inside the photo.

    Raises:
        ValueError: when the mask is empty, or does not fit its photo or its box.
    """
    x0, y0 = (int(box.x0), int(box.y0)) if box is not None else (0, 0)
    height, width = mask.shape
    if box is None and photo.shape[:2] != mask.shape:
        raise ValueError(f"expected a mask of the photo's size {photo.shape[:2]}, got {mask.shape}")
    if x0 < 0 or y0 < 0 or y0 + height > photo.shape[0] or x0 + width > photo.shape[1]:
        raise ValueError(f"expected a mask crop inside the photo {photo.shape[:2]}, got {mask.shape} at {(x0, y0)}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        raise ValueError("expected an occluder with at least one pixel, got an empty mask")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    tight = np.ascontiguousarray(mask[top:bottom, left:right])
    crop = photo[y0 + top : y0 + bottom, x0 + left : x0 + right]
    return Cutout(tight, _levels(np.ascontiguousarray(crop), tight))


def _levels(crop: Rgb, mask: Bool2D) -> tuple[Rgb, ...]:
    colours, known = _clean(crop, mask)
    levels = []
    while True:
        filled, near = _grow(colours, known)  # bilinear sampling reads one pixel beyond the mask
        levels.append(filled)
        if min(colours.shape[:2]) < 8:
            return tuple(levels)
        colours, known = _halve(filled, near)


def _clean(crop: Rgb, mask: Bool2D) -> tuple[Rgb, Bool2D]:
    """(colours, where they are known): the mask's outermost pixels, half background, take their neighbours' inside."""
    colours, known = crop, _erode(mask)
    for _ in range(3):  # the outermost ring, and the tips that stick out of it
        colours, known = _grow(colours, known)
    thin = mask & ~known  # parts without an inside keep their own colours
    np.copyto(colours, crop, where=thin[:, :, None])
    return colours, known | thin


@njit(cache=True)
def _erode(mask):  # type: ignore[no-untyped-def]
    height, width = mask.shape
    out = np.zeros_like(mask)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            out[y, x] = mask[y, x] and mask[y - 1, x] and mask[y + 1, x] and mask[y, x - 1] and mask[y, x + 1]
    return out


@njit(cache=True)
def _grow(colours, known):  # type: ignore[no-untyped-def]
    """Unknown pixels beside known ones (8 neighbours) take their mean: new (colours, known)."""
    height, width = known.shape
    out, now = colours.copy(), known.copy()
    for y in range(height):
        for x in range(width):
            if known[y, x]:
                continue
            n, r, g, b = 0, 0, 0, 0
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    if known[v, u]:
                        n += 1
                        r, g, b = r + colours[v, u, 0], g + colours[v, u, 1], b + colours[v, u, 2]
            if n:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = (r + n // 2) // n, (g + n // 2) // n, (b + n // 2) // n
                now[y, x] = True
    return out, now


@njit(cache=True)
def _halve(colours, known):  # type: ignore[no-untyped-def]
    """Means over 2x2 blocks of the known pixels alone; an odd last row or column is a block of its own."""
    height, width = known.shape
    out = np.zeros(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    now = np.zeros(out.shape[:2], np.bool_)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            n, r, g, b = 0, 0, 0, 0
            for v in range(2 * y, min(height, 2 * y + 2)):
                for u in range(2 * x, min(width, 2 * x + 2)):
                    if known[v, u]:
                        n += 1
                        r, g, b = r + colours[v, u, 0], g + colours[v, u, 1], b + colours[v, u, 2]
            if n:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = (r + n // 2) // n, (g + n // 2) // n, (b + n // 2) // n
                now[y, x] = True
    return out, now


@njit(cache=True)
def _taps(points, length):  # type: ignore[no-untyped-def]
    """Bilinear taps of 16.16 fixed-point positions: (first index, second index, weight of the second in 1/256)."""
    first, second = np.empty(points.size, np.int64), np.empty(points.size, np.int64)
    weight = np.empty(points.size, np.int32)
    for i in range(points.size):
        p = points[i] >> 16
        first[i], second[i] = min(max(p, 0), length - 1), min(max(p + 1, 0), length - 1)
        weight[i] = (points[i] >> 8) & 255
    return first, second, weight


@njit(cache=True)
def _alpha(put, y, x):  # type: ignore[no-untyped-def]
    """Sixteenths of the occluder's colour at a pixel of O: 3x3 binomial sum, at least 8; beyond ``put`` is no O."""
    height, width = put.shape
    total = 0
    for v in range(max(0, y - 1), min(height, y + 2)):
        for u in range(max(0, x - 1), min(width, x + 2)):
            if put[v, u]:
                total += (2 - abs(v - y)) * (2 - abs(u - x))
    return max(8, total)


@njit(cache=True)
def _blend(image, cover, put, px, py, colours, xs, ys):  # type: ignore[no-untyped-def]
    """Blend colours sampled at xs, ys (16.16 px) into ``image`` wherever ``put`` (its corner at px, py) is."""
    height, width = put.shape
    x_a, x_b, x_w = _taps(xs, colours.shape[1])
    y_a, y_b, y_w = _taps(ys, colours.shape[0])
    for y in range(max(0, -py), min(height, image.shape[0] - py)):
        a, b, wy = y_a[y], y_b[y], y_w[y]
        for x in range(max(0, -px), min(width, image.shape[1] - px)):
            if not put[y, x]:
                continue
            inner = 0 < y < height - 1 and 0 < x < width - 1
            inner = inner and put[y - 1, x] and put[y + 1, x] and put[y, x - 1] and put[y, x + 1]
            inner = inner and put[y - 1, x - 1] and put[y - 1, x + 1] and put[y + 1, x - 1] and put[y + 1, x + 1]
            alpha = 16 if inner else _alpha(put, y, x)
            c, d, wx = x_a[x], x_b[x], x_w[x]
            cover[py + y, px + x] = True
            for k in range(3):
                top = colours[a, c, k] * (256 - wx) + colours[a, d, k] * wx
                low = colours[b, c, k] * (256 - wx) + colours[b, d, k] * wx
                colour = (top * (256 - wy) + low * wy + 32768) >> 16
                image[py + y, px + x, k] = (colour * alpha + image[py + y, px + x, k] * (16 - alpha) + 8) >> 4


def _level(cutout: Cutout, shrink_num: int, shrink_den: int) -> int:
    """The coarsest level that is not coarser than the target, ``shrink_num / shrink_den`` source px a target px."""
    level = 0
    while level + 1 < len(cutout.levels) and shrink_num >= shrink_den * 2 ** (level + 1):
        level += 1
    return level


def _positions(numerators: NDArray[np.int64], denominator: int, level: int, flip_length: int) -> NDArray[np.int64]:
    """Source points (numerator / denominator, px from the crop's corner) to 16.16 positions of a level's pixel centres.

    ``flip_length``: the crop's length when it is mirrored, else 0.
    """
    if flip_length:
        numerators = flip_length * denominator - numerators
    return (numerators * 65536) // (denominator << level) - 32768


def paste(photo: Rgb, human: Bool2D, layers: Sequence[tuple[Cutout, Placement]]) -> Pasted:
    """Paste occluders onto a person at full resolution, in order: the later lies on top.

    Args:
        photo: RGB uint8 [H, W, 3] of the person; left unchanged.
        human: bool [H, W], the amodal mask.
        layers: occluders and where they go (`place.place`); they may stick out of the photo.

    Raises:
        ValueError: when photo and mask differ in size.
    """
    if photo.shape[:2] != human.shape:
        raise ValueError(f"expected a mask of the photo's size {photo.shape[:2]}, got {human.shape}")
    image, cover = photo.copy(), np.zeros(human.shape, np.bool_)
    for cutout, placement in layers:
        put = occluder_at(cutout.mask, placement)
        (h, w), (new_h, new_w) = cutout.mask.shape, put.shape
        level = _level(cutout, max(h * new_w, w * new_h), new_h * new_w)
        xs = _positions((2 * np.arange(new_w) + 1) * w, 2 * new_w, level, w if placement.flip else 0)
        ys = _positions((2 * np.arange(new_h) + 1) * h, 2 * new_h, level, 0)
        _blend(image, cover, put, placement.dx, placement.dy, cutout.levels[level], xs, ys)
    return Pasted(image, photo, human, cover)


def paste_into_crop(image: Rgb, amodal: Bool2D, box: Box, layers: Sequence[tuple[Cutout, Placement]]) -> Pasted:
    """The same on a person's cached crop: the training loader's fast path, no full-size pixels touched.

    O is exactly the crop (`core.crops.crop_labels`) of the full-resolution O; colours are sampled at the crop's size.
    A crop that is not resized has the bytes of `paste`, cropped.

    Args:
        image: RGB uint8 [S, S, 3], the crop of the person's photo.
        amodal: bool [S, S], the crop of the amodal mask.
        box: the square that was cropped, integer px of the full frame.
        layers: occluders and where they go, in px of the full frame.

    Returns:
        a `Pasted` in the crop's frame; its ``photo`` is ``image``. Outside the photo the caller keeps the crop black.
    """
    size, side = image.shape[0], int(box.x1 - box.x0)
    out, cover = image.copy(), np.zeros((size, size), np.bool_)
    twice = 2 * np.arange(-1, size + 1) + 1  # a pixel more on every side: there O goes on, which its edge must know
    nearest = (twice * side) // (2 * size)  # the rule of core.crops
    xs_full, ys_full = int(box.x0) + nearest, int(box.y0) + nearest
    for cutout, placement in layers:
        h, w = cutout.mask.shape
        new_w, new_h = scaled_size(w, h, placement.scale)
        u, v = xs_full - placement.dx, ys_full - placement.dy
        i0, i1 = np.searchsorted(u, [0, new_w])
        j0, j1 = np.searchsorted(v, [0, new_h])
        if i0 >= i1 or j0 >= j1:
            continue
        sx, sy = ((2 * u[i0:i1] + 1) * w) // (2 * new_w), ((2 * v[j0:j1] + 1) * h) // (2 * new_h)
        put = cutout.mask[sy[:, None], (w - 1 - sx if placement.flip else sx)[None, :]]
        # centre of crop pixel j in the full frame, less the placement's corner: ((2 j + 1) side + 2 size off) / 2 size
        centres = twice * side
        px = (centres[i0:i1] + 2 * size * (int(box.x0) - placement.dx)) * w
        py = (centres[j0:j1] + 2 * size * (int(box.y0) - placement.dy)) * h
        level = _level(cutout, max(side * w * new_h, side * h * new_w), size * new_w * new_h)
        xs = _positions(px, 2 * size * new_w, level, w if placement.flip else 0)
        ys = _positions(py, 2 * size * new_h, level, 0)
        _blend(out, cover, put, int(i0) - 1, int(j0) - 1, cutout.levels[level], xs, ys)
    return Pasted(out, image, amodal, cover)


def sample_digest(image: Rgb, modal: Bool2D, amodal: Bool2D) -> str:
    """sha256 hex of a sample's occluded image [H, W, 3], modal and amodal mask [H, W]: `records.Sample.digest`."""
    shape = np.array(image.shape[:2], "<i8").tobytes()
    return digest_bytes(shape, np.ascontiguousarray(image).tobytes(), _bits(modal), _bits(amodal))


def _bits(mask: Bool2D) -> bytes:
    return np.packbits(mask).tobytes()
