"""Decisions by rule, before anybody has looked: what else touches the human, flags, mask quality, border.

They are the cold start of the review and the way to try a build without people. Every one is marked provisional, and so
is every table, page and picture it reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ahp_toolkit.core.records import Decision, Segmented

REVIEWER = "rule"
HEAD, FEET = {1, 2, 4, 13}, {8, 16, 17, 18, 19}  # LIP labels: hat, hair, sunglasses, face; socks, legs, shoes


@dataclass(frozen=True)
class Thresholds:
    """When a rule discards or refines; shares in [0, 1].

    ``contact`` of the outline near other masks; ``cover`` of the box under other boxes, where masks are not known;
    ``pieces`` of the mask outside its largest piece (a person cut in two is behind something); ``score`` of the mask.
    """

    contact: float = 0.05
    cover: float = 0.25
    pieces: float = 0.02
    score: float = 0.5


def decide(s: Segmented, at: str = "", thresholds: Thresholds | None = None) -> Decision:
    """The provisional decision on one segmented human."""
    verdict, reason = _verdict(s, thresholds or Thresholds())
    return Decision(s.candidate.candidate_id, verdict, REVIEWER, reason=reason, at=at, provisional=True)


def _verdict(s: Segmented, t: Thresholds) -> tuple[str, str]:
    flags, near = s.candidate.flags, s.candidate.neighbours
    if flags.depiction or flags.reflection:
        return "discard", "not_a_person"
    if flags.crowd or flags.group or near.crowd:
        return "discard", "group"
    if flags.truncated or s.border_touch > 0:
        return "discard", "truncated"
    if flags.occluded or flags.difficult:
        return "discard", "occluded"
    touched = near.box_cover > t.cover if near.mask_contact is None else near.mask_contact > t.contact
    if touched or stray_share(s) > t.pieces:
        return "discard", "occluded"
    if s.parser.startswith("source_parsing") and s.parsing is not None and _cut(set(s.parsing.labels)):
        return "discard", "truncated"
    if s.score < t.score:
        return "refine", "bad_mask"
    return "preserve", ""


def _cut(parts: set[int]) -> bool:
    return not parts & HEAD or not parts & FEET


def stray_share(s: Segmented) -> float:
    """Share in [0, 1] of a mask's px outside its largest 8-connected piece."""
    x0, y0, x1, y1 = s.mask.box.pixels()
    crop = s.mask.decode()[max(0, y0) : y1, max(0, x0) : x1].astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(crop, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(1 - areas.max() / areas.sum()) if areas.size else 0.0
