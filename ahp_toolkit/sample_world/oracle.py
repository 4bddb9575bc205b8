"""A reviewer who knows the written world's truth: the decisions of ``--review oracle``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision, Occluder, Segmented
from ahp_toolkit.sample_world.truth import FOLDER, Truth, read_truth

REVIEWER = "oracle"
#: Below this overlap with the truth a reviewer would not let a segmenter's mask pass.
FINE = 0.85


@cache
def _truths(roots: tuple[str, ...]) -> dict[str, Truth]:
    found: dict[str, Truth] = {}
    for root in roots:
        if (Path(root) / FOLDER).is_dir():
            found |= read_truth(Path(root))
    if not found:
        raise UserError(
            f"{roots[0]}: expected the sample world's truth there (--review oracle knows no other), found none"
        )
    return found


@dataclass(frozen=True, slots=True)
class Oracle:
    """Decides by the truth of the worlds under ``roots``, and not on people that these do not hold.

    ``formats`` are pairs of a source's name and its format, by which the world names its people. A person who should
    be preserved but whose mask misses the truth gets the true mask as the correction.
    """

    roots: tuple[str, ...]
    formats: tuple[tuple[str, str], ...] = ()

    def __call__(self, s: Segmented, others: Sequence[Occluder] | None = None) -> Decision | None:
        """The decision on one segmented human, or None."""
        truths = _truths(tuple(dict.fromkeys(self.roots)))
        source, slash, rest = s.candidate.candidate_id.partition("/")
        truth = truths.get(f"{dict(self.formats).get(source, source)}{slash}{rest}")
        if truth is None or (s.mask.height, s.mask.width) != (truth.modal.height, truth.modal.width):
            return None
        verdict, reason, corrected = truth.verdict, truth.reason, None
        if verdict == "preserve" and s.mask.iou(truth.modal) < FINE:
            corrected = truth.modal
        return Decision(s.candidate.candidate_id, verdict, REVIEWER, (corrected or s.mask).digest, reason, corrected)
