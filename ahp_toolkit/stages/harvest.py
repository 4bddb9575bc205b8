"""STAGE harvest: SourceImage -> Candidate (people worth asking about) and Occluder (paper §4.1 (1); spec §1).

Dropped, in this order: bad records (by the source), crowd / group / depiction / reflection marks, area under 300 px
(mask area where there is a mask, else box area), any pixel of the mask (else of the box) within a 5 px gutter along
the image borders, and people of photos that cannot be decoded. Each rule is a setting.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image

from ahp_toolkit.core import hashing
from ahp_toolkit.core.neighbours import neighbours_of
from ahp_toolkit.core.records import Candidate, Dropped, ImageRef, Instance, Occluder
from ahp_toolkit.runtime.stage import MAIN, Output
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import PERSON, Entry, Source, was_human
from ahp_toolkit.storage import images, locations, missing

STAGE = "harvest"


@dataclass(frozen=True)
class Rules:
    """What makes a human a candidate.

    ``min_area`` px²; ``gutter`` px along the four borders; ``drop_flags`` marks that end a human's way; ``verify``
    decodes every photo that gives anything (a broken one is found here and not in the middle of a training).
    """

    min_area: int = 300
    gutter: int = 5
    drop_flags: tuple[str, ...] = ("crowd", "group", "depiction", "reflection")
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Photo:
    """What tells two files of one photograph: exact keys, a 64-bit pHash, and a 16x16 grey thumbnail to verify it.

    ``people`` and ``masks`` count the usable humans and those with masks: the better annotated source wins.
    """

    image_id: str
    source: str
    keys: str
    phash: bytes
    thumb: bytes
    people: int
    masks: int


@dataclass(frozen=True)
class Harvest:
    """The stage function over (source, Entry); ``roots`` and ``formats`` give each source's data root and format."""

    roots: dict[str, str]
    rules: Rules
    formats: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, items: Sequence[tuple[str, Entry]]) -> Output:
        """One shard of photos."""
        out = Output({MAIN: [], "occluders": [], "photos": []})
        for source, entry in items:
            self._photo(source, entry, out)
        return out

    def _photo(self, source: str, entry: Entry, out: Output) -> None:
        root = locations.place(self.roots[source])
        loaded = SOURCES.get(self.formats.get(source, source)).load(root, entry)
        out.dropped.extend(replace(d, stage=STAGE, source=source) for d in loaded.dropped)
        out.counts[f"images/{source}"] += 1
        out.counts[f"persons/{source}"] += sum(map(was_human, loaded.dropped))
        if loaded.image is None:
            return
        image, instances = loaded.image.image, loaded.image.instances
        people = [i for i in instances if i.label == PERSON]
        out.counts[f"persons/{source}"] += len(people)
        kept, dropped = self._sift(source, people, image)
        out.dropped.extend(dropped)
        sources_of_occlusion = [i for i in instances if i.mask is not None and not (i.flags.crowd or i.flags.group)]
        if not kept and not sources_of_occlusion:
            return
        try:
            image, phash, thumb = self._verify(root, image)
        except (images.ImageError, ValueError) as e:
            reason = f"image_{e.reason}" if isinstance(e, images.ImageError) else "unsafe_path"
            out.dropped.extend(Dropped(i.instance_id, STAGE, reason, str(e), source) for i in kept)
            out.counts[f"occluders_lost/{source}"] += len(sources_of_occlusion)
            return
        _emit(out, image, instances, kept, sources_of_occlusion)
        masks = sum(i.mask is not None for i in kept)
        out.tables["photos"].append(Photo(image.image_id, source, image.photo, phash, thumb, len(kept), masks))

    def _sift(self, source: str, people: list[Instance], image: ImageRef) -> tuple[list[Instance], list[Dropped]]:
        kept, dropped = [], []
        for person in people:
            why = self.reason(person, image)
            if why is None:
                kept.append(person)
            else:
                dropped.append(Dropped(person.instance_id, STAGE, why[0], why[1], source))
        return kept, dropped

    def reason(self, person: Instance, image: ImageRef) -> tuple[str, str] | None:
        """(reason, detail) for which the rules drop a human, or None."""
        for flag in self.rules.drop_flags:
            if getattr(person.flags, flag):
                return flag, f"marked {flag} by its source"
        area = person.mask.area if person.mask is not None else person.box.area
        if area < self.rules.min_area:
            return "small", f"{area:.0f} px, at least {self.rules.min_area} are asked for"
        box = person.mask.box if person.mask is not None else person.box
        if box.touches_border(image.width, image.height, self.rules.gutter):
            return "gutter", f"within {self.rules.gutter} px of the image border"
        return None

    def _verify(self, root: Path, image: ImageRef) -> tuple[ImageRef, bytes, bytes]:
        path = locations.find(root, image.path)
        if not self.rules.verify:
            images.header(path).frame((image.width, image.height))
            return image, b"", b""
        data = images.read_bytes(path)
        try:
            pixels = images.decode(data, (image.width, image.height))
        except images.ImageError as e:
            raise images.ImageError(e.reason, f"{image.path}: {e}") from e
        return replace(image, digest=hashing.digest_bytes(data)), *fingerprint(pixels)


