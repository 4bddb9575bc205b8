"""The server side of the compose and vote panels: proposals with their pictures; a moved one is drawn, not logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.decisions import votes
from ahp_toolkit.storage.images import ImageError
from annotation.app.pictures import SIZE, jpeg
from annotation.composites import preview


def queue(root: Path, reviewer: str, mode: str, n: int = 3) -> dict[str, Any]:
    """The next proposals to ``edit`` or to ``vote`` on, each with its picture, and how many there are."""
    if mode not in ("edit", "vote"):
        raise UserError(f"compose: expected edit or vote, got {mode!r}")
    found = votes.proposals(root, "edit" if mode == "edit" else "vote", reviewer, 10**9)
    return {
        "items": [item(root, v) for v in found[:n]],
        "left": len(found),
        "passed": len(votes.proposals(root, "done", reviewer, 10**9)),
    }


def item(root: Path, view: votes.View) -> dict[str, Any]:
    """One proposal for the panel. ``version`` is what a vote is on, ``made`` what an edit counts from."""
    c = view.composite
    return _picture(root, c) | {
        "id": c.proposal_id,
        "version": view.version,
        "made": votes.version_of(votes.read_composites(root)[c.proposal_id]),
        "facts": {
            "hidden": f"{100 * c.ratio:.1f} %",
            "object": c.occluder.label,
            "from": "the same photo" if c.same_photo else f"another photo, light differs by {100 * c.light:.0f} %",
            "person": c.human.human_id,
        },
    }


def look(root: Path, proposal_id: str, dx: float, dy: float, scale: float) -> dict[str, Any]:
    """A proposal moved by (dx, dy) px of its photo and resized: how it would look. Nothing is logged."""
    c = votes.read_composites(root).get(proposal_id)
    if c is None:
        raise UserError(f"{proposal_id}: no such proposal in {root}")
    return item(root, votes.View(moved := votes.nudged(c, dx, dy, scale), votes.version_of(moved)))


def act(root: Path, reviewer: str, p: dict[str, Any]) -> dict[str, Any]:
    """An editor's or a voter's action: on the disk when this returns."""
    dx, dy, scale = (float(p.get(k, d)) for k, d in (("dx", 0), ("dy", 0), ("scale", 1)))
    nudge = votes.Nudge(dx, dy, scale)
    view = votes.act(root, reviewer, p["proposal_id"], p["action"], nudge, p.get("version", ""))
    return {"id": p["proposal_id"], "status": view.status}


def _picture(root: Path, c: Any) -> dict[str, Any]:
    try:
        return {"photo": jpeg(preview.preview(root, c, SIZE)), "problem": ""}
    except ImageError as e:
        return {"photo": "", "problem": f"the photo cannot be shown: {e}"}
