"""The crop a parser sees: the mask's tight box with an eighth more on every side, about what LIP shows."""

from __future__ import annotations

import numpy as np

from ahp_toolkit.core.crops import cut
from ahp_toolkit.core.masks import Bool2D, Box
from ahp_toolkit.parsers.base import Body
from ahp_toolkit.runtime.context import around
from ahp_toolkit.storage.images import Rgb

ENLARGE = 1.25


def body_of(photo: Rgb, mask: Bool2D, box: Box, factor: float = ENLARGE) -> tuple[Body, Box]:
    """What a parser is handed of one human, and where the crop lies in the photo (integer px).

    Args:
        mask: bool [H, W], full frame, of the photo's size.
        box: the mask's tight box.
    """
    height, width = photo.shape[:2]
    crop = around(box, width, height, factor)
    return Body(cut(photo, crop), cut(mask.view(np.uint8), crop).view(np.bool_)), crop
