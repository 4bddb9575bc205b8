"""The pixels of a sample from its recipe: photos are read, occluders cut out and pasted; nothing is drawn by chance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import ImageRef, Occluder, Placement, Sample
from ahp_toolkit.occlusion.paste import Cutout, Pasted, cut_out, paste, sample_digest
from ahp_toolkit.storage import images, parquet
from ahp_toolkit.storage.photos import Photos


class Renderer:
    """Regenerates samples. ``roots`` maps a source's name to its data root.

    ``folder`` is a split's folder, whose ``occluders`` are read with the first sample: first those of ``part``, where
    one is given, since a shard of samples has its occluders in a part of the same name.
    """

    def __init__(self, roots: dict[str, str], folder: Path | None = None, part: str = "") -> None:
        self._photos = Photos(roots)
        every = [folder / "occluders"] if folder else []
        own = [table / part for table in every if part and (table / part).exists()]
        self._tables = [*own, *every]  # not yet read, the nearest first
        self._occluders: dict[str, Occluder] = {}
        # no method of self: in a cycle, a shard's cutouts would stay in memory until the garbage collector runs
        self._cutouts = lru_cache(maxsize=256)(partial(_cut, self._photos))
        self._bad: set[str] = set()

    def photo(self, image: ImageRef) -> images.Rgb:
        """RGB uint8 [H, W, 3] of a photo in the frame of its annotations.

        Raises:
            images.ImageError: with the reason.
        """
        return self._photos.read(image)

    def usable(self, occluder: Occluder) -> bool:
        """Whether the occluder's photo can be read."""
        if occluder.image.image_id in self._bad:
            return False
        try:
            self._cutouts(occluder)
        except images.ImageError:
            self._bad.add(occluder.image.image_id)
            return False
        return True

    def paste(self, photo: images.Rgb, human: Mask, layers: Sequence[tuple[Occluder, Placement]]) -> Pasted:
        """Paste occluders over a human, the first at the bottom."""
        return paste(photo, human.decode(), [(self._cutouts(o), p) for o, p in layers])

    def __call__(self, sample: Sample) -> Pasted:
        """The pixels of a sample, checked against its digest.

        Raises:
            images.ImageError: when a photo cannot be read, or the pixels are not those that were recorded.
        """
        layers = [(self._occluder(p.occluder_id), p) for p in sample.placements]
        pasted = self.paste(self.photo(sample.image), sample.amodal, layers)
        if sample_digest(pasted.image, pasted.modal, pasted.amodal) != sample.digest:
            raise images.ImageError("changed", f"{sample.sample_id}: a photo has changed since the split was made")
        return pasted

    def _occluder(self, occluder_id: str) -> Occluder:
        while occluder_id not in self._occluders and self._tables:
            table = self._tables.pop(0)
            self._occluders |= {o.occluder_id: o for o in parquet.read_records(table, Occluder)}
        return self._occluders[occluder_id]


def _cut(photos: Photos, occluder: Occluder) -> Cutout:
    return cut_out(photos.read(occluder.image), occluder.mask.decode())
