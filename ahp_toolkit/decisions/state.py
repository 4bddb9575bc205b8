"""What counts now: the one state of a candidate and of a reviewer, for panel, queue, exports, status, merge and stage.

A candidate's first mask is the build's. Proposals and reviewers' corrections come after it by their time. The newest
mask is the current one, which the panel shows. A decision is on the mask that its ``mask_digest`` names:

* The decisions on the newest mask that anybody has decided on count; those on older masks no longer do.
* A correction and a provisional decision answer nothing: the current mask stays in the queue.
* A mask that the candidate no longer has (the build was made again, or the correction was taken back) releases no
  other. Where reviewers have only discarded such masks, they discarded the person: that counts for the build's mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions import proposals
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Ruled, Slice
from ahp_toolkit.decisions.log import SETTLED, Entry, Reader, effective, logs_of, read_entries, when
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.proposals import Proposal


@dataclass(slots=True)
class Case:
    """One candidate: the digest of the build's own mask, its proposals, and every entry on it by id.

    ``first`` is '' for a candidate that the build does not have.
    """

    first: str = ""
    proposals: tuple[Proposal, ...] = ()
    entries: dict[str, Entry] = field(default_factory=dict)
    _read: tuple[Any, list[Decision], dict[str, Mask]] | None = None

    @property
    def decisions(self) -> list[Decision]:
        """The decisions that nobody took back, oldest first."""
        return self._known()[0]

    @property
    def masks(self) -> dict[str, Mask]:
        """Digest -> mask, oldest first, of all masks beside the build's own: proposed, corrected, or carried here."""
        return self._known()[1]

    def _known(self) -> tuple[list[Decision], dict[str, Mask]]:
        """The decisions and masks, made again when an entry or a proposal has come."""
        key = (len(self.entries), len(self.proposals), self.first)
        if self._read is None or self._read[0] != key:
            decisions = sorted(effective(self.entries.values()), key=lambda d: when(d.at))
            self._read = (key, decisions, self._masks(decisions))
        return self._read[1:]

    def _masks(self, decisions: Sequence[Decision]) -> dict[str, Mask]:
        found = [(when(p.at), p.segmented.mask) for p in self.proposals]
        found += [(when(d.at), d.correction) for d in decisions if d.correction is not None]
        known = {self.first, *(m.digest for _, m in found)}
        carried = (d for d in decisions if d.corrected is not None and d.correction is None)
        found += [(when(d.at), d.corrected) for d in carried if d.corrected and d.mask_digest not in known]
        out: dict[str, Mask] = {}
        for _, mask in sorted(found, key=lambda x: x[0]):
            out.pop(mask.digest, None)
            out[mask.digest] = mask
        return out

    @property
    def current(self) -> str:
        """The digest of the mask that the panel shows."""
        return next(reversed(self.masks), self.first)

    def current_mask(self, first: Mask) -> Mask:
        """The mask that the panel shows. ``first`` is the build's."""
        return self.masks.get(self.current, first)

    def mask_of(self, d: Decision, first: Mask) -> Mask:
        """The mask that a decision is on. ``first`` is the build's."""
        return self.masks.get(d.mask_digest, first)

    def counted(self, settled: bool = True) -> list[Decision]:
        """The decisions that count, one a reviewer, by name: final ones where there are any, else provisional ones.

        With ``settled`` false, those that settle a disagreement are left out.
        """
        found = [d for d in self.decisions if settled or d.note != SETTLED]
        masks = [self.first, *self.masks]
        for provisional in (False, True):
            on = self._on_masks(d for d in found if d.provisional == provisional)
            newest = next((m for m in reversed(masks) if on.get(m)), None)
            if newest is not None:
                return [d for _, d in sorted(on[newest].items())]
        return []

    def answered(self) -> set[str]:
        """Who has decided on the current mask; a provisional decision is no answer."""
        return set(self._on_masks(d for d in self.decisions if not d.provisional).get(self.current, ()))

    @property
    def reopened(self) -> bool:
        """Whether there are decisions or a new mask, and nobody has decided on the current mask."""
        return bool(self.masks or any(map(self.orphan, self.decisions))) and not self.answered()

    @property
    def orphaned(self) -> list[str]:
        """Who has preserved a mask that the candidate no longer has."""
        return sorted({d.reviewer for d in self.decisions if self.orphan(d) and d.verdict == "preserve"})

    def _on_masks(self, decisions: Iterable[Decision]) -> dict[str, dict[str, Decision]]:
        """Digest of a mask -> each reviewer's last decision on it."""
        decisions = list(decisions)
        orphans = {d.reviewer: d.verdict for d in decisions if self.orphan(d)}
        discarded = set(orphans.values()) <= {"discard"}
        out: dict[str, dict[str, Decision]] = {}
        for d in decisions:
            mask = d.mask_digest if not self.orphan(d) else self.first if discarded else None
            if mask is not None:
                out.setdefault(mask, {})[d.reviewer] = d
        return out

    def orphan(self, d: Decision) -> bool:
        """Whether a decision is on a mask that the candidate no longer has."""
        return d.mask_digest != self.first and d.mask_digest not in self.masks


