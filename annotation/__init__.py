"""People: review, decisions, triage, composites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ahp_toolkit.core.records import Decision

__all__ = ["decisions"]


def decisions(root: str | Path) -> Mapping[str, Decision]:
    """The decision of each candidate of a build.

    A decision of people comes from the logs, merged over reviewers by the build's own rule. Where people have not
    decided, the build's rule has (``provisional``). Verdicts that cannot be merged are left out.

    Raises:
        UserError: when the folder is no build, or a log of decisions is damaged.
    """
    from ahp_toolkit.build.config import read
    from ahp_toolkit.core.records import Decision
    from ahp_toolkit.decisions.merge import Merge
    from ahp_toolkit.decisions.status import status
    from ahp_toolkit.storage.build_folder import Build

    settled = status(Path(root), Merge(**asdict(read(Path(root)).review.merge))).settled
    ruled = {d.candidate_id: d for d in Build(Path(root)).records("review/decisions", Decision) if d.provisional}
    open_ = {*settled.disagreed, *settled.waiting}
    return {c: d for c, d in sorted((ruled | dict(settled.decided)).items()) if c not in open_}
