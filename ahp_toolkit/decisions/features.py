"""What is known of a candidate before anybody looks, as a fixed vector of numbers. No network is needed.

`rule` judges this vector where it has learned from people, and `triage.features` adds its own columns to it. An unknown
value is NaN, since the sources differ in what they state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from ahp_toolkit.core.crops import crop_image
from ahp_toolkit.core.masks import Bool2D, Mask
from ahp_toolkit.core.neighbours import outline_contact
from ahp_toolkit.core.records import Flags, Occluder, Segmented
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.images import Rgb

FLAGS = tuple(f.name for f in fields(Flags))
HEAD, FEET = {1, 2, 4, 13}, {8, 16, 17, 18, 19}  # LIP labels: hat, hair, sunglasses, face; socks, legs, shoes
BANDS = 8  # horizontal bands of the mask's box, from the top, whose widths describe its proportions
SHARPNESS_SIDE = 128  # px: sharpness is measured at one size for small and large people
_SMALL_HOLE = 4  # px²: smaller holes are noise of the outline
#: The columns, in order.
NAMES = (
    "neighbours", "box_cover", "max_box_iou", "mask_contact", "near_crowd", *(f"flag_{f}" for f in FLAGS),
    "score", "source_mask", "border_touch", "margin", "aspect", "height", "log_area", "photo_share", "fill", "box_iou",
    "stray", "second_iou", "parsed_by_source", "parts", "head", "feet",
    "solidity", "base_nearer", "contact_nearer", "contact_farther",
    "pieces", "holes", "hole_share", *(f"width_{i}" for i in range(BANDS)), "flat_base", "flat_top", "sharpness",
)  # fmt: skip


def vector(
    s: Segmented, others: Sequence[Occluder] | None = None, second: Mask | None = None, pixels: Rgb | None = None
) -> tuple[float, ...]:
    """The features of one candidate, as `NAMES` orders them.

    Args:
        s: the candidate.
        others: the other things of its photo that have a mask; None: not known.
        second: another segmenter's mask in the same frame.
        pixels: the photo, RGB uint8 [H, W, 3], where it is at hand.
    """
    x0, y0, x1, y1 = s.mask.box.pixels()
    crop = s.mask.decode()[y0:y1, x0:x1]
    shape = (_solidity(crop), *_depth(s, others))
    return (
        *_around(s), *_of_mask(s, crop, second), *_of_parts(s), *shape, *_holes(crop), *_profile(crop),
        _sharpness(s.mask, pixels),
    )  # fmt: skip


def things_by_photo(part: Path) -> dict[str, list[Occluder]] | None:
    """Image id -> the things of a photo that have a mask, from one part of harvest/occluders; None without the part."""
    if not part.exists():
        return None
    out: dict[str, list[Occluder]] = {}
    for o in parquet.read_records(part, Occluder):
        out.setdefault(o.image.image_id, []).append(o)
    return out


def stray_share(mask: Mask) -> float:
    """Share in [0, 1] of a mask's px outside its largest 8-connected piece."""
    x0, y0, x1, y1 = mask.box.pixels()
    areas = _areas(mask.decode()[y0:y1, x0:x1])
    return float(1 - areas.max() / areas.sum()) if areas.size else 0.0


def solidity(mask: Mask) -> float:
    """Share of the convex hull that a mask fills: what something in front bites out of a person lowers it."""
    x0, y0, x1, y1 = mask.box.pixels()
    return _solidity(mask.decode()[y0:y1, x0:x1])


def _areas(crop: Bool2D) -> np.ndarray:
    """px² of each 8-connected piece."""
    return cv2.connectedComponentsWithStats(crop.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]


def _tri(value: bool | None) -> float:
    return math.nan if value is None else float(value)


def _around(s: Segmented) -> tuple[float, ...]:
    near, flags = s.candidate.neighbours, s.candidate.flags
    contact = math.nan if near.mask_contact is None else near.mask_contact
    known = (float(near.count), near.box_cover, near.max_box_iou, contact, float(near.crowd))
    return (*known, *(_tri(getattr(flags, f)) for f in FLAGS))


