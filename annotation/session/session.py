"""One reviewer's session on the server's side: the queue, the pictures, and decisions that reach the log first.

No fiftyone here. What the panel shows as saved is on the log; the database is written afterwards (``on_change``), and a
database that is away loses nothing.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import REASONS, Decision, Segmented
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Slice
from ahp_toolkit.decisions.log import SETTLED, Entry, Retraction, path_of
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.decisions.proposals import with_mask
from ahp_toolkit.decisions.state import Case, Decisions, verdict_field
from ahp_toolkit.storage.build_folder import Build
from annotation.app.guide import page
from annotation.app.pictures import Pictures

ROOT_VARIABLE, REVIEWER_VARIABLE, SYNC_VARIABLE = "AHP_REVIEW_ROOT", "AHP_REVIEW_REVIEWER", "AHP_REVIEW_SYNC"
PLAN_VARIABLE, SLICE_VARIABLE = "AHP_REVIEW_PLAN", "AHP_REVIEW_SLICE"
VIEWS = ("todo", "disagreed", "mine", "discard", "preserve", "refine", "provisional")
PACE_OF, IDLE = 50, 60.0  # own pace: the mean of the last 50 decisions, a pause counted as at most 60 s


class Refused(UserError):
    """A request that makes no sense, however often it is sent again."""


@dataclass(frozen=True)
class KeyPress:
    """A decision as the panel sends it; with verdict '' the reviewer's last decision on the candidate is taken back.

    ``at`` is the panel's clock: a decision sent again because its answer was lost counts once. ``mask_digest`` names
    the mask that the panel showed; '' for the current one. ``settle``: the decision settles a disagreement.
    """

    candidate_id: str
    verdict: str
    reason: str = ""
    seconds: float = 0.0
    at: str = ""
    settle: bool = False
    mask_digest: str = ""

    @classmethod
    def of(cls, p: Mapping[str, Any]) -> KeyPress:
        """The panel's parameters.

        Raises:
            Refused: when they are no decision on a candidate.
        """
        try:
            texts = (str(p.get(name, "")) for name in ("reason", "at", "mask_digest"))
            reason, at, mask_digest = texts
            seconds = float(p.get("seconds", 0))
            return cls(
                str(p["candidate_id"]), str(p["verdict"]), reason, seconds, at, bool(p.get("settle")), mask_digest
            )
        except (KeyError, TypeError, ValueError) as e:
            raise Refused(f"no decision on a candidate: {e!r}") from e


class Order(Protocol):
    """A reviewer's queue."""

    def __call__(self, state: Decisions, reviewer: str) -> Iterable[str]:
        """The candidates they are still to decide on, best first."""

    def left(self, state: Decisions, reviewer: str) -> int:
        """How many there are."""


class ByScore:
    """Everything that the reviewer has not decided on, by triage score where there is one, else by id."""

    def __call__(self, state: Decisions, reviewer: str) -> Iterable[str]:
        """What is not decided on yet; a new mask comes again."""
        return (cid for cid in state.candidates.ordered if reviewer not in state.answered.get(cid, ()))

    def left(self, state: Decisions, reviewer: str) -> int:
        """How many those are."""
        mine = state.mine(reviewer)
        return len(state.candidates) - sum(c in state.candidates and reviewer in state.answered[c] for c in mine)


def check_free(root: Path, reviewer: str) -> str:
    """A reviewer's name as it is, for decisions on a build.

    Raises:
        UserError: when it cannot name a file and a field, or is new and its field is that of another reviewer.
    """
    own = path_of(root, log.check_name(reviewer))
    others = (p.stem for p in own.parent.glob("*.jsonl") if p != own)
    other = next((o for o in others if verdict_field(o) == verdict_field(reviewer)), None)
    if other and not own.exists():
        raise UserError(f"--reviewer {reviewer!r}: too like {other!r}, who reviews here already; take another name")
    return reviewer


