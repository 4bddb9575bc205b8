"""What every segmenter offers.

A segmenter module has ``build(weights, device, batch_size) -> Segmenter`` and, where it can be trained,
``train(humans, out, ...)``. Crops and boxes only: the stage cuts, pastes back and keeps what lies in the original box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ahp_toolkit.core.masks import Bool2D, Box
from ahp_toolkit.storage.images import Rgb


@dataclass(frozen=True, slots=True)
class Ask:
    """One human to segment: RGB uint8 [H, W, 3] of the 3x crop, the original box in the crop's px."""

    pixels: Rgb
    box: Box


@dataclass(frozen=True, slots=True)
class Found:
    """bool [H, W] of the crop, and the segmenter's own quality estimate in [0, 1]."""

    mask: Bool2D
    score: float


class Segmenter(Protocol):
    """A ready segmenter. ``name`` is ``name@weights-digest`` and goes into every record it makes."""

    name: str

    def __call__(self, asks: Sequence[Ask]) -> list[Found]:
        """Segment the person of each box, in order; the same answer at any batch size."""
