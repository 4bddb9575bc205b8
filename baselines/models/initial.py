"""Nothing completed: the initial mask is the answer. A row that every mask model must beat; no training."""

from __future__ import annotations

from typing import Any

from baselines.base import Baseline, Batch, Result
from baselines.training.settings import Settings, make_settings

PAPER = "the initial mask as it is"
TASKS = ("mask",)
IN_PAPER = False
VERSION = 1


def build(task: str, **settings: Any) -> Baseline:
    """The initial mask."""
    return Initial("mask", make_settings(Settings, settings), {})


class Initial(Baseline):
    """Modal and amodal mask are the initial mask."""

    def predict(self, batch: Batch) -> Result:
        """The initial mask."""
        return Result(batch.given, batch.given)
