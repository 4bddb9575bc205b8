"""The FiftyOne plugin's Python side: thin operators over ``annotation.session``; the panel is ``dist/index.umd.js``."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from annotation import session


class _Quiet(foo.Operator):
    """An operator that only the panel calls."""

    NAME = ""

    @property
    def config(self) -> foo.OperatorConfig:
        """Unlisted: it has no use from the App's operator browser."""
        return foo.OperatorConfig(name=self.NAME, label=f"AHP: {self.NAME}", unlisted=True)


class Queue(_Quiet):
    """The next candidates with their pictures, and the progress."""

    NAME = "queue"

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Params: view, seen (ids the panel holds already), n."""
        p = ctx.params
        return session.current().queue(p.get("view", "todo"), p.get("seen", []), int(p.get("n", 8)))


class Decide(_Quiet):
    """One decision (or the taking back of one): on the log before this returns."""

    NAME = "decide"

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Params: candidate_id, verdict ('' takes the last word back), reason, seconds."""
        p = ctx.params
        answer = session.current().decide(
            p["candidate_id"], p["verdict"], p.get("reason", ""), float(p.get("seconds", 0))
        )
        return answer


class Guide(_Quiet):
    """GUIDE.md as a page, with its pictures."""

    NAME = "guide"

    def execute(self, ctx: Any) -> dict[str, Any]:
        """No params."""
        return {"html": session.current().guide()}


class ComposeQueue(_Quiet):
    """Proposals for the real test set: to edit, or to vote on."""

    NAME = "compose_queue"

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Params: mode (edit or vote), n."""
        return session.current().compositions(ctx.params.get("mode", "edit"), int(ctx.params.get("n", 4)))


class ComposeAct(_Quiet):
    """An editor's or a voter's word on a proposal."""

    NAME = "compose_act"

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Params: proposal_id, action, dx, dy, scale."""
        return session.current().compose(ctx.params)


def register(plugin: Any) -> None:
    """Called by FiftyOne."""
    for operator in (Queue, Decide, Guide, ComposeQueue, ComposeAct):
        plugin.register(operator)
