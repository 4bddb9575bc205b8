"""What is known of a candidate before anybody looks, as numbers: the input of the triage.

Unknown is NaN, never a guess: sources differ in what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.neighbours import outline_contact
from ahp_toolkit.core.records import Flags, Occluder, Segmented
from ahp_toolkit.decisions import rule
from ahp_toolkit.runtime.stage import MAIN, Output
from ahp_toolkit.storage import parquet

FLAGS = tuple(f.name for f in fields(Flags))
#: The columns, in order.
NAMES = (
    "neighbours", "box_cover", "max_box_iou", "mask_contact", "near_crowd", *(f"flag_{f}" for f in FLAGS),
    "score", "source_mask", "border_touch", "margin", "aspect", "height", "log_area", "photo_share", "fill", "box_iou",
    "stray", "second_iou", "parsed_by_source", "parts", "head", "feet", "rule",
    "solidity", "base_nearer", "contact_nearer", "contact_farther",
)  # fmt: skip
RULED = {"discard": 0.0, "refine": 0.5, "preserve": 1.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate's features: ``values`` as in `NAMES`; ``photo`` is the group that nothing may leak out of."""

    candidate_id: str
    photo: str
    source: str
    values: tuple[float, ...]


def row_of(s: Segmented, second: Mask | None = None, others: Sequence[Occluder] | None = None) -> Row:
    """The features of one candidate.

    Args:
        s: the candidate.
        second: another segmenter's mask of the same frame.
        others: the other things of its photo that have a mask; None: not known.
    """
    image = s.candidate.image
    shape = (RULED[rule.decide(s).verdict], solidity(s.mask), *_depth(s, others))
    values = (*_around(s), *_of_mask(s, second), *_of_parts(s), *shape)
    return Row(s.candidate.candidate_id, image.photo or image.image_id, image.source, values)


def _tri(value: bool | None) -> float:
    return math.nan if value is None else float(value)


def _around(s: Segmented) -> tuple[float, ...]:
    near, flags = s.candidate.neighbours, s.candidate.flags
    contact = math.nan if near.mask_contact is None else near.mask_contact
    known = (float(near.count), near.box_cover, near.max_box_iou, contact, float(near.crowd))
    return (*known, *(_tri(getattr(flags, f)) for f in FLAGS))


def _of_mask(s: Segmented, second: Mask | None) -> tuple[float, ...]:
    mask, box = s.mask, s.mask.box
    area, width, height = mask.area, max(box.width, 1.0), max(box.height, 1.0)
    margin = min(box.x0, box.y0, mask.width - box.x1, mask.height - box.y1)
    fits = second is not None and (second.height, second.width) == (mask.height, mask.width)
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
        rule.stray_share(s),
        mask.iou(second) if fits and second is not None else math.nan,
    )


def solidity(mask: Mask) -> float:
    """Share of the convex hull that a mask fills: what something in front bites out of a person lowers it."""
    x0, y0, x1, y1 = mask.box.pixels()
    points = cv2.findNonZero(mask.decode()[y0:y1, x0:x1].astype(np.uint8))
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
    head, feet = bool(parts & rule.HEAD), bool(parts & rule.FEET)
    return float(s.parser.startswith("source_parsing")), float(len(parts)), float(head), float(feet)


@dataclass(frozen=True)
class Features:
    """The stage function. Items: paths of Segmented parts.

    ``second`` is another segmenter's Segmented table, or ''. ``occluders`` is the harvest's, or '': its parts hold the
    same photos as the parts of the same name.
    """

    second: str = ""
    occluders: str = ""

    def __call__(self, items: Sequence[str]) -> Output:
        """One part: a Row for each candidate."""
        masks = _masks(self.second)
        rows = []
        for path in items:
            things = self._things(Path(path).name)
            for s in parquet.read_records(Path(path), Segmented):
                others = None if things is None else things.get(s.candidate.image.image_id, [])
                rows.append(row_of(s, masks.get(s.candidate.candidate_id), others))
        return Output({MAIN: rows})

    def _things(self, part: str) -> dict[str, list[Occluder]] | None:
        path = Path(self.occluders) / part
        if not self.occluders or not path.exists():
            return None
        out: dict[str, list[Occluder]] = {}
        for o in parquet.read_records(path, Occluder):
            out.setdefault(o.image.image_id, []).append(o)
        return out


@cache
def _masks(folder: str) -> dict[str, Mask]:
    if not folder:
        return {}
    return {s.candidate.candidate_id: s.mask for s in parquet.read_records(Path(folder), Segmented)}


def matrix(rows: Sequence[Row]) -> NDArray[np.float64]:
    """float64 [candidates, features]."""
    return np.asarray([r.values for r in rows], np.float64).reshape(-1, len(NAMES))


def embedded(ids: Sequence[str], vectors: Mapping[str, Sequence[float]], most: int = 16) -> NDArray[np.float64]:
    """Image embeddings as at most ``most`` principal components; NaN for candidates without one.

    The components are those of all candidates' pictures; no decision enters them.
    """
    from sklearn.decomposition import PCA

    known = np.array([i for i, cid in enumerate(ids) if cid in vectors], np.int64)
    if known.size < 2:
        return np.empty((len(ids), 0))
    table = np.asarray([vectors[ids[i]] for i in known], np.float64)
    k = min(most, *table.shape)
    out = np.full((len(ids), k), np.nan)
    out[known] = PCA(k, svd_solver="full").fit_transform(table)
    return out


def read_embeddings(path: Path) -> dict[str, list[float]]:
    """A Parquet table with columns ``candidate_id`` and ``embedding`` (lists of one length, finite).

    Raises:
        UserError: when it is none.
    """
    table = parquet.read_table(path)
    if not {"candidate_id", "embedding"} <= set(table.column_names):
        raise UserError(f"{path}: expected columns candidate_id and embedding, got {', '.join(table.column_names)}")
    out = dict(zip(table["candidate_id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    lengths = {len(v) if v is not None else 0 for v in out.values()}
    if len(lengths) > 1 or not all(np.isfinite(v).all() for v in out.values()):
        raise UserError(f"{path}: expected embeddings of one length and finite numbers, got lengths {sorted(lengths)}")
    return out
