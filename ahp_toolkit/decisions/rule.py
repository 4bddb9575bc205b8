"""Decisions before anybody has looked: by a classifier learned from people where there is one, else by a plain rule.

They are the cold start of the review and the way to try a build without people. Every one is marked provisional, and so
is every table, page and picture it reaches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision, Occluder, Segmented
from ahp_toolkit.decisions import features
from ahp_toolkit.decisions.features import FEET, HEAD, stray_share
from ahp_toolkit.storage.images import Rgb

REVIEWER = "rule"
#: The classifier learned from people's decisions; without this file the plain rule decides.
OPINION = Path(__file__).parent / "opinion.json"
_FARTHEST = 6.0  # standard deviations: a value farther from the mean counts as this far


@dataclass(frozen=True)
class Thresholds:
    """When the plain rule discards or refines; shares in [0, 1].

    ``contact`` of the outline near other masks; ``cover`` of the box under other boxes, where masks are not known;
    ``pieces`` of the mask outside its largest piece (a person cut in two is behind something); ``score`` of the mask.
    """

    contact: float = 0.05
    cover: float = 0.25
    pieces: float = 0.02
    score: float = 0.5


@dataclass(frozen=True)
class Opinion:
    """A calibrated classifier of preserve against all else, over the features of `features.NAMES`.

    The input is each feature of ``names``, standardised by ``mean`` and ``scale`` (an unknown value becomes 0), then
    for each name in ``missing`` 1 where that feature is unknown and 0 where it is known. Each layer is (weights
    [out, in], bias [out]) with a ReLU between two layers; the last has one output, the logit. The certainty of preserve
    is sigmoid(slope * logit + offset).
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    missing: tuple[str, ...]
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    slope: float
    offset: float
    threshold: float

    @classmethod
    def read(cls, path: Path) -> Opinion:
        """Read ``{"features", "mean", "scale", "missing", "layers": [{"weights", "bias"}], "calibration": {"slope",
        "offset"}, "threshold"}``.

        Raises:
            UserError: when the file is no such classifier.
        """
        try:
            d = json.loads(path.read_text(encoding="utf-8"))
            layers = tuple((np.asarray(v["weights"], float), np.asarray(v["bias"], float)) for v in d["layers"])
            names, missing = tuple(d["features"]), tuple(d.get("missing", ()))
            mean, scale = (tuple(map(float, d[k])) for k in ("mean", "scale"))
            slope, offset = (float(d["calibration"][k]) for k in ("slope", "offset"))
            if not len(names) == len(mean) == len(scale):
                raise ValueError(f"{len(names)} features, {len(mean)} means, {len(scale)} scales")
            found = cls(names, mean, scale, missing, layers, slope, offset, float(d["threshold"]))
            found.certainty((math.nan,) * len(features.NAMES))
        except (OSError, ValueError, TypeError, KeyError, IndexError) as e:
            raise UserError(f"{path}: expected a classifier of preserve as JSON, got another content ({e!r})") from e
        return found

    def certainty(self, values: Sequence[float]) -> float:
        """p(preserve) in [0, 1] of a vector as `features.vector` gives it.

        Raises:
            ValueError: when the classifier names an unknown feature or its shapes do not fit.
        """
        known = dict(zip(features.NAMES, values, strict=True))
        unknown = {*self.names, *self.missing} - known.keys()
        if unknown:
            raise ValueError(f"unknown features {sorted(unknown)}")
        x = np.array([known[n] for n in self.names], float)
        z = np.nan_to_num((x - self.mean) / self.scale, nan=0.0).clip(-_FARTHEST, _FARTHEST)
        z = np.concatenate([z, [float(math.isnan(known[n])) for n in self.missing]])
        for i, (weights, bias) in enumerate(self.layers):
            z = weights @ (np.maximum(z, 0) if i else z) + bias
        return float(1 / (1 + math.exp(-min(max(self.slope * z.item() + self.offset, -60.0), 60.0))))


@cache
def opinion(path: Path | None = None) -> Opinion | None:
    """The packaged classifier, None where there is none.

    Raises:
        UserError: when the file is damaged.
    """
    where = path or OPINION
    return Opinion.read(where) if where.exists() else None


def certainty(
    s: Segmented, others: Sequence[Occluder] | None = None, second: Mask | None = None, pixels: Rgb | None = None
) -> float:
    """How sure the classifier is in [0, 1] that people would preserve a candidate; NaN without a classifier.

    Args:
        s, others, second, pixels: see `features.vector`.
    """
    known = opinion()
    return math.nan if known is None else known.certainty(features.vector(s, others, second, pixels))


def decide(s: Segmented, others: Sequence[Occluder] | None = None) -> Decision:
    """The provisional decision on one segmented human, by the classifier where there is one; see `judge`."""
    return judge(s, features.vector(s, others) if opinion() else None)


def judge(s: Segmented, values: Sequence[float] | None, thresholds: Thresholds | None = None) -> Decision:
    """The provisional decision, from the candidate's `features.vector`; None: the plain rule decides.

    With a classifier, preserve where its certainty reaches its threshold and the source flags nothing, else discard.
    """
    verdict, reason = _verdict(s, thresholds or Thresholds())
    note, known = "", opinion()
    if known is not None and values is not None:
        sure = known.certainty(values)
        kept = sure >= known.threshold and not _flagged(s)
        verdict, reason, note = *(("preserve", "") if kept else ("discard", reason or "other")), f"certainty {sure:.2f}"
    return Decision(s.candidate.candidate_id, verdict, REVIEWER, s.mask.digest, reason, note=note, provisional=True)


def _flagged(s: Segmented) -> str:
    """Why the source's own flags discard a candidate; '' where they do not."""
    flags = s.candidate.flags
    if flags.depiction or flags.reflection:
        return "not_a_person"
    if flags.crowd or flags.group:
        return "group"
    if flags.truncated:
        return "truncated"
    return "occluded" if flags.occluded or flags.difficult else ""


def _verdict(s: Segmented, t: Thresholds) -> tuple[str, str]:
    near, flagged = s.candidate.neighbours, _flagged(s)
    if flagged in ("not_a_person", "group"):
        return "discard", flagged
    if near.crowd:
        return "discard", "group"
    if flagged == "truncated" or s.border_touch > 0:
        return "discard", "truncated"
    touched = near.box_cover > t.cover if near.mask_contact is None else near.mask_contact > t.contact
    if flagged or touched or stray_share(s.mask) > t.pieces:
        return "discard", "occluded"
    if s.parser.startswith("source_parsing") and s.parsing is not None and _cut(set(s.parsing.labels)):
        return "discard", "truncated"
    if s.score < t.score:
        return "refine", "bad_mask"
    return "preserve", ""


def _cut(parts: set[int]) -> bool:
    return not parts & HEAD or not parts & FEET
