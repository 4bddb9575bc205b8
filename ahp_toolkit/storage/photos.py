"""The photos behind records: found below their data roots, read in the frame that the annotations live in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import ImageRef
from ahp_toolkit.storage import locations
from ahp_toolkit.storage.images import ImageError, Rgb, read


class Photos:
    """Photos by reference; the last one is kept, since the humans of a photo stand together."""

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._roots = roots
        self._last: tuple[str, Rgb | ImageError] | None = None

    def read(self, image: ImageRef) -> Rgb:
        """RGB uint8 [H, W, 3].

        Raises:
            ImageError: when the photo cannot be used; ``unsafe_path`` when its path leaves the data root.
            UserError: when its source has no data root.
        StorageError: when a store does not answer.
        """
        if image.source not in self._roots:
            raise UserError(f"{image.image_id}: no data root is given for the source {image.source!r}")
        key = f"{image.source}\n{image.path}"
        if self._last is None or self._last[0] != key:
            self._last = key, _load(locations.place(self._roots[image.source]), image)
        if isinstance(self._last[1], ImageError):
            raise self._last[1]
        return self._last[1]


def _load(root: Path, image: ImageRef) -> Rgb | ImageError:
    try:
        path = locations.find(root, image.path)
        return read(path, (image.width, image.height) if image.width else None)
    except ImageError as e:
        return e
    except ValueError as e:
        return ImageError("unsafe_path", str(e))
