"""The source's own parsings (LIP's), as they are: a human of another source gets none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ahp_toolkit.core.masks import Label2D
from ahp_toolkit.parsers.base import Body

NAME = "source_parsing@source"
NEEDS_PIXELS = False
TRAINABLE = False
WEIGHTS = ""
LICENCE = "the source's own"


class SourceParsing:
    """Finds no parts by itself: parsings come with the records."""

    name = NAME

    def __call__(self, bodies: Sequence[Body]) -> list[Label2D]:
        """Background everywhere."""
        return [np.zeros(b.mask.shape, np.uint8) for b in bodies]


def build(weights: str | None = None, device: str = "auto", batch_size: int = 8) -> SourceParsing:
    """The source's parsings need no weights, device or batches."""
    return SourceParsing()
