"""The input of the triage: a candidate's features, the rule's verdict, and image embeddings where there are any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Occluder, Segmented
from ahp_toolkit.decisions import features, rule
from ahp_toolkit.runtime.stage import MAIN, Output
from ahp_toolkit.storage import parquet

#: The columns, in order: those that `rule` judges too, its verdict, and its certainty where it has learned from people.
NAMES = (*features.NAMES, "rule", "certainty")
RULED = {"discard": 0.0, "refine": 0.5, "preserve": 1.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate's features: ``values`` as in `NAMES`; ``photo`` is the group that nothing may leak out of."""

    candidate_id: str
    photo: str
    source: str
    values: tuple[float, ...]


def row_of(s: Segmented, second: Mask | None = None, others: Sequence[Occluder] | None = None) -> Row:
    """The features of one candidate; see `features.vector` for the arguments."""
    image, values = s.candidate.image, features.vector(s, others, second)
    learned = rule.opinion()
    sure = learned.certainty(values) if learned else math.nan
    values = (*values, RULED[rule.judge(s, values).verdict], sure)
    return Row(s.candidate.candidate_id, image.photo or image.image_id, image.source, values)


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
            things = features.things_by_photo(Path(self.occluders) / Path(path).name) if self.occluders else None
            for s in parquet.read_records(Path(path), Segmented):
                others = None if things is None else things.get(s.candidate.image.image_id, [])
                rows.append(row_of(s, masks.get(s.candidate.candidate_id), others))
        return Output({MAIN: rows})


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
