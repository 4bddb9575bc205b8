"""What every parser offers.

A parser module has ``build(weights, device, batch_size) -> Parser`` and, where it can be trained, ``train(...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ahp_toolkit.core.masks import Bool2D, Label2D
from ahp_toolkit.storage.images import Rgb


@dataclass(frozen=True, slots=True)
class Body:
    """One human to parse: RGB uint8 [H, W, 3] of a crop around the person, and the mask bool [H, W] in that crop."""

    pixels: Rgb
    mask: Bool2D


class Parser(Protocol):
    """A ready parser. ``name`` is ``name@weights-digest``."""

    name: str

    def __call__(self, bodies: Sequence[Body]) -> list[Label2D]:
        """uint8 [H, W] labels 0..19 of each crop; 0 outside the mask; left and right are the person's own."""