def _of_mask(s: Segmented, crop: Bool2D, second: Mask | None) -> tuple[float, ...]:
    mask, box = s.mask, s.mask.box
    area, width, height = mask.area, max(box.width, 1.0), max(box.height, 1.0)
    margin = min(box.x0, box.y0, mask.width - box.x1, mask.height - box.y1)
    fits = second is not None and (second.height, second.width) == (mask.height, mask.width)
    areas = _areas(crop)
    return (
        s.score,
        float(s.segmenter.startswith("source_mask")),
        math.log1p(s.border_touch),
        margin / height,
        height / width,
        height / mask.height,
        math.log1p(area),
        area / (mask.width * mask.height),
        area / (width * height),
        box.iou(s.candidate.box),
        float(1 - areas.max() / areas.sum()) if areas.size else 0.0,
        mask.iou(second) if fits and second is not None else math.nan,
    )


def _solidity(crop: Bool2D) -> float:
    points = cv2.findNonZero(crop.astype(np.uint8))
    if points is None or len(points) < 3:
        return math.nan
    return len(points) / max(float(cv2.contourArea(cv2.convexHull(points))), float(len(points)))


def _depth(s: Segmented, others: Sequence[Occluder] | None) -> tuple[float, float, float]:
    """How far the lowest thing that meets the human stands before it (heights); contact with nearer, with farther ones.

    What stands lower in a photo stands nearer: touching something nearer is being occluded, farther is occluding it.
    """
    if others is None:
        return (math.nan,) * 3
    box = s.mask.box
    met = [
        o for o in others
        if o.occluder_id != s.candidate.candidate_id and o.box.intersection(box.enlarged(1.05)) > 0
    ]  # fmt: skip
    frame = (s.mask.height, s.mask.width)
    masks = [(o.mask.box.y1 >= box.y1, o.mask) for o in met if (o.mask.height, o.mask.width) == frame]
    nearer, farther = ([m for near, m in masks if near == side] for side in (True, False))
    lowest = max((o.mask.box.y1 for o in met), default=math.nan)
    before, behind = (outline_contact(s.mask, ms) if ms else 0.0 for ms in (nearer, farther))
    return (lowest - box.y1) / max(box.height, 1.0), before, behind


def _of_parts(s: Segmented) -> tuple[float, ...]:
    if s.parsing is None:
        return (math.nan,) * 4
    parts = set(s.parsing.labels)
    head, feet = bool(parts & HEAD), bool(parts & FEET)
    return float(s.parser.startswith("source_parsing")), float(len(parts)), float(head), float(feet)


def _holes(crop: Bool2D) -> tuple[float, float, float]:
    """Pieces of at least 1 % of the mask, enclosed holes, and the holes' share of the mask."""
    if not crop.any():
        return (math.nan,) * 3
    areas = _areas(crop)
    outside = np.pad(~crop, 1, constant_values=True).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(outside, connectivity=4)[2]
    enclosed = [a for x, y, *_, a in stats[1:] if x > 0 and y > 0 and a >= _SMALL_HOLE]
    return float((areas >= 0.01 * areas.sum()).sum()), float(len(enclosed)), sum(enclosed) / float(areas.sum())


def _profile(crop: Bool2D) -> tuple[float, ...]:
    """Width of each band in heights of the box; the longest level edge facing down, and up, in widths of the box."""
    height, width = crop.shape
    if not crop.any():
        return (math.nan,) * (BANDS + 2)
    rows = crop.sum(axis=1)
    cuts = np.linspace(0, height, BANDS + 1).astype(int)
    bands = [float(rows[a : max(b, a + 1)].mean()) / height for a, b in pairwise(cuts)]
    padded = np.pad(crop, ((1, 1), (0, 0)))
    down = (padded[1:-1] & ~padded[2:]).sum(axis=1).max()
    up = (padded[1:-1] & ~padded[:-2]).sum(axis=1).max()
    return (*bands, float(down) / width, float(up) / width)


def _sharpness(mask: Mask, pixels: Rgb | None) -> float:
    """log(1 + variance of the Laplacian) of the luminance in the mask's box at one size; NaN without the photo."""
    if pixels is None or mask.area == 0 or pixels.shape[:2] != (mask.height, mask.width):
        return math.nan
    crop = crop_image(pixels, mask.box, SHARPNESS_SIDE)
    return math.log1p(float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()))
