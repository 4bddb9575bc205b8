"""What a segmenter is: the contract of the plug-ins in this folder and of those that other packages announce.

A segmenter module holds these names:

- ``build(weights, device, batch_size) -> Segmenter``: ``weights`` is a file, a name on a hub, or None.
- ``NEEDS_PIXELS``: False where no photo needs to be opened.
- ``TRAINABLE``: whether ``ahp build segmenter`` trains it. If so it also has ``PRESETS`` (`nets.recipe.Settings` by
  name, at least ``debug`` and ``full``), ``recipe(settings) -> nets.recipe.Recipe``, and ``KIND``, the format of its
  checkpoints.
- ``WEIGHTS``: one phrase that says where weights come from; "" where none are needed.
- ``LICENCE``: of the network's code and published weights.

The stage cuts the crop of spec §1, the box enlarged three times, and keeps what lies inside the original box.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ahp_toolkit.core.crops import around, cut, within
from ahp_toolkit.core.masks import Bool2D, Box
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.storage.images import Rgb

#: The crop is so many times as high and wide as the person's box (spec §1).
ENLARGE = 3.0
#: Further keyword arguments of a plug-in's ``build`` (precision, size, ...), as pairs.
Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One human to segment: RGB uint8 [H, W, 3] of the crop, and the person's box in px of the crop."""

    pixels: Rgb
    box: Box


@dataclass(frozen=True, slots=True)
class Segmentation:
    """bool [H, W] of the crop, and the segmenter's own estimate of its quality in [0, 1]."""

    mask: Bool2D
    score: float


class Segmenter(Protocol):
    """A ready segmenter. Every record it makes carries ``name``, ``NAME@weights-digest``."""

    name: str

    def __call__(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Segment the person of each box, in order; the result does not depend on the batch size."""


def prompt_of(photo: Rgb, box: Box, factor: float = ENLARGE) -> tuple[Prompt, Box]:
    """The prompt for one human of a photo, and the integer box of its crop in the photo."""
    height, width = photo.shape[:2]
    crop = around(box, width, height, factor)
    return Prompt(cut(photo, crop), within(box.clip(width, height), crop)), crop


@functools.cache
def built(
    name: str, weights: str | None, device: str = "auto", batch_size: int = 8, options: Options = (), stamp: str = ""
) -> Segmenter:
    """The segmenter of this process, built once; ``stamp`` (`nets.weights.weights_stamp`) tells changed files apart."""
    made: Segmenter = SEGMENTERS.get(name).build(weights, device=device, batch_size=batch_size, **dict(options))
    return made
