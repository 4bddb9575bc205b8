"""What an export format is, and what all formats share: items, pictures, names, JSON written as a stream.

A format module holds ``write(job: Job) -> list[Path]``, which writes one split and returns the files a reader opens,
and ``PICTURES``: whether the format is made of pictures, so that they are always written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.masks import LabelMap, Mask
from ahp_toolkit.core.records import Dropped, Human, ImageRef, Sample
from ahp_toolkit.storage import files, images
from ahp_toolkit.storage.build_folder import Build, Pasted, Render, frame_of
from ahp_toolkit.storage.images import ImageError, Rgb

STAGE = "export"
SAMPLES, HUMANS = "samples", "humans"


@dataclass(frozen=True)
class Item:
    """A sample, or a whole human as the same thing (modal = amodal). ``image_id`` names its picture."""

    item_id: str
    image_id: str
    image: ImageRef
    amodal: Mask
    modal: Mask
    human_id: str
    provisional: bool
    parsing: LabelMap | None = None
    sample: Sample | None = None

    @property
    def occlude_rate(self) -> float:
        """Hidden share of the person, in [0, 1]."""
        return self.sample.occlusion_ratio if self.sample else 0.0


@dataclass
class Job:
    """One split's export into the folder ``out``; rejects are collected in ``dropped``."""

    build: Build
    out: Path
    split: str
    what: str
    images: bool
    render: Render | None
    progress: Callable[[int], None]
    dropped: list[Dropped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def png(self, path: Path, pixels: NDArray[np.uint8]) -> None:
        """Write a picture."""
        images.write_png(path, pixels)

    def file(self, path: Path, data: bytes) -> Path:
        """Write bytes, atomically."""
        with self.open(path) as f:
            f.write(data)
        return path

    @contextmanager
    def open(self, path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
        """Write a file, atomically, as a stream."""
        with files.atomic(path, mode) as f:
            yield f

    def items(self) -> Iterator[Item]:
        """The split's samples or humans; humans of one photo follow each other."""
        found = self._samples() if self.what == SAMPLES else self._humans()
        for item in found:
            yield item
            self.progress(1)

    def _samples(self) -> Iterator[Item]:
        for s in self.build.samples(self.split):
            yield Item(s.sample_id, s.sample_id, s.image, s.amodal, s.modal, s.human_id, s.provisional, sample=s)

    def _humans(self) -> Iterator[Item]:
        for h in sorted(self.build.humans(self.split), key=lambda h: (h.image.image_id, h.human_id)):
            yield human_item(h)

    def pasted(self, item: Item) -> Pasted | None:
        """A sample's pixels; None and a `Dropped` where they cannot be made."""
        assert item.sample is not None and self.render is not None
        try:
            return self.render(item.sample)
        except ImageError as e:
            self.drop(item, e)
            return None

    def photo(self, item: Item) -> Rgb | None:
        """A human's photo; None and a `Dropped` where it cannot be read."""
        try:
            return self.build.pixels(item.image)
        except ImageError as e:
            self.drop(item, e)
            return None

    def jpeg(self, item: Item) -> bytes | None:
        """A human's photo as JPEG: the file's own bytes where they are a JPEG in the annotations' frame, else coded."""
        try:
            data = images.read_bytes(self.build.path_of(item.image))
            pixels, head = images.decode(data, frame_of(item.image)), images.header(data)
        except ImageError as e:
            self.drop(item, e)
            return None
        own = head.format == "JPEG" and head.orientation == 1
        return data if own else images.encode_jpeg(pixels)

    def picture(self, item: Item) -> Rgb | None:
        """The picture of an annotation: the occluded image of a sample, the photo of a human."""
        if item.sample is None:
            return self.photo(item)
        made = self.pasted(item)
        return None if made is None else made.image

    def drop(self, item: Item, e: ImageError) -> None:
        """Count an item that cannot be exported."""
        self.dropped.append(Dropped(item.item_id, STAGE, f"image_{e.reason}", str(e), item.image.source))


def human_item(human: Human) -> Item:
    """A human as an item."""
    return Item(
        human.human_id, human.image.image_id, human.image, human.mask, human.mask, human.human_id, human.provisional,
        human.parsing,
    )  # fmt: skip


def invisible(item: Item) -> NDArray[np.bool_]:
    """amodal AND NOT modal, bool [H, W]."""
    return item.amodal.decode() & ~item.modal.decode()


def grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """bool [H, W] to uint8 0 and 255."""
    return np.where(mask, np.uint8(255), np.uint8(0))


class JsonStream:
    """A JSON object whose one large list is written item by item: memory does not grow with the split."""

    def __init__(self, f: IO[str], key: str) -> None:
        self._f, self._first = f, True
        f.write(f'{{"{key}": [\n')

    def add(self, value: dict[str, Any]) -> None:
        """One more item of the list."""
        self._f.write(("" if self._first else ",\n") + json.dumps(value, ensure_ascii=False))
        self._first = False

    def close(self, **rest: Any) -> None:
        """End the list and write the object's other keys."""
        tail = "".join(f',\n"{k}": {json.dumps(v, ensure_ascii=False)}' for k, v in rest.items())
        self._f.write(f"\n]{tail}}}\n")
