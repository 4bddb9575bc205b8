"""How much other instances of a photo touch a human: known before anybody looks, used by the review's triage."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ahp_toolkit.core.masks import Bool2D, Box, Mask, merge
from ahp_toolkit.core.records import Instance, Neighbours

CONTACT_PX = 2  # masks drawn by hand leave a gap of a pixel or two between things that touch


def neighbours_of(
    people: Sequence[Instance], instances: Sequence[Instance], height: int, width: int
) -> list[Neighbours]:
    """`Neighbours` of each human among all ``instances`` of a photo of ``height`` x ``width`` px."""
    return [_neighbours(p, [i for i in instances if i.instance_id != p.instance_id], height, width) for p in people]


def _neighbours(person: Instance, others: Sequence[Instance], height: int, width: int) -> Neighbours:
    near = [o for o in others if o.box.intersection(person.box) > 0]
    single = [o for o in near if not (o.flags.crowd or o.flags.group)]
    contact = None
    if person.mask is not None:
        masks = [o.mask for o in near if o.mask is not None]
        if masks:
            contact = outline_contact(person.mask, masks)
        elif all(o.mask is not None for o in others):
            contact = 0.0
    return Neighbours(
        count=len(near),
        box_cover=union_area([o.box for o in near], person.box) / max(person.box.area, 1.0),
        max_box_iou=max((o.box.iou(person.box) for o in single), default=0.0),
        mask_contact=contact,
        crowd=len(single) < len(near),
    )


def union_area(boxes: Sequence[Box], frame: Box) -> float:
    """Area in px² of the union of boxes within ``frame`` (coordinate compression, exact)."""
    clipped = [
        (max(b.x0, frame.x0), max(b.y0, frame.y0), min(b.x1, frame.x1), min(b.y1, frame.y1))
        for b in boxes
        if b.intersection(frame) > 0
    ]
    if not clipped:
        return 0.0
    c = np.asarray(clipped)
    xs, ys = np.unique(c[:, [0, 2]]), np.unique(c[:, [1, 3]])
    covered = np.zeros((ys.size - 1, xs.size - 1), bool)
    for x0, y0, x1, y1 in clipped:
        covered[
            np.searchsorted(ys, y0) : np.searchsorted(ys, y1), np.searchsorted(xs, x0) : np.searchsorted(xs, x1)
        ] = 1
    return float((covered * np.diff(ys)[:, None] * np.diff(xs)[None, :]).sum())


def outline_contact(mask: Mask, others: Sequence[Mask]) -> float:
    """Share in [0, 1] of a mask's outline px that lie within CONTACT_PX of another mask."""
    x0, y0, x1, y1 = mask.box.enlarged(1.0).pixels()
    pad = CONTACT_PX + 1
    window = (slice(max(0, y0 - pad), y1 + pad), slice(max(0, x0 - pad), x1 + pad))
    own = mask.decode()[window].astype(np.uint8)
    other = merge(others).decode()[window].astype(np.uint8)
    if not other.any():
        return 0.0
    outline = outline_of(own.astype(bool))
    reach = cv2.dilate(other, np.ones((2 * CONTACT_PX + 1, 2 * CONTACT_PX + 1), np.uint8)).astype(bool)
    total = int(outline.sum())
    return float((outline & reach).sum() / total) if total else 0.0


def outline_of(mask: Bool2D) -> Bool2D:
    """The mask's own border px (4-neighbourhood), bool [H, W]."""
    inner = cv2.erode(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), borderValue=0)
    return mask & ~inner.astype(bool)