class Session:
    """The panel of one reviewer talks to this. Safe to call from several threads.

    ``sync`` is ``decision`` (one fsync each) or ``second`` (one a second). ``on_change`` gets the ids on which
    something is new; it must not block. ``piece`` is this App's part of the build.
    """

    def __init__(
        self, root: Path, reviewer: str, order: Order | None = None, sync: str = "decision", piece: Slice = WHOLE
    ) -> None:
        if sync not in ("decision", "second"):
            raise UserError(f"{SYNC_VARIABLE}={sync!r}: expected 'decision' or 'second'")
        self.root, self.reviewer = root, check_free(root, reviewer)
        self.candidates = Candidates(root, piece)
        self._lock, self._drawing = threading.RLock(), threading.Lock()
        self.state = Decisions(root, self.candidates).refresh()
        self.on_change: Callable[[Iterable[str]], None] = lambda ids: None
        self.database_state: Callable[[], str] = lambda: ""
        self._order, self._sync = order or ByScore(), sync
        self._pictures = Pictures(Build(root).data_roots)
        self._timer: threading.Timer | None = None

    def queue(self, view: str = "todo", seen: Sequence[str] = (), n: int = 8, back: int = 0) -> dict[str, Any]:
        """The next ``n`` candidates of a view that are not among ``seen``, and the progress.

        ``back`` adds the reviewer's last decisions as ``recent``, oldest first, so that they can be taken back after a
        reload.
        """
        if view not in VIEWS:
            raise Refused(f"view {view!r}: expected one of {', '.join(VIEWS)}")
        with self._lock:
            self.follow()
            held = set(seen)
            ids = list(islice((cid for cid in self._view(view) if cid not in held), max(0, min(n, 64))))
            mine = self.state.mine(self.reviewer)
            recent = [c for c in islice(reversed(mine), back) if c in self.candidates][::-1] if back > 0 else []
        return {
            "items": [self.item(cid) for cid in ids],
            "recent": [self.item(cid) for cid in recent],
            "progress": self.progress(),
        }

    def _view(self, view: str) -> Iterator[str]:
        mine, candidates = self.state.mine(self.reviewer), self.candidates
        if view == "todo":
            return iter(self._order(self.state, self.reviewer))
        if view == "disagreed":
            return (cid for cid in self.state.disagreed() if cid in candidates)
        if view == "mine":
            return (cid for cid in reversed(list(mine)) if cid in candidates)
        if view == "provisional":
            return (c for c in candidates.ordered if c in candidates.ruled and not self.state.finals(c))
        return (cid for cid in candidates.ordered if self._verdict(cid) == view)

    def _verdict(self, cid: str) -> str | None:
        end = Merge()(self.state.finals(cid)) or self.candidates.ruled.get(cid)
        return end.verdict if end else None

    def shown(self, candidate_id: str) -> Mask:
        """The mask that the panel shows of a candidate."""
        self._check_id(candidate_id)
        with self._lock:
            return self.state.case(candidate_id).current_mask(self.candidates.record(candidate_id).mask)

    def item(self, candidate_id: str) -> dict[str, Any]:
        """One candidate for the panel: pictures and facts."""
        first = self.candidates.record(candidate_id)
        with self._lock:
            case = self.state.case(candidate_id)
            s = with_mask(first, case.proposals, case.current_mask(first.mask))
            decisions = self.state.finals(candidate_id)
        with self._drawing:
            proposed = any(p.segmented.mask == s.mask for p in case.proposals)
            pictures = self._pictures.of(s if proposed or s.mask == first.mask else replace(s, parsing=None))
        ruled = self.candidates.ruled.get(candidate_id)
        mine = next((d for d in decisions if d.reviewer == self.reviewer), None)
        return pictures | {
            "id": candidate_id,
            "mask_digest": s.mask.digest,
            "facts": facts(s),
            "score": self.candidates.scores.get(candidate_id),
            "ruled": {"verdict": ruled.verdict, "reason": ruled.reason} if ruled else None,
            "mine": _brief(mine) if mine else None,
            "decisions": [_brief(d) for d in decisions],
        }

    def decide(self, press: KeyPress) -> dict[str, Any]:
        """Log a decision, or take the last one back: on the log when this returns.

        Where taking back leaves another mask shown than the panel's, the answer holds its ``item``.

        Raises:
            Refused: when it is no decision on a candidate. After any other error it may be sent again.
        """
        cid = press.candidate_id
        self._check_id(cid)
        with self._lock:
            if not press.mask_digest:
                self.follow()
            entry = self._entry(press, self.state.case(cid))
            if entry is not None:
                self._append(entry)
            mine = self.state.mine(self.reviewer).get(cid)
            other = press.verdict == "" and press.mask_digest not in ("", self.shown(cid).digest)
        answer = {"mine": _brief(mine) if mine else None, "progress": self.progress()}
        return answer | {"item": self.item(cid)} if other else answer

    def correct(self, candidate_id: str, mask: Mask) -> None:
        """Log a corrected mask: a refine of the mask shown that carries the new one, which comes back."""
        with self._lock:
            old = self.shown(candidate_id).digest
            at = self._later(log.now(), self.state.case(candidate_id))
            self._append(
                Decision(candidate_id, "refine", self.reviewer, old, "bad_mask", mask, at=at, note="corrected")
            )

    def _entry(self, press: KeyPress, case: Case) -> Entry | None:
        """The log's entry for a key press; None where it is logged already or there is nothing to take back."""
        at = self._time(press.at)
        if press.verdict == "":
            own = [d for d in case.decisions if d.reviewer == self.reviewer]
            known = log.retraction_id(press.candidate_id, self.reviewer, at) in case.entries
            return Retraction(press.candidate_id, self.reviewer, own[-1].id, at) if own and not known else None
        if press.reason not in ("", *REASONS):
            raise Refused(f"{press.candidate_id}: no such reason: {press.reason!r}")
        shown = press.mask_digest or self.shown(press.candidate_id).digest
        took = round(press.seconds, 3) if math.isfinite(press.seconds) and press.seconds > 0 else 0.0
        note = SETTLED if press.settle else ""
        carried = case.masks.get(shown)  # what goes elsewhere without the other logs keeps its mask
        try:
            d = Decision(press.candidate_id, press.verdict, self.reviewer, shown, press.reason, carried, took, at, note)
        except ValueError as e:
            raise Refused(f"{press.candidate_id}: {e}") from e
        return None if d.id in case.entries else replace(d, at=self._later(at, case))

    def _later(self, at: str, case: Case) -> str:
        """The time, moved behind the reviewer's last entry on the candidate."""
        return log.after(at, (e.at for e in case.entries.values() if e.reviewer == self.reviewer))

    def _time(self, at: str) -> str:
        """The panel's time in UTC; this machine's where it sends none."""
        try:
            return log.utc(at)
        except ValueError:
            return log.now()

    def _check_id(self, candidate_id: str) -> None:
        if candidate_id not in self.candidates:
            raise Refused(f"{candidate_id}: no such candidate in {self.root}; was it built again? Reload the page")

    def _append(self, entry: Entry) -> None:
        path = path_of(self.root, self.reviewer)
        log.append(path, entry, sync=self._sync == "decision")
        if self._sync == "second" and self._timer is None:
            self._timer = threading.Timer(1.0, self._flush, [path])
            self._timer.daemon = True
            self._timer.start()
        self.follow()

    def _flush(self, path: Path) -> None:
        self._timer = None
        log.sync(path)

    def progress(self) -> dict[str, Any]:
        """Counts, the reviewer's own pace (s a sample, None before the first), and what does not keep up.

        ``database`` is the database's state; ``trouble`` names a log of others that cannot be read.
        """
        with self._lock:
            mine = {c: d for c, d in self.state.mine(self.reviewer).items() if c in self.candidates}
            last = [min(d.seconds, IDLE) for d in islice(reversed(mine.values()), PACE_OF) if d.seconds > 0]
            pace = sum(last) / len(last) if last else None
            left = self._order.left(self.state, self.reviewer)
            return {
                "session": f"{self.reviewer}@{self.root.resolve()}{self.candidates.piece.tail}",
                "reviewer": self.reviewer,
                "total": len(self.candidates),
                "done": len(mine),
                "left": left,
                "pace": pace,
                "eta": left * pace if pace is not None else None,
                "counts": dict(Counter(d.verdict for d in mine.values())),
                "disagreed": len(self.state.disagreed()),
                "database": self.database_state(),
                "trouble": self.state.trouble,
            }

    def follow(self) -> None:
        """Read what others have logged and pass the changed ids on; ``progress`` names a log that cannot be read."""
        with self._lock:
            self.on_change(self.state.follow())

    def row(self, candidate_id: str) -> dict[str, Any]:
        """The database's fields for a candidate."""
        with self._lock:
            return self.state.row(candidate_id)

    def guide(self) -> str:
        """GUIDE.md as one HTML page with its pictures inside."""
        return page()


