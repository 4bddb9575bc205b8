"""The source's own masks, as they are: a human that comes with a box only gets none."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ahp_toolkit.core.masks import Box, Mask
from ahp_toolkit.segmenters.base import Prompt, Segmentation

NAME = "source_mask@source"
NEEDS_PIXELS = False
TRAINABLE = False
WEIGHTS = ""
LICENCE = "the source's own"


class SourceMask:
    """Finds no mask by itself: masks come with the records (see `quality`)."""

    name = NAME

    def __call__(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """An empty mask of score 0 for each."""
        return [Segmentation(np.zeros(a.pixels.shape[:2], np.bool_), 0.0) for a in prompts]


def build(weights: str | None = None, device: str = "auto", batch_size: int = 8) -> SourceMask:
    """The source's masks need no weights, device or batches."""
    return SourceMask()


def quality(mask: Mask, box: Box) -> float:
    """How good a source mask looks, in [0, 1]: it fills its annotated box, and is of one piece.

    IoU of the mask's tight box with the annotated box, times the share of its px in the largest connected piece.
    """
    x0, y0, x1, y1 = mask.box.pixels()
    part = mask.decode()[y0:y1, x0:x1].view(np.uint8)
    if not part.size:
        return 0.0
    _, _, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    pieces = stats[1:, cv2.CC_STAT_AREA]
    return float(min(1.0, mask.box.iou(box) * pieces.max() / pieces.sum()))
