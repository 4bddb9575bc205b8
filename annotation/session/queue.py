"""Which reviewer decides on which candidate: a shared queue with leases, or shards by hash; some go to several.

Leases are lines of ROOT/decisions/leases/leases.jsonl, appended under the file's lock, so that any number of processes
may read it at once. A lease that is never answered runs out. Time here never goes back: it is the highest time on the
file plus what this process's monotonic clock has counted since, so a clock set back neither keeps nor frees anything.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Slice
from ahp_toolkit.decisions.log import FOLDER
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.decisions.triage.triage import ordered

#: candidate id -> names of the reviewers who have decided on it
Seen = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Plan:
    """How the work is shared.

    Attributes:
        mode: ``shared``: one queue, the next one free; ``shards``: every candidate belongs to reviewers by hash.
        reviewers: their names, for ``shards``.
        overlap: share in [0, 1] of candidates that ``copies`` reviewers see, chosen by hash; the others see one.
        copies: reviewers of an overlapping candidate.
        lease_s: how long a leased candidate is kept for a reviewer, s.

    Raises:
        UserError: when a value is out of its range.
    """

    mode: Literal["shared", "shards"] = "shared"
    reviewers: tuple[str, ...] = ()
    overlap: float = 0.0
    copies: int = 2
    lease_s: float = 600.0

    def __post_init__(self) -> None:
        if self.mode not in ("shared", "shards"):
            raise UserError(f"review queue: expected shared or shards, got {self.mode!r}")
        if self.mode == "shards" and not self.reviewers:
            raise UserError("review queue: shards need the reviewers' names")
        if not 0 <= self.overlap <= 1:
            raise UserError(f"--overlap: expected a share in [0, 1], got {self.overlap:g}")
        if self.copies < 2 or self.lease_s <= 0:
            raise UserError("review queue: expected 2 or more copies, and leases of more than 0 s")

    def copies_of(self, candidate_id: str) -> int:
        """How many reviewers are to see a candidate."""
        return self.copies if hashing.unit_hash("overlap", candidate_id) < self.overlap else 1

    def assigned(self, candidate_id: str) -> tuple[str, ...]:
        """The reviewers a candidate belongs to, in mode ``shards``; another reviewer more moves few candidates."""
        ranked = sorted(self.reviewers, key=lambda r: hashing.unit_hash("shard", candidate_id, r))
        return tuple(ranked[: self.copies_of(candidate_id)])


class Leases:
    """The leases of one build folder. Not for several threads at once; any number of processes."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = root / FOLDER / "leases" / "leases.jsonl"
        self._clock = clock
        self._offset = 0
        self._now = clock()
        self._ticked = time.monotonic()
        self._held: dict[str, dict[str, float]] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the file's lock, having read what others have written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._read(fd)
            self._fd = fd
            yield
        finally:
            os.close(fd)

    def _read(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size < self._offset:  # somebody emptied the file: read it again
            self._offset = 0
            self._held.clear()
        data = os.pread(fd, size - self._offset, self._offset)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a line cut short by a crash: it was never answered for
            os.ftruncate(fd, self._offset + whole)
        self._offset += whole
        for line in data[:whole].splitlines():
            self._take(line)
        ticked = time.monotonic()
        self._now = max(self._now + ticked - self._ticked, self._clock())
        self._ticked = ticked

    def _take(self, line: bytes) -> None:
        try:
            d = json.loads(line)
            cid, reviewer, at, until = d["candidate_id"], d["reviewer"], float(d["at"]), float(d["until"])
        except (ValueError, TypeError, KeyError):
            return  # a damaged lease frees its candidate: two reviewers decide on it, nothing is lost
        self._now = max(self._now, at)
        self._held.setdefault(cid, {})[reviewer] = until

    def holders(self, candidate_id: str) -> set[str]:
        """Who holds a lease on a candidate now."""
        return {r for r, until in self._held.get(candidate_id, {}).items() if until > self._now}

    def take(self, candidate_ids: Sequence[str], reviewer: str, seconds: float) -> None:
        """Write leases (0 s gives them back); only inside `hold`."""
        until = self._now + seconds
        lines = [
            json.dumps({"candidate_id": c, "reviewer": reviewer, "at": self._now, "until": until})
            for c in candidate_ids
        ]  # fmt: skip
        data = "".join(f"{line}\n" for line in lines).encode()
        # a lease lost with the machine's power costs nothing: no fsync; a short write is cut off by the next reader
        if os.write(self._fd, data) == len(data):
            self._offset += len(data)
            for c in candidate_ids:
                self._held.setdefault(c, {})[reviewer] = until


class Queue:
    """Candidates in an order, leased to reviewers by a plan.

    Args:
        root: the build folder.
        order: candidate ids, the most urgent first.
        plan: how the work is shared.
        first: candidates that come before all others (see `state.Case.reopened`).
    """

    def __init__(
        self,
        root: Path,
        order: Sequence[str],
        plan: Plan | None = None,
        first: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plan = plan or Plan()
        self._order = [*(c for c in order if c in first), *(c for c in order if c not in first)]
        self._copies = {c: self.plan.copies_of(c) for c in order}
        self._shares: dict[str, set[str]] = {}
        self._leases = Leases(root, clock)

    def add(self, candidate_ids: Sequence[str]) -> None:
        """Add candidates before all others."""
        self._order = [*candidate_ids, *self._order]
        self._copies |= {c: self.plan.copies_of(c) for c in candidate_ids}
        self._shares.clear()

    def next_for(self, reviewer: str, n: int, seen: Seen, skip: Collection[str] = ()) -> list[str]:
        """Up to ``n`` candidates for a reviewer, in order; what they hold a lease on comes again, renewed.

        Args:
            reviewer: whose queue.
            n: how many at most.
            seen: who has decided on what.
            skip: candidates that the reviewer has before them already; their leases are left as they are.
        """
        if self.plan.mode == "shards":
            return self._some(n, lambda c: self._mine(c, reviewer, seen), skip)
        with self._leases.hold():
            got = self._some(n, lambda c: self._free(c, reviewer, seen), skip)
            if got:
                self._leases.take(got, reviewer, self.plan.lease_s)
        return got

    def give_back(self, reviewer: str, candidate_ids: Sequence[str]) -> None:
        """Free what a reviewer holds and will not decide on."""
        with self._leases.hold():
            mine = [c for c in candidate_ids if reviewer in self._leases.holders(c)]
            if mine:
                self._leases.take(mine, reviewer, 0.0)

    def left(self, reviewer: str, seen: Seen) -> int:
        """How many candidates would still come to a reviewer if nobody else decided on any."""
        fits = self._mine if self.plan.mode == "shards" else self._wanted
        mine = self._belonging(reviewer)
        return len(mine) - sum(c in mine and not fits(c, reviewer, seen) for c in seen)

    def _belonging(self, reviewer: str) -> Collection[str]:
        """What could ever come to a reviewer; hashed once, so that counting costs no more than there are decisions."""
        if self.plan.mode == "shared":
            return self._copies
        if reviewer not in self._shares:
            self._shares[reviewer] = {c for c in self._order if reviewer in self.plan.assigned(c)}
        return self._shares[reviewer]

    def _some(self, n: int, fits: Callable[[str], bool], skip: Collection[str]) -> list[str]:
        got: list[str] = []
        for cid in self._order:
            if len(got) >= n:
                break
            if cid not in skip and fits(cid):
                got.append(cid)
        return got

    def _mine(self, cid: str, reviewer: str, seen: Seen) -> bool:
        return reviewer not in seen.get(cid, ()) and reviewer in self.plan.assigned(cid)

    def _wanted(self, cid: str, reviewer: str, seen: Seen) -> bool:
        done = seen.get(cid, ())
        return reviewer not in done and len(done) < self._copies[cid]

    def _free(self, cid: str, reviewer: str, seen: Seen) -> bool:
        if not self._wanted(cid, reviewer, seen):
            return False
        others = (self._leases.holders(cid) | set(seen.get(cid, ()))) - {reviewer}
        return len(others) < self._copies[cid]


class LeasedOrder:
    """A session's queue (`session.Order`): by triage where it has run, leased by the plan.

    Candidates are leased a few at a time as they are taken from the iterator; with a ``piece``, of it alone. A new
    mask, proposed or corrected, comes back into the queue, also where triage had discarded the mask before it unseen.
    """

    def __init__(self, root: Path, plan: Plan | None = None, piece: Slice = WHOLE) -> None:
        state = Decisions(root, Candidates(root, piece)).refresh()
        new_masks = {cid for cid, case in state.cases.items() if case.masks}
        order = [cid for cid in ordered(root, state.reopened | new_masks) if piece.holds(cid)]
        self._queue, self._order = Queue(root, order, plan, state.reopened), frozenset(order)
        self._unseen: set[str] | None = None  # what triage discards, and nobody decides on

    def __call__(self, state: Decisions, reviewer: str) -> Iterator[str]:
        """What the reviewer is still to decide on, best first."""
        self._add_new_masks(state)
        leased: list[str] = []
        while more := self._queue.next_for(reviewer, 4, state.answered, leased):
            leased += more
            yield from more

    def left(self, state: Decisions, reviewer: str) -> int:
        """How many would still come if nobody else decided."""
        self._add_new_masks(state)
        return self._queue.left(reviewer, state.answered)

    def _add_new_masks(self, state: Decisions) -> None:
        """Take in what triage had discarded unseen and has got another mask since."""
        if self._unseen is None:
            self._unseen = {cid for cid in state.candidates if cid not in self._order}
        new = sorted(cid for cid in state.answered.keys() & self._unseen if state.case(cid).reopened)
        if new:
            self._queue.add(new)
            self._unseen.difference_update(new)