def facts(s: Segmented) -> dict[str, Any]:
    """What is known of a candidate before anybody looks, for people to read."""
    c, box = s.candidate, s.mask.box
    near = c.neighbours
    return {
        "source": c.image.source,
        "photo": f"{s.mask.width} x {s.mask.height} px",
        "person": f"{box.width:.0f} x {box.height:.0f} px, mask {s.mask.area} px²",
        "mask": f"{s.segmenter.split('@')[0]}, score {s.score:.2f}",
        "parsing": s.parser.split("@")[0] if s.parsing is not None else "",
        "flags": [name for name in c.flags.__slots__ if getattr(c.flags, name)],
        "neighbours": near.count,
        "box_cover": round(near.box_cover, 3),
        "mask_contact": None if near.mask_contact is None else round(near.mask_contact, 3),
        "crowd": near.crowd,
        "border_touch": s.border_touch,
    }


def _brief(d: Decision) -> dict[str, Any]:
    return {"reviewer": d.reviewer, "verdict": d.verdict, "reason": d.reason, "at": d.at, "note": d.note}


@cache
def current() -> Session:
    """The session of this server process, from the environment that ``ahp review`` set."""
    for name in (ROOT_VARIABLE, REVIEWER_VARIABLE):
        if not os.environ.get(name):
            raise UserError(f"{name} is not set; start the App with ahp review")
    from annotation.session.queue import LeasedOrder, Plan

    root = Path(os.environ[ROOT_VARIABLE])
    plan = Plan(**json.loads(os.environ.get(PLAN_VARIABLE, "{}")))
    sync = os.environ.get(SYNC_VARIABLE, "decision")
    piece = Slice.parse(os.environ.get(SLICE_VARIABLE, "1/1"))
    return Session(root, os.environ[REVIEWER_VARIABLE], LeasedOrder(root, plan, piece), sync, piece)
