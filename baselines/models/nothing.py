"""Nothing painted: the occluded picture is the answer. A row that every content model must beat; no training."""

from __future__ import annotations

from typing import Any

from baselines.base import Baseline, Batch, Result
from baselines.training.settings import Settings, make_settings

PAPER = "the occluded picture as it is"
TASKS = ("content",)
IN_PAPER = False
VERSION = 1


def build(task: str, **settings: Any) -> Baseline:
    """The occluded picture."""
    return Nothing("content", make_settings(Settings, settings), {})


class Nothing(Baseline):
    """The picture as it is."""

    def predict(self, batch: Batch) -> Result:
        """The occluded picture."""
        return Result(batch.modal, batch.amodal, image=batch.image)
