"""Judges: the protocol, metrics and leaderboards. Never imports a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ahp_toolkit.core.records import Score

__all__ = ["read", "score"]


def score(predictions: str | Path, split: str | Path, boards: str | Path) -> list[Score]:
    """Score a folder of predictions against a split folder, and write the figures below ``boards``.

    Each figure has ``metric``, ``slice`` ("all", or a bin of the occlusion ratio), ``value``, ``low`` and ``high`` (the
    95 % interval), ``n`` and ``n_missing``.

    Raises:
        UserError: for predictions of another split, or files that cannot be read.
    """
    from benchmark.grading.score import score as grade

    return grade(Path(predictions), Path(split), Path(boards)).scores


def read(boards: str | Path) -> list[Score]:
    """All figures of all methods below a boards folder, sorted by the method's folder.

    Raises:
        UserError: when nothing was scored there.
    """
    from benchmark.boards.ranking import load_runs

    runs, _ = load_runs(Path(boards))
    return [score for run in runs for score in run.scores.values()]
