"""Editors and voters on real composites (paper §5.1), and the composites that all voters passed.

Each edit and each vote is a line of ROOT/compose/votes.jsonl with an id. An editor picks, nudges or rejects; others
vote on exactly what the editor left: a vote names the version it saw, and a later nudge makes it void. An edit names
the version of the proposal as it was made, and counts for no other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Placement
from ahp_toolkit.decisions.composites import FOLDER, Composite
from ahp_toolkit.decisions.log import after, append_line, check_name, now, read_objects, when
from ahp_toolkit.occlusion.place import ratio_of, scaled_size
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.lock import waiting

EDITS, VOTES, UNDO = ("pick", "nudge", "reject"), ("pass", "fail"), "undo"
ACTIONS = (*EDITS, *VOTES, UNDO)
MODES = ("edit", "vote", "done")
VOTERS = 2
Mode = Literal["edit", "vote", "done"]


@dataclass(frozen=True)
class View:
    """A proposal after all edits and votes: ``composite`` with the editor's placement, and its ``version``.

    ``status`` is open, picked or rejected; ``votes`` are those on this version; ``editors`` have changed or judged it.
    """

    composite: Composite
    version: str
    status: str = "open"
    editor: str = ""
    editors: frozenset[str] = frozenset()
    votes: dict[str, bool] = field(default_factory=dict)

    def passed(self, voters: int = VOTERS) -> bool:
        """Whether enough people who did not edit it have voted, and all of them passed it."""
        return self.status == "picked" and len(self.votes) >= voters and all(self.votes.values())


def log_of(root: Path) -> Path:
    """The log of everybody's edits and votes."""
    return root / FOLDER / "votes.jsonl"


def writing(root: Path) -> AbstractContextManager[None]:
    """One at a time: a vote is checked and logged, or the table of proposals is replaced. Waits."""
    return waiting(root / FOLDER / ".lock")


def begun(root: Path) -> bool:
    """Whether anybody has edited or voted."""
    return any(read_objects(log_of(root)))


def voters_of(root: Path) -> int:
    """How many voters a composite needs: the number kept last (`keep_voters`), else `VOTERS`.

    Raises:
        UserError: when the kept number is damaged.
    """
    path = _voters(root)
    if not path.exists():
        return VOTERS
    kept = files.read_json(path)
    n = kept.get("voters") if isinstance(kept, dict) else None
    if not isinstance(n, int) or n < 1:
        raise UserError(f"{path}: expected a number of voters; give ahp review compose --voters again")
    return n


def keep_voters(root: Path, voters: int) -> None:
    """Keep how many voters a composite needs, so that ``ahp build`` needs as many."""
    files.forget_dead(_voters(root))
    files.write_json(_voters(root), {"voters": voters})


def _voters(root: Path) -> Path:
    return root / FOLDER / "voters.json"


def read_composites(root: Path) -> dict[str, Composite]:
    """proposal id -> proposal.

    Raises:
        UserError: when nothing was proposed yet.
    """
    folder = root / FOLDER / "proposals"
    if not any(folder.glob("part-*.parquet")):
        raise UserError(f"{root}: no composites are proposed yet; run ahp review compose --root {root} first")
    return _composites(str(folder), str(hashing.stamp(parquet.parts(folder))))


@lru_cache(maxsize=4)
def _composites(folder: str, _stamp: str) -> dict[str, Composite]:
    return {c.proposal_id: c for c in parquet.read_records(Path(folder), Composite)}


def version_of(c: Composite) -> str:
    """Names a proposal's exact placement."""
    return hashing.digest_value([c.proposal_id, asdict(c.placement)])[:16]


def views(root: Path) -> dict[str, View]:
    """proposal id -> its `View` after all edits and votes."""
    return _views(root, read_composites(root))


def judged(root: Path, among: Mapping[str, Composite]) -> list[Composite]:
    """The proposals as they were made, ``among`` these, that somebody has edited or voted on; sorted by id."""
    return [among[pid] for pid, v in sorted(_views(root, among).items()) if v.editors or v.votes]


def _views(root: Path, among: Mapping[str, Composite]) -> dict[str, View]:
    actions = _actions(root)
    return {pid: _view(c, actions.get(pid, ())) for pid, c in among.items()}


def _actions(root: Path) -> dict[str, list[dict[str, Any]]]:
    """proposal id -> the edits and votes that nobody took back, oldest first; each id counts once."""
    by_id = {str(a.get("id")): a for a in read_objects(log_of(root))}
    retracted = {a.get("retracts") for a in by_id.values()}
    out: dict[str, list[dict[str, Any]]] = {}
    for key, a in sorted(by_id.items(), key=lambda x: when(str(x[1].get("at")))):
        if a.get("action") != UNDO and key not in retracted:
            out.setdefault(str(a.get("proposal_id")), []).append(a)
    return out


def _view(c: Composite, actions: Iterable[dict[str, Any]]) -> View:
    made = version_of(c)
    view = View(c, made)
    for a in actions:
        action, who = a["action"], str(a["reviewer"])
        if action in EDITS:
            if a.get("version") != made:
                continue  # an edit of another placement
            moved = nudged(c, a["dx"], a["dy"], a["scale"]) if action == "nudge" else c
            status = "rejected" if action == "reject" else "picked"
            votes = view.votes if version_of(moved) == view.version else {}
            votes = {v: ok for v, ok in votes.items() if v != who}
            view = View(moved, version_of(moved), status, who, view.editors | {who}, votes)
        elif a.get("version") == view.version and who not in view.editors:
            view = replace(view, votes=view.votes | {who: action == "pass"})
    return view


