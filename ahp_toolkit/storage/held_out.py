"""The photos that no network may be trained on: a range of the hash by which photos fall into splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ahp_toolkit.core.hashing import photo_hash


@dataclass(frozen=True)
class HeldOut:
    """Photos whose hash lies in [start, stop)."""

    start: float = 0.0
    stop: float = 0.0

    def has(self, photo: str) -> bool:
        """Whether a photo is among them."""
        return self.start <= photo_hash(photo) < self.stop

    def holds(self, start: float, stop: float) -> bool:
        """Whether all of [start, stop) is among them."""
        return start >= stop or (self.start <= start and stop <= self.stop)

    def as_json(self) -> list[float]:
        """[start, stop], as a checkpoint's meta holds it."""
        return [self.start, self.stop]

    def __str__(self) -> str:
        return f"[{self.start:g}, {self.stop:g})"


def held_of(value: object) -> HeldOut | None:
    """The `HeldOut` of a checkpoint's meta; None where it has none."""
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
        return HeldOut(float(value[0]), float(value[1]))
    return None
