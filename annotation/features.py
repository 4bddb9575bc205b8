"""What is known of a candidate before anybody looks, as numbers: the input of the triage.

Unknown is NaN, never a guess: sources differ in what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import store
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.pipeline import MAIN, Output
from ahp_toolkit.core.records import Flags, Segmented

from . import provisional

FLAGS = tuple(f.name for f in fields(Flags))
#: The columns, in order.
NAMES = (
    "neighbours", "box_cover", "max_box_iou", "mask_contact", "near_crowd", *(f"flag_{f}" for f in FLAGS),
    "score", "source_mask", "border_touch", "margin", "aspect", "height", "log_area", "photo_share", "fill", "box_iou",
    "stray", "second_iou", "parsed_by_source", "parts", "head", "feet", "rule",
)  # fmt: skip
RULED = {"discard": 0.0, "refine": 0.5, "preserve": 1.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate's features: ``values`` as in `NAMES`; ``photo`` is the group that nothing may leak out of."""

    candidate_id: str
    photo: str
    source: str
    values: tuple[float, ...]


def row_of(s: Segmented, second: Mask | None = None) -> Row:
    """The features of one candidate; ``second`` is another segmenter's mask of the same frame."""
    image = s.candidate.image
    values = (*_around(s), *_of_mask(s, second), *_of_parts(s), RULED[provisional.decide(s).verdict])
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
        provisional.stray_share(s),
        mask.iou(second) if fits and second is not None else math.nan,
    )


def _of_parts(s: Segmented) -> tuple[float, ...]:
    if s.parsing is None:
        return (math.nan,) * 4
    parts = set(s.parsing.labels)
    head, feet = bool(parts & provisional.HEAD), bool(parts & provisional.FEET)
    return float(s.parser.startswith("source_parsing")), float(len(parts)), float(head), float(feet)


@dataclass(frozen=True)
class Features:
    """The stage function. Items: paths of Segmented parts; ``second`` is another segmenter's Segmented table, or ''."""

    second: str = ""

    def __call__(self, items: Sequence[str]) -> Output:
        """One part: a Row for each candidate."""
        masks = _masks(self.second)
        rows = [
            row_of(s, masks.get(s.candidate.candidate_id))
            for path in items
            for s in store.read_records(Path(path), Segmented)
        ]
        return Output({MAIN: rows})


@cache
def _masks(folder: str) -> dict[str, Mask]:
    if not folder:
        return {}
    return {s.candidate.candidate_id: s.mask for s in store.read_records(Path(folder), Segmented)}


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
    table = store.read_table(path)
    if not {"candidate_id", "embedding"} <= set(table.column_names):
        raise UserError(f"{path}: expected columns candidate_id and embedding, got {', '.join(table.column_names)}")
    out = dict(zip(table["candidate_id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    lengths = {len(v) if v is not None else 0 for v in out.values()}
    if len(lengths) > 1 or not all(np.isfinite(v).all() for v in out.values()):
        raise UserError(f"{path}: expected embeddings of one length and finite numbers, got lengths {sorted(lengths)}")
    return out
