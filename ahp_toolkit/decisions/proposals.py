"""Corrected masks on their way back to the reviewers: proposals in ROOT/refine, never decisions.

The newest mask of a candidate is its current one (`state`), so a proposed candidate comes back into the queue. Parts
are only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Segmented
from ahp_toolkit.decisions.log import now
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.lock import lock

FOLDER = "refine"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mask in the place of a candidate's: ``segmented`` names in ``segmenter`` what made it. ``at``: ISO 8601 UTC."""

    candidate_id: str
    segmented: Segmented
    at: str


def read_all(folder: Path) -> dict[str, tuple[Proposal, ...]]:
    """candidate id -> its proposals, oldest first; empty where there are none.

    Raises:
        UserError: when a part is damaged.
    """
    found: dict[str, tuple[Proposal, ...]] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            for p in parquet.read_records(path, Proposal):
                found[p.candidate_id] = (*found.get(p.candidate_id, ()), p)
        except UserError as e:  # the command that made it reads it too
            raise UserError(f"{e}, once this file is deleted") from e
    return found


def propose(root: Path, masks: Sequence[Segmented]) -> Path | None:
    """Add proposals to ROOT/refine as one part; returns its path, None where there is nothing to add.

    Raises:
        UserError: when another process is adding to the folder.
    """
    if not masks:
        return None
    folder, at = root / FOLDER, now()
    with lock(folder):
        last = max((int(p.stem.split("-")[1]) for p in folder.glob("part-*.parquet")), default=-1)
        path = folder / f"part-{last + 1:05d}.parquet"
        files.forget_dead(path)
        parquet.write_records(path, [Proposal(s.candidate.candidate_id, s, at) for s in masks], Proposal)
    return path


def with_mask(s: Segmented, proposals: Sequence[Proposal], mask: Mask) -> Segmented:
    """A candidate with one of its masks, and with what made that one where it was proposed.

    Parsing labels that lie outside the mask stay as they were.
    """
    of = next((p.segmented for p in reversed(proposals) if p.segmented.mask == mask), None)
    if of is None:
        return replace(s, mask=mask)
    return replace(s, mask=mask, score=of.score, segmenter=of.segmenter, border_touch=of.border_touch)
