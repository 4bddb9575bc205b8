"""Corrected masks on their way back to the reviewers: proposals in ROOT/refine, never decisions.

A proposal remembers what each reviewer had said of its candidate when it came. While no word that stands was spoken
since, the candidate is open again (`about`). Parts are only ever added; the newest proposal counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Segmented
from ahp_toolkit.decisions.jsonl import logs
from ahp_toolkit.decisions.log import FOLDER as DECISIONS
from ahp_toolkit.decisions.log import now
from ahp_toolkit.decisions.mask_history import Case, Heard, Proposal, cases, digest_of
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.lock import lock

FOLDER = "refine"


def every(folder: Path) -> dict[str, tuple[Proposal, ...]]:
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


def newest(folder: Path) -> dict[str, Proposal]:
    """candidate id -> its newest proposal; see `every`."""
    return {cid: of[-1] for cid, of in every(folder).items()}


def known(root: Path, more: Sequence[Path] = ()) -> dict[str, Case]:
    """candidate id -> its words and proposals, from all logs and proposals of a build folder, and ``more`` logs.

    Raises:
        UserError: when a log or a part is damaged.
    """
    said_in = dict.fromkeys(p.resolve() for p in (*more, *logs(root / DECISIONS)))
    found = cases(said_in, every(root / FOLDER))
    for cid, first in firsts(root, {cid for cid, case in found.items() if case.unsure}).items():
        found[cid].first = first
    return found


def firsts(root: Path, wanted: Collection[str]) -> dict[str, str]:
    """candidate id -> the digest of the build's own mask, of those ``wanted`` that ROOT/parse has.

    Raises:
        UserError: when a part is damaged.
    """
    out: dict[str, str] = {}
    for path in sorted((root / "parse").glob("part-*.parquet")) if wanted else ():
        ids = parquet.read_table(path, ["candidate.candidate_id"]).column("candidate").combine_chunks()
        of = first_at(path)
        names = ids.field("candidate_id").to_pylist()
        out.update((cid, of(row)) for row, cid in enumerate(names) if cid in wanted)
    return out


def first_at(part: Path) -> Callable[[int], str]:
    """row -> the digest of its mask, in a part of ROOT/parse; the masks are read when the first is asked for."""

    @cache
    def masks() -> list[tuple[int, int, bytes]]:
        found = parquet.read_table(part, ["mask"]).column("mask").combine_chunks()
        return list(zip(*(found.field(n).to_pylist() for n in ("height", "width", "counts")), strict=True))

    return lambda row: digest_of(*masks()[row])  # no `Mask`: its checks would take ten times as long


def propose(root: Path, masks: Sequence[Segmented]) -> Path | None:
    """Add proposals to ROOT/refine as one part; returns its path, None where there is nothing to add.

    Raises:
        UserError: when another process is adding to the folder.
    """
    if not masks:
        return None
    folder, said = root / FOLDER, cases(logs(root / DECISIONS), {})
    with lock(folder):
        last = max((int(p.stem.split("-")[1]) for p in folder.glob("part-*.parquet")), default=-1)
        path = folder / f"part-{last + 1:05d}.parquet"
        at = now()
        made = [_after(said.get(s.candidate.candidate_id, Case()), s, at) for s in masks]
        files.forget_dead(path)
        parquet.write_records(path, made, Proposal)
    return path


def _after(case: Case, s: Segmented, at: str) -> Proposal:
    heard = tuple(Heard(who, n) for who, n in sorted(case.entries.items()))
    return Proposal(s.candidate.candidate_id, s, case.ever, heard, at)


def reopened(root: Path) -> set[str]:
    """Candidates with a new mask that nobody has decided on yet: the review asks about them again."""
    return {cid for cid, case in known(root).items() if case.reopened}


def current(root: Path) -> Iterator[Segmented]:
    """The candidates of ROOT/parse as the review shows them: with the newest mask, proposed or mended."""
    found = known(root)
    for s in parquet.read_records(root / "parse", Segmented):
        case = found.get(s.candidate.candidate_id, Case())
        yield with_mask(s, case, case.shown(s.mask))


def with_mask(s: Segmented, case: Case, mask: Mask) -> Segmented:
    """A candidate with one of its masks, and what is known of that one where it was proposed."""
    of = next((p for p in case.proposals[::-1] if p.segmented.mask == mask), None)
    return replace(with_proposal(s, of), mask=mask)


def with_proposal(s: Segmented, proposal: Proposal | None) -> Segmented:
    """A candidate with its proposed mask; parsing labels that lie outside that mask are left as they were."""
    if proposal is None:
        return s
    new = proposal.segmented
    return replace(s, mask=new.mask, score=new.score, segmenter=new.segmenter, border_touch=new.border_touch)
