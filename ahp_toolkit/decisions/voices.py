"""What everybody has said so far, read from the logs of ``root/decisions`` and kept up with them as they grow."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Decision
from ahp_toolkit.decisions.candidates import WHOLE, Ruled, Slice
from ahp_toolkit.decisions.jsonl import logs, read_bytes, whole
from ahp_toolkit.decisions.log import Entry, entry_from_json, majority, when
from ahp_toolkit.decisions.mask_history import SETTLED as SETTLED
from ahp_toolkit.decisions.mask_history import Case
from ahp_toolkit.decisions.proposals import FOLDER as PROPOSED
from ahp_toolkit.decisions.proposals import every, firsts

_NOTHING = Case()


@dataclass
class _Log:
    path: Path
    offset: int = 0
    inode: int = 0
    line: int = 0
    ended: bool = True  # whether the last line that was read had its line end

    def replaced(self) -> bool:
        """Whether the file is another one or shorter than what was read of it, and must be read anew."""
        said = self.path.stat()
        return bool(self.offset) and (said.st_ino != self.inode or said.st_size < self.offset)

    def fresh(self) -> Iterator[Entry]:
        """Entries since the last look. What stands before a bad line is read; the line itself is told at every look.

        Raises:
            UserError: at a line that is no decision; at the first look, when acknowledged lines are missing or changed.
        """
        if not self.offset:
            read_bytes(self.path)
        with self.path.open("rb") as f:
            self.inode = os.fstat(f.fileno()).st_ino
            f.seek(self.offset)
            data = whole(f.read())
        if not self.ended and data.startswith(b"\n"):  # it has come since
            data, self.offset, self.ended = data[1:], self.offset + 1, True
        left = len(data)
        for line in data.removesuffix(b"\n").split(b"\n") if data else []:
            entry = self._entry(line) if line.strip() else None
            self.ended = left > len(line)  # else a last line that lacks its line end
            self.offset += len(line) + self.ended
            left -= len(line) + 1
            self.line += 1
            if entry is not None:
                yield entry

    def _entry(self, line: bytes) -> Entry:
        try:
            return entry_from_json(line.decode())
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
            raise UserError(
                f"{self.path}, line {self.line + 1}: expected one decision as JSON ({e}); mend or remove the line"
            ) from e


@contextmanager
def _telling(told: list[str]) -> Iterator[None]:
    """Note what cannot be read."""
    try:
        yield
    except (UserError, OSError) as e:
        told.append(str(e))


@dataclass
class Words:
    """Standing words by candidate and reviewer. ``refresh`` and ``follow`` read what logs and proposals have gained."""

    folder: Path
    #: whose candidates count; words on others are read and passed over
    piece: Slice = WHOLE
    #: candidate ids -> digests of the build's masks (`about.Case.first`); None: read from ROOT/parse
    firsts: Callable[[Collection[str]], Mapping[str, str]] | None = None
    _logs: dict[Path, _Log] = field(default_factory=dict)
    _parts: int = 0
    _cases: dict[str, Case] = field(default_factory=dict)
    #: reviewer -> {candidate id: last word}, oldest word first
    by_reviewer: dict[str, dict[str, Decision]] = field(default_factory=dict)
    #: what could not be read at the last look, in one line; '' where all could
    trouble: str = ""
    #: candidate id -> who has decided on its newest mask
    answered: dict[str, set[str]] = field(default_factory=dict)
    #: (candidate id, reviewer, at, verdict, '' for a retraction) of every entry ever read or appended
    entries: set[tuple[str, str, str, str]] = field(default_factory=set)
    _divided: set[str] = field(default_factory=set)
    _nowhere: set[str] = field(default_factory=set)  # candidates that ROOT/parse does not have

    def refresh(self) -> set[str]:
        """Read on; returns the candidates on which something new was said.

        Raises:
            UserError: when a log has a line that is no decision or is gone, or a proposal is damaged.
        """
        changed = self.follow()
        if self.trouble:
            raise UserError(self.trouble)
        return changed

    def follow(self) -> set[str]:
        """As `refresh`, but what cannot be read is passed over and told in ``trouble``: all the rest counts."""
        told: list[str] = []
        changed: set[str] = set()
        with _telling(told):
            changed |= self._proposed()
        paths: list[Path] = []
        with _telling(told):
            paths = logs(self.folder)
        for path in paths or sorted(self.folder.glob("*.jsonl")):
            log = self._logs.setdefault(path, _Log(path))
            with _telling(told):
                if log.replaced():
                    return self._anew()
                for entry in log.fresh():
                    if self.piece.holds(entry.candidate_id):
                        self._take(entry)
                        changed.add(entry.candidate_id)
        with _telling(told):
            self._look_up(changed)
        self.trouble = told[0] if told else ""
        return changed

    def _look_up(self, changed: Collection[str]) -> None:
        """Learn the build's masks where a word names one that nobody else has brought."""
        unsure = {cid for cid in changed if self.case(cid).unsure} - self._nowhere
        if not unsure:
            return
        found = self.firsts(unsure) if self.firsts else firsts(self.folder.parent, unsure)
        for cid, first in found.items():
            self._cases[cid].first = first
            self._judge(cid)
        self._nowhere |= unsure - found.keys()

    def _anew(self) -> set[str]:
        for store in (self._logs, self._cases, self.by_reviewer, self.answered):
            store.clear()
        self.entries.clear()
        self._divided.clear()
        self._parts = 0
        return self.follow()

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
        self.heard(entry)
        mine = self.by_reviewer.setdefault(reviewer, {})
        mine.pop(cid, None)
        last = case.last().get(reviewer)
        if last is not None:
            mine[cid] = last.word
        self._judge(cid)

    def heard(self, entry: Entry) -> None:
        """Note that an entry is on a log, even where a bad line before it keeps it from being read."""
        verdict = entry.verdict if isinstance(entry, Decision) else ""
        self.entries.add((entry.candidate_id, entry.reviewer, entry.at, verdict))

    def _judge(self, cid: str) -> None:
        self.answered[cid] = self._cases[cid].answered()
        (self._divided.add if divided(self.said(cid)) else self._divided.discard)(cid)

    def said(self, candidate_id: str) -> list[Decision]:
        """The final words on a candidate that count, one a reviewer."""
        return [d for d in self.case(candidate_id).counted() if not d.provisional]

    def case(self, candidate_id: str) -> Case:
        """What stands on a candidate."""
        return self._cases.get(candidate_id, _NOTHING)

    @property
    def renewed(self) -> list[str]:
        """Candidates with a mask that was proposed or mended."""
        return [cid for cid, c in self._cases.items() if c.proposals or any(w.brings for w in c.words)]

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
    return max(settled, key=lambda d: when(d.at)) if settled else majority(said) if said else None


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