def read_cases(logs: Iterable[Path], proposed: Mapping[str, tuple[Proposal, ...]]) -> dict[str, Case]:
    """candidate id -> its case, of every candidate with an entry or a proposal; the builds' masks are not looked up.

    Raises:
        UserError: naming the file and the line that is no decision.
    """
    out = {cid: Case(proposals=of) for cid, of in proposed.items()}
    for log in logs:
        for entry in read_entries(log):
            out.setdefault(entry.candidate_id, Case()).entries.setdefault(entry.id, entry)
    return out


class Decisions:
    """The state of a build folder, kept up with its logs and proposals as they grow.

    Args:
        root: the build folder.
        candidates: its candidates, or those of one piece; entries on others are left out. None: read from ``root``.
        logs: more decision logs than its own.
    """

    def __init__(self, root: Path, candidates: Candidates | None = None, logs: Sequence[Path] = ()) -> None:
        self.root, self.candidates = root, candidates or Candidates(root)
        self.piece: Slice = candidates.piece if candidates else WHOLE
        self._more = tuple(dict.fromkeys(p.resolve() for p in logs))
        self._clear()

    def _clear(self) -> None:
        self._readers: dict[Path, Reader] = {}
        self._parts = 0
        #: candidate id -> its case, of every candidate with an entry or a proposal
        self.cases: dict[str, Case] = {}
        #: reviewer -> {candidate id: last decision}, oldest first
        self.by_reviewer: dict[str, dict[str, Decision]] = {}
        #: candidate id -> who has decided on its current mask
        self.answered: dict[str, set[str]] = {}
        self._divided: set[str] = set()
        #: what could not be read at the last look, in one line; '' where all could
        self.trouble = ""

    def refresh(self) -> Decisions:
        """Read on; returns this state.

        Raises:
            UserError: when a log has a line that is no decision, or a proposal is damaged.
        """
        self.follow()
        if self.trouble:
            raise UserError(self.trouble)
        return self

    def follow(self) -> set[str]:
        """Read on; returns the candidates on which something is new. What cannot be read is named in ``trouble``."""
        troubles: list[str] = []
        changed: set[str] = set()
        with _noted(troubles):
            changed |= self._follow_proposals()
        for path in dict.fromkeys((*self._more, *(p.resolve() for p in logs_of(self.root)))):
            reader = self._readers.setdefault(path, Reader(path))
            with _noted(troubles):
                if reader.replaced():
                    self._clear()
                    return self.follow()
                changed |= {e.candidate_id for e in reader.entries() if self._take(e)}
            if reader.problem:
                troubles.append(reader.problem)
        with _noted(troubles):
            unknown = [cid for cid in changed if not self.cases[cid].first]
            for cid, digest in self.candidates.mask_digests(unknown).items():
                self.cases[cid].first = digest
        for cid in changed:
            case = self.cases[cid]
            self.answered[cid] = case.answered()
            (self._divided.add if divided(self.finals(cid)) else self._divided.discard)(cid)
        self.trouble = troubles[0] if troubles else ""
        return changed

    def _follow_proposals(self) -> set[str]:
        folder = self.root / proposals.FOLDER
        parts = len(list(folder.glob("part-*.parquet")))  # parts are only ever added
        if parts == self._parts:
            return set()
        found = {cid: of for cid, of in proposals.read_all(folder).items() if self.piece.holds(cid)}
        changed = {cid for cid, of in found.items() if len(of) != len(self.case(cid).proposals)}
        for cid in changed:
            self.cases.setdefault(cid, Case()).proposals = found[cid]
        self._parts = parts
        return changed

    def _take(self, entry: Entry) -> bool:
        """Take in one entry; false where it is of another piece or known already."""
        cid = entry.candidate_id
        if not self.piece.holds(cid) or entry.id in self.case(cid).entries:
            return False
        case = self.cases.setdefault(cid, Case())
        case.entries[entry.id] = entry
        mine = self.by_reviewer.setdefault(entry.reviewer, {})
        mine.pop(cid, None)
        of = [d for d in case.decisions if d.reviewer == entry.reviewer]
        if of:
            mine[cid] = ([d for d in of if not d.provisional] or of)[-1]
        return True

    def case(self, candidate_id: str) -> Case:
        """What is known of a candidate."""
        return self.cases.get(candidate_id, Case())

    def finals(self, candidate_id: str) -> list[Decision]:
        """The final decisions on a candidate that count, one a reviewer."""
        return [d for d in self.case(candidate_id).counted() if not d.provisional]

    def counted(self) -> dict[str, list[Decision]]:
        """candidate id -> the decisions to merge, of all candidates with any."""
        found = ((cid, case.counted()) for cid, case in self.cases.items())
        return {cid: decisions for cid, decisions in found if decisions}

    def mine(self, reviewer: str) -> dict[str, Decision]:
        """candidate id -> a reviewer's last decision, oldest first."""
        return self.by_reviewer.get(reviewer, {})

    @property
    def reopened(self) -> set[str]:
        """Candidates that come back into the queue: nobody has decided on their current mask."""
        return {cid for cid, case in self.cases.items() if case.reopened}

    def disagreed(self) -> list[str]:
        """Candidates whose reviewers disagree and that nobody has settled, sorted by id."""
        return sorted(self._divided)

    def row(self, candidate_id: str) -> dict[str, Any]:
        """The database's fields for a candidate."""
        return row(self.finals(candidate_id), self.candidates.ruled.get(candidate_id))


@contextmanager
def _noted(troubles: list[str]) -> Iterator[None]:
    """Note what cannot be read, and go on."""
    try:
        yield
    except (UserError, OSError) as e:
        troubles.append(str(e))


def divided(decisions: Sequence[Decision]) -> bool:
    """Whether reviewers disagree and nobody has settled it."""
    return len({d.verdict for d in decisions}) > 1 and not any(d.note == SETTLED for d in decisions)


def row(decisions: Sequence[Decision], ruled: Ruled | None) -> dict[str, Any]:
    """The database's fields for a candidate: its verdict (people's before the rule's), and each reviewer's."""
    end = Merge()(decisions)
    shown = end or ruled
    fields: dict[str, Any] = {
        "verdict": shown.verdict if shown else None,
        "reason": (shown.reason or None) if shown else None,
        "provisional": end is None and ruled is not None,
        "decided": end is not None,
        "disagreed": divided(decisions),
        "reviewers": sorted(d.reviewer for d in decisions),
    }
    return fields | {verdict_field(d.reviewer): d.verdict for d in decisions}


def verdict_field(reviewer: str) -> str:
    """The name of a reviewer's field in the database."""
    return "verdict_" + "".join(c if c.isalnum() else "_" for c in reviewer)