def nudged(c: Composite, dx: float, dy: float, scale: float) -> Composite:
    """A proposal moved by (dx, dy) px of its photo and resized by a factor about the middle of its ground line."""
    p = c.placement
    w, h = (int(v) for v in (c.occluder.mask.box.width, c.occluder.mask.box.height))
    old, factor = scaled_size(w, h, p.scale), round(p.scale * scale * 4096) / 4096
    new = scaled_size(w, h, factor)
    x, y = p.dx + (old[0] - new[0]) / 2 + dx, p.dy + old[1] - new[1] + dy
    placement = replace(p, dx=math.floor(x + 0.5), dy=math.floor(y + 0.5), scale=factor)
    return replace(c, placement=placement, ratio=_ratio(c, placement), ground=c.ground + dy)


def _ratio(c: Composite, placement: Placement) -> float:
    return _ratio_of(c.human.mask, c.occluder.mask, placement)


@lru_cache(maxsize=512)
def _ratio_of(human: Mask, occluder: Mask, placement: Placement) -> float:
    x0, y0, x1, y1 = occluder.box.pixels()
    return ratio_of(human.decode(), [occluder.decode()[y0:y1, x0:x1]], [placement])


def proposals(root: Path, mode: Mode, reviewer: str, n: int = 8) -> list[View]:
    """The next ``n`` proposals for a reviewer.

    ``edit``: nobody has edited them; ``vote``: picked by others, not yet voted on; ``done``: passed.

    Raises:
        UserError: for another mode, or when nothing was proposed yet.
    """
    if mode not in MODES:
        raise UserError(f"compose: expected one of {', '.join(MODES)}, got {mode!r}")
    voters = voters_of(root)
    wanted = {
        "edit": lambda v: v.status == "open",
        "vote": lambda v: v.status == "picked" and reviewer not in v.editors and reviewer not in v.votes,
        "done": lambda v: v.passed(voters),
    }[mode]
    return [v for v in views(root).values() if wanted(v)][: max(0, n)]


@dataclass(frozen=True)
class Nudge:
    """A move from the proposal as it was made, px of its photo, and a factor of its size."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0


def act(
    root: Path, reviewer: str, proposal_id: str, action: str, nudge: Nudge | None = None, version: str = ""
) -> View:
    """Log an edit, a vote or an undo; it is on the disk when this returns. Returns the proposal after it.

    Args:
        nudge: of the action ``nudge``.
        version: of a vote: what the voter saw; of an edit: the proposal, as it was made, that the editor saw; '': as it
            is now.

    Raises:
        UserError: when the action makes no sense, an editor votes on their own work, or the proposal was made again.
    """
    check_name(reviewer)
    read_composites(root)  # where there are none, nothing is made either
    with writing(root):
        line = _line(root, reviewer, proposal_id, action, nudge or Nudge(), version)
        append_line(log_of(root), json.dumps(line, sort_keys=True, ensure_ascii=False))
        return views(root)[proposal_id]


def _line(root: Path, reviewer: str, proposal_id: str, action: str, nudge: Nudge, version: str) -> dict[str, Any]:
    """An action as the log has it; see `act`."""
    view = views(root).get(proposal_id)
    if view is None:
        raise UserError(f"{proposal_id}: no such proposal in {root}")
    if action not in ACTIONS:
        raise UserError(f"compose: expected one of {', '.join(ACTIONS)}, got {action!r}")
    if action in VOTES:
        _check_vote(view, reviewer)
    proposal = read_composites(root)[proposal_id]
    if action in EDITS and version not in ("", version_of(proposal)):
        raise UserError(f"{proposal_id}: it was proposed again since you saw it; look again")
    line: dict[str, Any] = {"id": uuid4().hex, "proposal_id": proposal_id, "reviewer": reviewer, "action": action}
    line["at"] = after(now(), [str(a.get("at")) for a in _actions(root).get(proposal_id, ())])
    if action == "nudge":
        _check_nudge(proposal, nudge)
        line |= asdict(nudge)
    if action in VOTES:
        line["version"] = version or view.version
    if action in EDITS:
        line["version"] = version_of(proposal)
    if action == UNDO:
        mine = [a["id"] for a in _actions(root).get(proposal_id, ()) if a.get("reviewer") == reviewer]
        line["retracts"] = mine[-1] if mine else ""
    return line


def _check_vote(view: View, reviewer: str) -> None:
    pid = view.composite.proposal_id
    if view.status != "picked":
        raise UserError(f"{pid}: nobody has picked it, so there is nothing to vote on")
    if reviewer in view.editors:
        raise UserError(f"{pid}: {reviewer} has edited it; somebody else must vote")


def _check_nudge(c: Composite, nudge: Nudge) -> None:
    dx, dy, scale = nudge.dx, nudge.dy, nudge.scale
    if not all(map(math.isfinite, (dx, dy, scale))) or not 0.1 <= scale <= 10 or max(abs(dx), abs(dy)) > 1e5:
        raise UserError(f"{c.proposal_id}: expected a nudge in px and a factor of 0.1 to 10, got {dx}, {dy}, {scale}")
    if nudged(c, dx, dy, scale).ratio in (0.0, 1.0):
        raise UserError(f"{c.proposal_id}: there it hides nothing of the person, or all; move it less")


def passed(root: Path, voters: int | None = None) -> list[Composite]:
    """The composites that all voters passed, sorted by id; ``voters``: how many must have voted (`voters_of`)."""
    least = voters or voters_of(root)
    return [v.composite for _, v in sorted(views(root).items()) if v.passed(least)]
