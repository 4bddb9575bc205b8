"""The FiftyOne plugin's Python side: thin operators over ``session.session``; the panel is ``dist/index.umd.js``."""

from __future__ import annotations

from functools import cache
from typing import Any

import fiftyone.operators as foo

from annotation.app import compositions, server
from annotation.session import session


@cache
def _session() -> session.Session:
    found = session.current()
    writer = server.writer_for(found)
    found.on_change, found.database_state = writer.put, writer.state
    return found


class _PanelOperator(foo.Operator):
    """An operator that only the panel calls.

    A request that makes no sense comes back as ``refused``, and is not sent again. Any other failure is FiftyOne's
    ``error``: the panel keeps the decision and sends it until it is taken.
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

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """What this operator does."""
        raise TypeError(f"{self.NAME} answers nothing")


class Queue(_PanelOperator):
    """The next candidates with their pictures, and the progress."""

    NAME = "queue"

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: view, seen (ids the panel holds already), n, back (last decisions wanted again)."""
        return current.queue(p.get("view", "todo"), p.get("seen", []), int(p.get("n", 8)), int(p.get("back", 0)))


class Decide(_PanelOperator):
    """One decision (or the taking back of one): on the log before this returns."""

    NAME = "decide"

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: the fields of `session.KeyPress`; verdict '' takes the last decision back."""
        return current.decide(session.KeyPress.of(p))


class Guide(_PanelOperator):
    """GUIDE.md as a page, with its pictures."""

    NAME = "guide"

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """No params."""
        return {"html": current.guide()}


class Find(_PanelOperator):
    """The database's id of a candidate, to open it in the App's own editor, which then holds the mask shown."""

    NAME = "find"

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: candidate_id."""
        cid = p["candidate_id"]
        server.put_mask(current.root, current.candidates, cid, current.shown(cid))
        return {"sample": server.sample_id(current.root, cid, current.candidates.piece)}


class Corrected(_PanelOperator):
    """Take the mask painted in the App for a candidate into the log."""

    NAME = "corrected"

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: candidate_id. Answers the new mask's item, or ``same`` where nothing was painted."""
        mask = server.painted(current.root, current.candidates, p["candidate_id"])
        if mask is None:
            return {"same": True}
        current.correct(p["candidate_id"], mask)
        server.put_mask(current.root, current.candidates, p["candidate_id"], mask)
        return {"item": current.item(p["candidate_id"])}


class Compose(_PanelOperator):
    """The real test set: proposals to edit or to vote on, a moved one's look, and the votes on them."""

    NAME = "compose"

    def answer(self, current: session.Session, p: dict[str, Any]) -> dict[str, Any]:
        """Params: do (queue, look or act) and what these take; see `annotation.app.compositions`."""
        root, reviewer = current.root, current.reviewer
        if p["do"] == "queue":
            return compositions.queue(root, reviewer, p["mode"])
        if p["do"] == "look":
            return compositions.look(root, p["proposal_id"], float(p["dx"]), float(p["dy"]), float(p["scale"]))
        return compositions.act(root, reviewer, p)


def register(plugin: Any) -> None:
    """Called by FiftyOne."""
    for operator in (Queue, Decide, Guide, Find, Corrected, Compose):
        plugin.register(operator)
