"""One reviewer's sitting, on the server's side: the queue, the pictures, and words that reach the log before all else.

No fiftyone here. What the panel shows as saved is on the log; the database is told afterwards (``mirror``), and a
database that is away loses nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import REASONS, VERDICTS, Decision, Segmented
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Slice
from ahp_toolkit.decisions.log import FOLDER, Retraction, append, check_name, now
from ahp_toolkit.decisions.mask_history import MENDED, SETTLED, digest
from ahp_toolkit.decisions.proposals import firsts, with_proposal
from ahp_toolkit.decisions.voices import Words, outcome, state, verdict_field
from ahp_toolkit.storage import files
from annotation.app.guide import page
from annotation.app.pictures import Pictures

ROOT_VARIABLE, REVIEWER_VARIABLE, SYNC_VARIABLE = "AHP_REVIEW_ROOT", "AHP_REVIEW_REVIEWER", "AHP_REVIEW_SYNC"
PLAN_VARIABLE, SLICE_VARIABLE = "AHP_REVIEW_PLAN", "AHP_REVIEW_SLICE"
VIEWS = ("todo", "disagreed", "mine", "discard", "preserve", "refine", "provisional")
FEW = 8  # candidates looked up one by one rather than with the whole table
PACE_OF, IDLE = 50, 60.0  # own pace: the mean of the last 50 decisions, a pause counted as at most 60 s
_DIGEST = re.compile("[0-9a-f]{16}")


class Refused(UserError):
    """What was asked makes no sense, however often it is asked again."""


class Order(Protocol):
    """A reviewer's queue."""

    def __call__(self, candidates: Candidates, words: Words, reviewer: str) -> Iterable[str]:
        """What they are still to be asked about, best first."""

    def left(self, candidates: Candidates, words: Words, reviewer: str) -> int:
        """How many that are."""


class ByScore:
    """Everything not decided on, by triage score where there is one, else by id; a new mask is asked about again."""

    def __call__(self, candidates: Candidates, words: Words, reviewer: str) -> Iterable[str]:
        """What is not decided on yet."""
        return (cid for cid in candidates.ordered if reviewer not in words.answered.get(cid, ()))

    def left(self, candidates: Candidates, words: Words, reviewer: str) -> int:
        """How many those are."""
        mine = words.mine(reviewer)
        return len(candidates) - sum(c in candidates and reviewer in words.answered[c] for c in mine)


def check_free(root: Path, reviewer: str) -> str:
    """A reviewer's name as it is, for the words on a build.

    Raises:
        UserError: when it cannot name a file and a field, or is new and its field is that of somebody who has spoken.
    """
    log = log_path(root, check_name(reviewer))
    others = (p.stem for p in log.parent.glob("*.jsonl") if p != log)
    other = next((o for o in others if verdict_field(o) == verdict_field(reviewer)), None)
    if other and not log.exists():
        raise UserError(f"--reviewer {reviewer!r}: too like {other!r}, who has spoken here already; take another name")
    return reviewer


def log_path(root: Path, reviewer: str) -> Path:
    """The log of a reviewer."""
    return root / FOLDER / f"{reviewer}.jsonl"


