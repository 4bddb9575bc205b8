"""The crop of spec §1: a box enlarged 3 times in height and width, as far as the photo reaches."""

from __future__ import annotations

from ahp_toolkit.core.crops import cut
from ahp_toolkit.core.masks import Box
from ahp_toolkit.runtime.context import around, within
from ahp_toolkit.segmenters.base import Ask
from ahp_toolkit.storage.images import Rgb

ENLARGE = 3.0


def ask_of(photo: Rgb, box: Box, factor: float = ENLARGE) -> tuple[Ask, Box]:
    """What a segmenter is handed of one human, and where the crop lies in the photo (integer px)."""
    height, width = photo.shape[:2]
    crop = around(box, width, height, factor)
    return Ask(cut(photo, crop), within(box.clip(width, height), crop)), crop
