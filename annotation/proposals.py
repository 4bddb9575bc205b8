"""Corrected masks on their way back to the reviewers: proposals in ROOT/refine, never decisions.

A proposal remembers how many words its candidate had when it came. While nobody has spoken since, the candidate is open
again; a preserve spoken afterwards is about the proposed mask. Parts are only ever added; the newest proposal counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ahp_toolkit.core import store
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.lock import lock
from ahp_toolkit.core.records import Decision, Segmented

from .decisions import read_entries
from .merge import logs_of

FOLDER = "refine"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mask that replaces a candidate's: ``segmented`` names in ``segmenter`` what made it.

    ``words`` decisions had been spoken on the candidate when it came.
    """

    candidate_id: str
    segmented: Segmented
    words: int


def spoken(logs: Iterable[Path]) -> Counter[str]:
    """How many decisions were ever spoken on each candidate, taken back or not."""
    return Counter(e.candidate_id for log in logs for e in read_entries(log) if isinstance(e, Decision))


def newest(folder: Path) -> dict[str, Proposal]:
    """candidate id -> its newest proposal; empty where there are none.

    Raises:
        UserError: when a part is damaged.
    """
    found: dict[str, Proposal] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            found |= {p.candidate_id: p for p in store.read_records(path, Proposal)}
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
    folder, words = root / FOLDER, spoken(logs_of(root))
    with lock(folder):
        last = max((int(p.stem.split("-")[1]) for p in folder.glob("part-*.parquet")), default=-1)
        path = folder / f"part-{last + 1:05d}.parquet"
        made = [Proposal(s.candidate.candidate_id, s, words[s.candidate.candidate_id]) for s in masks]
        store.forget_dead(path)
        store.write_records(path, made, Proposal)
    return path


def reopened(root: Path) -> set[str]:
    """Candidates with a proposed mask that nobody has spoken on yet: the review asks about them again."""
    proposed = newest(root / FOLDER)
    words = spoken(logs_of(root)) if proposed else Counter[str]()
    return {cid for cid, p in proposed.items() if words[cid] <= p.words}


def current(root: Path) -> Iterator[Segmented]:
    """The candidates of ROOT/parse as the review shows them: a proposed mask in the place of the first one."""
    proposed = newest(root / FOLDER)
    for s in store.read_records(root / "parse", Segmented):
        yield with_proposal(s, proposed.get(s.candidate.candidate_id))


def with_proposal(s: Segmented, proposal: Proposal | None) -> Segmented:
    """A candidate with its proposed mask; parsing labels that lie outside that mask are left as they were."""
    if proposal is None:
        return s
    new = proposal.segmented
    return replace(s, mask=new.mask, score=new.score, segmenter=new.segmenter, border_touch=new.border_touch)
