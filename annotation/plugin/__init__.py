"""The FiftyOne plugin's Python side: thin operators over ``session.session``; the panel is ``dist/index.umd.js``."""

from __future__ import annotations

from functools import cache
from typing import Any

import fiftyone.operators as foo

from annotation.app import compositions, server
from annotation.session import session


@cache
def _session() -> session.Session:
    sitting = session.current()
    mirror = server.mirror_for(sitting)
    sitting.mirror, sitting.mirror_state = mirror.put, mirror.state
    return sitting


class _Quiet(foo.Operator):
    """An operator that only the panel calls.

    What makes no sense comes back as ``refused``, and is not asked again. All else that fails is FiftyOne's ``error``:
    the panel keeps a word that met one, and sends it until it is taken.
    """

    NAME = ""

    @property
    def config(self) -> foo.OperatorConfig:
        """Unlisted: it has no use from the App's operator browser."""
        return foo.OperatorConfig(name=self.NAME, label=f"AHP: {self.NAME}", unlisted=True)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Answer the panel."""
        try:
            return self.answer(_session(), dict(ctx.params))
        except session.Refused as e:
            return {"refused": f"{e}"}

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """What this operator does."""
        raise TypeError(f"{self.NAME} answers nothing")


class Queue(_Quiet):
    """The next candidates with their pictures, and the progress."""

    NAME = "queue"

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: view, seen (ids the panel holds already), n, back (last words wanted again)."""
        return sitting.queue(p.get("view", "todo"), p.get("seen", []), int(p.get("n", 8)), int(p.get("back", 0)))


class Decide(_Quiet):
    """One decision (or the taking back of one): on the log before this returns."""

    NAME = "decide"

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: candidate_id, verdict ('' takes the last word back), reason, seconds, at, settle, shown."""
        try:
            seconds = float(p.get("seconds", 0))
            cid, verdict = str(p["candidate_id"]), str(p["verdict"])
            reason, at, shown = (str(p.get(name, "")) for name in ("reason", "at", "shown"))
        except (KeyError, TypeError, ValueError) as e:
            raise session.Refused(f"no word on a candidate: {e!r}") from e
        return sitting.decide(cid, verdict, reason, seconds, at, bool(p.get("settle")), shown)


class Guide(_Quiet):
    """GUIDE.md as a page, with its pictures."""

    NAME = "guide"

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """No params."""
        return {"html": sitting.guide()}


class Find(_Quiet):
    """The database's id of a candidate, to open it in the App's own editor, which then holds the mask shown."""

    NAME = "find"

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: candidate_id."""
        cid = p["candidate_id"]
        server.put_mask(sitting.root, sitting.candidates, cid, sitting.shown(cid))
        return {"sample": server.sample_id(sitting.root, cid, sitting.candidates.piece)}


class Mended(_Quiet):
    """Take the mask painted in the App for a candidate into the log."""

    NAME = "mended"

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: candidate_id. Answers the new mask's item, or ``same`` where nothing was painted."""
        mask = server.painted(sitting.root, sitting.candidates, p["candidate_id"])
        if mask is None:
            return {"same": True}
        sitting.correct(p["candidate_id"], mask)
        server.put_mask(sitting.root, sitting.candidates, p["candidate_id"], mask)
        return {"item": sitting.item(p["candidate_id"])}


class Compose(_Quiet):
    """The real test set: proposals to edit or to vote on, a moved one's look, and the words on them."""

    NAME = "compose"

    def answer(self, sitting: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: do (queue, look or act) and what these take; see `annotation.app.compositions`."""
        root, reviewer = sitting.root, sitting.reviewer
        if p["do"] == "queue":
            return compositions.queue(root, reviewer, p["mode"])
        if p["do"] == "look":
            return compositions.look(root, p["proposal_id"], float(p["dx"]), float(p["dy"]), float(p["scale"]))
        return compositions.act(root, reviewer, p)


def register(plugin: Any) -> None:
    """Called by FiftyOne."""
    for operator in (Queue, Decide, Guide, Find, Mended, Compose):
        plugin.register(operator)
