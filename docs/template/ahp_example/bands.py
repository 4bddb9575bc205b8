"""A parser: face, clothes and pants by height."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ahp_toolkit.core.masks import Label2D
from ahp_toolkit.parsers.base import Body

NEEDS_PIXELS = True
TRAINABLE = False
WEIGHTS = ""
LICENCE = "Apache-2.0"


class Bands:
    """``name`` is NAME@DIGEST, as a segmenter's."""

    name = "bands@1"

    def __call__(self, bodies: Sequence[Body]) -> list[Label2D]:
        """uint8 [H, W] labels of LIP, 0 outside the mask, for each person."""
        parsings = []
        for body in bodies:
            rows = np.flatnonzero(body.mask.any(1))
            share = (np.arange(len(body.mask)) - rows[0]) / max(1, np.ptp(rows))
            label = np.select([share < 0.2, share < 0.6], [13, 5], 9).astype(np.uint8)
            parsings.append(np.where(body.mask, label[:, None], 0).astype(np.uint8))
        return parsings


def build(weights: str | None = None, device: str = "auto", batch_size: int = 8) -> Bands:
    """A ready parser; this one needs no weights."""
    return Bands()