def entries_of(reader: Source, root: Path, name: str) -> Iterator[Entry]:
    """The photos of a source, after a look at its first ones: a disk that is not mounted is not harvested.

    Where none of the first `missing.CHECKED` photos is there (a user may have fetched the last split alone), photos
    all over the source are looked for, in a scan of their own.

    Raises:
        UserError: when not one photo that was looked for is there.
        StorageError: when a store does not answer.
    """
    entries = reader.scan(root, name)
    first = list(itertools.islice(entries, missing.CHECKED))
    looked = itertools.chain(first, _spread(reader, root, name))
    missing.check(name, str(root), _places(reader, root, looked))
    yield from first
    yield from entries


def _spread(reader: Source, root: Path, name: str) -> Iterator[Entry]:
    """A few hundred photos of a source, ever further apart."""
    following = missing.CHECKED
    for n, entry in enumerate(reader.scan(root, name)):
        if n == following:
            following += max(1, n // 50)
            yield entry


def _places(reader: Source, root: Path, entries: Iterable[Entry]) -> Iterator[Sequence[str]]:
    """Where each photo lies or may lie below the root; nothing for entries without a photo."""
    for entry in entries:
        loaded = reader.load(root, entry)
        if loaded.image is not None:
            yield (loaded.image.image.path,)
        elif loaded.looked:
            yield loaded.looked


def fingerprint(pixels: images.Rgb) -> tuple[bytes, bytes]:
    """(64-bit pHash, 16x16 grey thumbnail) of RGB uint8 [H, W, 3]."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    small = np.asarray(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
    phash = np.packbits(imagehash.phash(Image.fromarray(small)).hash.ravel()).tobytes()
    thumb = np.asarray(cv2.resize(small, (16, 16), interpolation=cv2.INTER_AREA), np.uint8)
    return phash, thumb.tobytes()


def _emit(
    out: Output,
    image: ImageRef,
    instances: Sequence[Instance],
    kept: Sequence[Instance],
    occluders: Sequence[Instance],
) -> None:
    around = neighbours_of(kept, instances, image.height, image.width)
    for person, near in zip(kept, around, strict=True):
        # the source's own box: how well a mask fills it tells the mask's quality
        out.tables[MAIN].append(
            Candidate(person.instance_id, image, person.box, person.mask, person.parsing, person.flags, near)
        )
    for o in occluders:
        assert o.mask is not None
        area = o.mask.area
        if area == 0:
            continue
        out.tables["occluders"].append(Occluder(o.instance_id, image, o.label, o.mask.box, o.mask, area))