class Session:
    """What one reviewer's panel talks to. Safe to call from several threads.

    ``sync`` is ``decision`` (one fsync each) or ``second`` (one a second). ``mirror`` gets the ids on which something
    new was said; it must not block. ``piece`` is what this App holds of the build.
    """

    def __init__(
        self, root: Path, reviewer: str, order: Order | None = None, sync: str = "decision", piece: Slice = WHOLE
    ) -> None:
        if sync not in ("decision", "second"):
            raise UserError(f"{SYNC_VARIABLE}={sync!r}: expected 'decision' or 'second'")
        self.root, self.reviewer = root, check_free(root, reviewer)
        self.candidates = Candidates(root, piece)
        self._lock, self._drawing = threading.RLock(), threading.Lock()
        self.words = Words(root / FOLDER, piece, self._firsts)
        self.words.refresh()
        self.mirror: Callable[[Iterable[str]], None] = lambda ids: None
        self.mirror_state: Callable[[], str] = lambda: ""
        self._order, self._sync = order or ByScore(), sync
        self._pictures = Pictures(files.read_json(root / "build.json")["roots"])
        self._timer: threading.Timer | None = None

    def queue(self, view: str = "todo", seen: Sequence[str] = (), n: int = 8, back: int = 0) -> dict[str, Any]:
        """The next ``n`` candidates of a view that are not among ``seen``, and the progress.

        ``back`` adds the reviewer's last words as ``recent``, oldest first, so that they can be taken back after a
        reload.
        """
        if view not in VIEWS:
            raise Refused(f"view {view!r}: expected one of {', '.join(VIEWS)}")
        with self._lock:
            self.listen()
            held = set(seen)
            ids = list(islice((cid for cid in self._view(view) if cid not in held), max(0, min(n, 64))))
            mine = self.words.mine(self.reviewer)
            recent = [c for c in islice(reversed(mine), back) if c in self.candidates][::-1] if back > 0 else []
        return {
            "items": [self.item(cid) for cid in ids],
            "recent": [self.item(cid) for cid in recent],
            "progress": self.progress(),
        }

    def _view(self, view: str) -> Iterator[str]:
        mine, candidates = self.words.mine(self.reviewer), self.candidates
        if view == "todo":
            return iter(self._order(candidates, self.words, self.reviewer))
        if view == "disagreed":
            return (cid for cid in self.words.disagreed() if cid in candidates)
        if view == "mine":
            return (cid for cid in reversed(list(mine)) if cid in candidates)
        if view == "provisional":
            return (c for c in candidates.ordered if c in candidates.ruled and not self.words.said(c))
        return (cid for cid in candidates.ordered if self._verdict(cid) == view)

    def _verdict(self, cid: str) -> str | None:
        end = outcome(self.words.said(cid)) or self.candidates.ruled.get(cid)
        return end.verdict if end else None

    def shown(self, candidate_id: str) -> Mask:
        """The mask that the panel shows of a candidate."""
        self._check_id(candidate_id)
        with self._lock:
            return self.words.case(candidate_id).shown(self._record(candidate_id).mask)

    def item(self, candidate_id: str) -> dict[str, Any]:
        """One candidate for the panel: pictures and facts."""
        first = self._record(candidate_id)
        with self._lock:
            case = self.words.case(candidate_id)
            mask, s = case.shown(first.mask), with_proposal(first, case.proposals[-1] if case.proposals else None)
            said = self.words.said(candidate_id)
        with self._drawing:
            pictures = self._pictures.of(s if mask == s.mask else replace(s, mask=mask, parsing=None))
        ruled = self.candidates.ruled.get(candidate_id)
        mine = next((d for d in said if d.reviewer == self.reviewer), None)
        return pictures | {
            "id": candidate_id,
            "shown": digest(mask),
            "facts": facts(s),
            "score": self.candidates.scores.get(candidate_id),
            "ruled": {"verdict": ruled.verdict, "reason": ruled.reason} if ruled else None,
            "mine": _word(mine) if mine else None,
            "said": [_word(d) for d in said],
        }

    def decide(
        self,
        candidate_id: str,
        verdict: str,
        reason: str = "",
        seconds: float = 0.0,
        at: str = "",
        settle: bool = False,
        shown: str = "",
    ) -> dict[str, Any]:
        """A word, or with verdict '' the taking back of the last one: on the log when this returns.

        ``at`` (the panel's clock) makes it safe to send a word again whose answer was lost: it counts once. ``shown``
        is the item's: the mask that the word is about; '' for the one that would be shown now. Where taking back leaves
        another mask shown than that, the answer brings its ``item``.

        Raises:
            Refused: when it is no word on a candidate. After any other error it may be said again.
        """
        with self._lock:
            if not shown:
                self.listen()
            entry = self._entry(candidate_id, verdict, reason, seconds, at, SETTLED if settle else "", shown)
            if not at or (candidate_id, self.reviewer, entry.at, verdict) not in self.words.entries:
                self._append(entry)
            mine = self.words.mine(self.reviewer).get(candidate_id)
            other = verdict == "" and shown not in ("", digest(self.shown(candidate_id)))
        said = {"mine": _word(mine) if mine else None, "progress": self.progress()}
        return said | {"item": self.item(candidate_id)} if other else said

    def correct(self, candidate_id: str, mask: Mask) -> None:
        """Log a mended mask: a refine whose ``corrected`` mask is shown from now on; it is asked about again."""
        self._check_id(candidate_id)
        with self._lock:
            self._append(Decision(candidate_id, "refine", self.reviewer, "bad_mask", mask, at=now(), note=MENDED))

    def _record(self, candidate_id: str) -> Segmented:
        with self._drawing:
            return self.candidates.record(candidate_id)

    def _firsts(self, wanted: Collection[str]) -> Mapping[str, str]:
        if len(wanted) > FEW:
            return firsts(self.root, wanted)
        return {cid: digest(self._record(cid).mask) for cid in wanted if cid in self.candidates}

    def _entry(
        self, candidate_id: str, verdict: str, reason: str, seconds: float, at: str, note: str, shown: str
    ) -> Decision | Retraction:
        self._check_id(candidate_id)
        when = _time(at)
        if verdict == "":
            return Retraction(candidate_id, self.reviewer, when)
        if verdict not in VERDICTS or reason not in ("", *REASONS):
            raise Refused(f"{candidate_id}: no such verdict and reason: {verdict!r}, {reason!r}")
        if shown and not _DIGEST.fullmatch(shown):
            raise Refused(f"{candidate_id}: no such mask: {shown!r}")
        case = self.words.case(candidate_id)
        shown = shown or digest(self.shown(candidate_id))
        took = round(seconds, 3) if math.isfinite(seconds) and seconds > 0 else 0.0
        mask = case.other(shown) if verdict == "preserve" else None  # what goes elsewhere without the logs keeps it
        return Decision(candidate_id, verdict, self.reviewer, reason, mask, took, when, note, shown=shown)

    def _check_id(self, candidate_id: str) -> None:
        if candidate_id not in self.candidates:
            raise Refused(f"{candidate_id}: no such candidate in {self.root}; was it built anew? Reload the page")

    def _append(self, entry: Decision | Retraction) -> None:
        append(log_path(self.root, self.reviewer), entry, sync=self._sync == "decision")
        self.words.heard(entry)
        if self._sync == "second" and self._timer is None:
            self._timer = threading.Timer(1.0, self._flush)
            self._timer.daemon = True
            self._timer.start()
        self.listen()

    def _flush(self) -> None:
        self._timer = None
        fd = os.open(log_path(self.root, self.reviewer), os.O_WRONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def progress(self) -> dict[str, Any]:
        """Counts, the reviewer's own pace (s a sample, None before the first), and what does not keep up.

        ``database`` is the mirror's state; ``trouble`` what of others' words cannot be read.
        """
        with self._lock:
            mine = {c: d for c, d in self.words.mine(self.reviewer).items() if c in self.candidates}
            last = [min(d.seconds, IDLE) for d in islice(reversed(mine.values()), PACE_OF) if d.seconds > 0]
            pace = sum(last) / len(last) if last else None
            left = self._order.left(self.candidates, self.words, self.reviewer)
            return {
                "session": f"{self.reviewer}@{self.root.resolve()}{self.candidates.piece.tail}",
                "reviewer": self.reviewer,
                "total": len(self.candidates),
                "done": len(mine),
                "left": left,
                "pace": pace,
                "eta": left * pace if pace is not None else None,
                "counts": dict(Counter(d.verdict for d in mine.values())),
                "disagreed": len(self.words.disagreed()),
                "database": self.mirror_state(),
                "trouble": self.words.trouble,
            }

    def listen(self) -> None:
        """Read what others have logged and pass it on to the mirror; what cannot be read is told by ``progress``."""
        with self._lock:
            self.mirror(self.words.follow())

    def state(self, candidate_id: str) -> dict[str, Any]:
        """The database's fields for a candidate; see `words.state`."""
        with self._lock:
            return state(self.words.said(candidate_id), self.candidates.ruled.get(candidate_id))

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


def _word(d: Decision) -> dict[str, Any]:
    return {"reviewer": d.reviewer, "verdict": d.verdict, "reason": d.reason, "at": d.at, "note": d.note}


def _time(at: str) -> str:
    with suppress(ValueError):
        if at and len(at) <= 40 and datetime.fromisoformat(at).tzinfo is not None:
            return at
    return now()


@cache
def current() -> Session:
    """The session of this server process, from the environment that ``ahp review`` set."""
    for name in (ROOT_VARIABLE, REVIEWER_VARIABLE):
        if not os.environ.get(name):
            raise UserError(f"{name} is not set; start the App with ahp review")
    from annotation.session.queue import Handed, Plan

    root = Path(os.environ[ROOT_VARIABLE])
    plan = Plan(**json.loads(os.environ.get(PLAN_VARIABLE, "{}")))
    sync = os.environ.get(SYNC_VARIABLE, "decision")
    piece = Slice.parse(os.environ.get(SLICE_VARIABLE, "1/1"))
    return Session(root, os.environ[REVIEWER_VARIABLE], Handed(root, plan, piece), sync, piece)
