"""What a parser is: the contract of the plug-ins in this folder and of those that other packages announce.

A parser module holds ``build(weights, device, batch_size) -> Parser`` and the facts that `segmenters.base` lists:
``NEEDS_PIXELS``, ``TRAINABLE`` (with ``PRESETS``, ``recipe`` and ``KIND``), ``WEIGHTS`` and ``LICENCE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ahp_toolkit.core.crops import around, cut
from ahp_toolkit.core.masks import Bool2D, Box, Label2D
from ahp_toolkit.storage.images import Rgb

#: The crop is so many times as high and wide as the mask's tight box, about what LIP shows.
ENLARGE = 1.25


@dataclass(frozen=True, slots=True)
class Body:
    """One human to parse: RGB uint8 [H, W, 3] of a crop around the person, and the mask bool [H, W] in that crop."""

    pixels: Rgb
    mask: Bool2D


class Parser(Protocol):
    """A ready parser. Every record it makes carries ``name``, ``NAME@weights-digest``."""

    name: str

    def __call__(self, bodies: Sequence[Body]) -> list[Label2D]:
        """uint8 [H, W] labels 0..19 of each crop; 0 outside the mask; left and right are the person's own."""


def body_of(photo: Rgb, mask: Bool2D, box: Box, factor: float = ENLARGE) -> tuple[Body, Box]:
    """The body of one human of a photo, and the integer box of its crop in the photo.

    Args:
        mask: bool [H, W], full frame, of the photo's size.
        box: the mask's tight box.
    """
    height, width = photo.shape[:2]
    crop = around(box, width, height, factor)
    return Body(cut(photo, crop), cut(mask.view(np.uint8), crop).view(np.bool_)), crop
