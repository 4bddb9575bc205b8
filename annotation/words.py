"""What everybody has said so far, read from the logs of ``root/decisions`` and kept up with them as they grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision

from .about import Case
from .candidates import WHOLE, Ruled, Slice
from .decisions import Entry, entry_from_json, majority
from .jsonl import logs, read_bytes, whole
from .proposals import FOLDER as PROPOSED
from .proposals import every

#: The note of a word that settles a disagreement: after it nobody is asked again.
SETTLED = "settled"


_NOTHING = Case()


@dataclass
class _Log:
    path: Path
    offset: int = 0
    inode: int = 0
    line: int = 0

    def fresh(self) -> list[Entry] | None:
        """Entries since the last look; None when the file is another one or shorter, and must be read anew.

        Raises:
            UserError: at the first look, when acknowledged lines are missing or changed.
        """
        if not self.offset:
            read_bytes(self.path)
        with self.path.open("rb") as f:
            inode = self.path.stat().st_ino
            end = f.seek(0, 2)
            if self.offset and (inode != self.inode or end < self.offset):
                return None
            self.inode = inode
            f.seek(self.offset)
            data = f.read()
        data = whole(data)
        self.offset += len(data)
        entries = []
        for line in data.removesuffix(b"\n").split(b"\n"):
            self.line += 1
            if line.strip():
                entries.append(self._entry(line))
        return entries

    def _entry(self, line: bytes) -> Entry:
        try:
            return entry_from_json(line.decode())
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise UserError(
                f"{self.path}, line {self.line}: expected one decision as JSON ({e}); mend or remove the line"
            ) from e


@dataclass
class Words:
    """Standing words by candidate and reviewer. ``refresh`` reads what the logs and the proposals have gained."""

    folder: Path
    #: whose candidates count; words on others are read and passed over
    piece: Slice = WHOLE
    _logs: dict[Path, _Log] = field(default_factory=dict)
    _parts: int = 0
    _cases: dict[str, Case] = field(default_factory=dict)
    #: reviewer -> {candidate id: last word}, oldest word first
    by_reviewer: dict[str, dict[str, Decision]] = field(default_factory=dict)
    #: candidate id -> who has decided on its newest proposal, or on the first mask where there is none
    answered: dict[str, set[str]] = field(default_factory=dict)
    #: (candidate id, reviewer, at, verdict, '' for a retraction) of every entry ever read
    entries: set[tuple[str, str, str, str]] = field(default_factory=set)
    _divided: set[str] = field(default_factory=set)

    def refresh(self) -> set[str]:
        """Read on; returns the candidates on which something new was said.

        Raises:
            UserError: when a log has a line that is no decision, or a proposal is damaged.
        """
        changed = self._proposed()
        for path in logs(self.folder):
            log = self._logs.setdefault(path, _Log(path))
            entries = log.fresh()
            if entries is None:
                return self._anew()
            for entry in entries:
                if self.piece.holds(entry.candidate_id):
                    self._take(entry)
                    changed.add(entry.candidate_id)
        return changed

    def _anew(self) -> set[str]:
        for store in (self._logs, self._cases, self.by_reviewer, self.answered):
            store.clear()
        self.entries.clear()
        self._divided.clear()
        self._parts = 0
        return self.refresh()

    def _proposed(self) -> set[str]:
        """Take in new proposals; returns their candidates."""
        folder = self.folder.with_name(PROPOSED)
        parts = len(list(folder.glob("part-*.parquet")))  # parts are only ever added
        if parts == self._parts:
            return set()
        found = {cid: of for cid, of in every(folder).items() if self.piece.holds(cid)}
        changed = {cid for cid, of in found.items() if len(of) != len(self.case(cid).proposals)}
        for cid in changed:
            self._cases.setdefault(cid, Case()).proposals = found[cid]
            self._judge(cid)
        self._parts = parts
        return changed

    def _take(self, entry: Entry) -> None:
        cid, reviewer = entry.candidate_id, entry.reviewer
        case = self._cases.setdefault(cid, Case())
        case.take(entry)
        self.entries.add((cid, reviewer, entry.at, entry.verdict if isinstance(entry, Decision) else ""))
        mine = self.by_reviewer.setdefault(reviewer, {})
        mine.pop(cid, None)
        last = case.last().get(reviewer)
        if last is not None:
            mine[cid] = last.word
        self._judge(cid)

    def _judge(self, cid: str) -> None:
        self.answered[cid] = self._cases[cid].answered()
        (self._divided.add if divided(self.said(cid)) else self._divided.discard)(cid)

    def said(self, candidate_id: str) -> list[Decision]:
        """The final words on a candidate that count, one a reviewer."""
        return [d for d in self.case(candidate_id).counted() if not d.provisional]

    def case(self, candidate_id: str) -> Case:
        """What stands on a candidate."""
        return self._cases.get(candidate_id, _NOTHING)

    def mine(self, reviewer: str) -> dict[str, Decision]:
        """candidate id -> a reviewer's last word, oldest first."""
        return self.by_reviewer.get(reviewer, {})

    def disagreed(self) -> list[str]:
        """Candidates whose reviewers do not all say the same and that nobody has settled, in order of id."""
        return sorted(self._divided)


def divided(said: list[Decision]) -> bool:
    """Whether reviewers disagree and nobody has settled it."""
    return len({d.verdict for d in said}) > 1 and not any(d.note == SETTLED for d in said)


def outcome(said: list[Decision]) -> Decision | None:
    """What stands for a candidate: the newest settling word, else that of the majority; None where nobody spoke."""
    settled = [d for d in said if d.note == SETTLED]
    return max(settled, key=lambda d: d.at) if settled else majority(said) if said else None


def state(said: list[Decision], ruled: Ruled | None) -> dict[str, Any]:
    """The database's fields for a candidate: its verdict (people's before the rule's), and each reviewer's."""
    end = outcome(said)
    shown = end or ruled
    fields: dict[str, Any] = {
        "verdict": shown.verdict if shown else None,
        "reason": (shown.reason or None) if shown else None,
        "provisional": end is None and ruled is not None,
        "decided": end is not None,
        "disagreed": divided(said),
        "reviewers": sorted(d.reviewer for d in said),
    }
    return fields | {verdict_field(d.reviewer): d.verdict for d in said}


def verdict_field(reviewer: str) -> str:
    """The name of a reviewer's field in the database."""
    return "verdict_" + "".join(c if c.isalnum() else "_" for c in reviewer)
