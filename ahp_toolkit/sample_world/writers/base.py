"""What every writer is given."""

from __future__ import annotations

from dataclasses import dataclass

from ahp_toolkit.core.records import SourceImage
from ahp_toolkit.storage.images import Rgb


@dataclass(frozen=True, slots=True)
class Scene:
    """A photo's annotations and its pixels (RGB uint8 [H, W, 3]).

    ``split`` is the source's own split that the photo goes to (``train`` or ``val``).
    """

    image: SourceImage
    pixels: Rgb
    split: str = "train"
