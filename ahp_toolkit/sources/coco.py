"""COCO 2014 and 2017, and folders of the same build (formats §1).

``annotations/instances_*.json`` beside image folders such as ``train2017/``. Boxes, polygons and RLE of all three forms
are decoded in ``load``. Names of 12 digits are COCO's own ids; a photo of another name is known by its split and name.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec
from msgspec import Raw

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, Mask
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.sources.base import Entry, Loaded, Scene, read_all
from ahp_toolkit.sources.reading import coco_json as js
from ahp_toolkit.sources.reading.shared import (
    MAX_INSTANCES,
    Bad,
    first_there,
    inside,
    labelled,
    stored_size,
    usable_box,
    usable_size,
)
from ahp_toolkit.sources.writing import coco
from ahp_toolkit.storage import locations

LICENCE = "annotations CC BY 4.0; photos under Flickr's terms and each photo's own licence"
HOMEPAGE = "https://cocodataset.org"
CARRIES = frozenset({"mask", "crowd", "label"})
RANK = 0

_NAME = "coco"
_PATTERN = "annotations/instances_*.json"
_OFFICIAL = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
#: Photos asked for first where a file's photos lie; of a store, where none of them is there, so many others.
_FIRST, _REMOTE = 8, 24
#: Other folders of a data root, the first by name, in which a missing photo is looked for again.
_OTHERS = 8


class _Photo(NamedTuple):
    """Payload of a photo: its record, its annotations (views into the file until pickled), the file's class names.

    ``folders``: where it may lie, below the root (one tuple for all entries of a file).
    """

    folders: tuple[str, ...]
    name: str
    photo: str
    size: tuple[int | None, int | None]
    licence: str
    annotations: list[js.Annotation]
    labels: dict[int, str]
    repeats: tuple[int, ...] = ()

    @property
    def looked(self) -> tuple[str, ...]:
        return tuple(folder + self.name for folder in self.folders)


class _Reject(NamedTuple):
    """Payload that stands for records without a photo: (id, reason, detail) of each."""

    records: tuple[tuple[str, str, str], ...]


def inputs(root: Path) -> list[Path]:
    """The instances files of a COCO folder, sorted by name.

    Raises:
        UserError: when there is none.
    """
    found = sorted(root.glob(_PATTERN))
    if not found:
        raise UserError(f"{root}: expected a COCO folder holding {_PATTERN}, found none; give the folder above it")
    return found


def scan(root: Path, name: str = _NAME) -> Iterator[Entry]:
    """Every annotated photo, file by file, in the order of the image records.

    A photo that an earlier file gave already is an entry without photo, loaded as ``duplicate_image``.

    Raises:
        UserError: when a file is cut short, no JSON or no COCO file.
    """
    seen: dict[str, str] = {}
    for path in inputs(root):
        yield from _scan_file(root, name, path, seen)


def _scan_file(root: Path, name: str, path: Path, seen: dict[str, str]) -> Iterator[Entry]:
    index = js.read_index(path)
    split = path.stem.removeprefix("instances_")
    folders = _folders(root, split, index.images)
    groups, repeats = _by_image(index.annotations)
    index.annotations.clear()
    known: set[int] = set()
    twice: list[tuple[str, str, str]] = []
    for image in index.images:
        image_id = _image_id(image, name, split)
        if image.id in known:
            twice.append((image_id, "duplicate_id", f"{path.name}: a second image record of id {image.id}"))
            continue
        known.add(image.id)
        group = groups.pop(image.id, None)
        if group is None:
            continue
        if image_id in seen:
            reason = ("duplicate_image", f"{path.name}: read before from {seen[image_id]}")
            yield Entry(f"{image_id}@{path.stem}", _Reject(((f"{image_id}@{path.stem}", *reason),)))
            continue
        seen[image_id] = path.name
        yield Entry(image_id, _photo(image, image_id, folders, group, index, repeats.get(image.id, ())))
    yield from _rejects(name, path, groups, index, twice)


def _by_image(annotations: list[js.Annotation]) -> tuple[dict[int, list[js.Annotation]], dict[int, tuple[int, ...]]]:
    """Annotations by image id, in file order; and by image id the positions in its group whose id stood before."""
    groups: dict[int, list[js.Annotation]] = defaultdict(list)
    for a in annotations:
        groups[a.image_id].append(a)
    repeats: dict[int, tuple[int, ...]] = {}
    again = {id(annotations[n]) for n in js.repeated(annotations)}
    if again:
        for image, group in groups.items():
            repeats[image] = tuple(n for n, a in enumerate(group) if id(a) in again)
    return groups, repeats


def _photo(
    image: js.Image,
    image_id: str,
    folders: tuple[str, ...],
    group: list[js.Annotation],
    index: js.Index,
    repeats: tuple[int, ...],
) -> _Photo:
    licence = index.licences.get(image.license, "") if image.license is not None else ""
    size, key = (image.width, image.height), _photo_key(image, image_id)
    return _Photo(folders, image.file_name, key, size, licence, group, index.labels, repeats)


def _rejects(
    source: str,
    path: Path,
    orphans: dict[int, list[js.Annotation]],
    index: js.Index,
    twice: list[tuple[str, str, str]],
) -> Iterator[Entry]:
    """Entries for what belongs to no photo, so that it is counted and not lost."""
    for number, group in orphans.items():
        name = f"{source}/{number:012d}"
        why = f"{path.name}: no image record of id {number}"
        labels = [index.labels.get(a.category_id, "?") for a in group]
        lost = ((f"{name}#{a.id}", "unknown_image", labelled(why, c)) for a, c in zip(group, labels, strict=True))
        yield Entry(f"{name}@{path.stem}", _Reject(tuple(lost)))
    bad = tuple(
        (_name_of(source, m), "malformed", f"{path.name}: {m.kind} record: {m.detail}") for m in index.malformed
    )
    if bad or twice:
        yield Entry(f"{source}/@{path.stem}", _Reject((*bad, *twice)))


def _name_of(source: str, record: js.Malformed) -> str:
    own, image = record.ids
    if record.kind == "annotation":
        return f"{source}/{f'{image:012d}' if type(image) is int else image}#{own}"
    return f"{source}/{record.kind}/{own}"


def _image_id(image: js.Image, source: str, split: str) -> str:
    name = image.file_name
    if len(name) == 16 and name.endswith(".jpg") and name.isascii() and name[:12].isdecimal():  # nearly all of them
        return f"{source}/{name[:12]}"
    stem = PurePosixPath(name).stem
    official = _OFFICIAL.fullmatch(stem)
    if official:
        return f"{source}/{official[1]}"
    return f"{source}/{split}/{name.rpartition('.')[0] or image.id}"


def _photo_key(image: js.Image, image_id: str) -> str:
    own = image_id.partition("/")[2]
    key = f"coco/{own}" if len(own) == 12 and own.isdecimal() else image_id  # COCO's id, whatever the source's name
    url = image.flickr_url
    if url and "flickr.com/" in url:
        number = url.rpartition("/")[2].partition("_")[0]
        if number.isdecimal():
            return f"{key} flickr/{number}"
    return key


def _folders(root: Path, split: str, images: list[js.Image]) -> tuple[str, ...]:
    """The folder that file names are relative to, with its slash, as the photos on disk tell it.

    Where none tells it, all that may be: a guess first, then those where photos may lie that are fetched later.
    """
    usual = [f"{split}/", f"images/{split}/", "", "images/"]
    others = [f"{d.name}/" for d in sorted(root.iterdir()) if d.is_dir() and d.name != "annotations"]
    every = list(dict.fromkeys([*usual, *others]))
    told = _told(root, every, images)
    if told is not None:
        return (told,)
    # a name with a folder in it is taken from the root, a bare one from its split's folder
    guess = "" if images and "/" in images[0].file_name else usual[0]
    return tuple(dict.fromkeys([guess, *every[: len(usual) + _OTHERS]]))


def _told(root: Path, folders: list[str], images: list[js.Image]) -> str | None:
    """The folder of the first photo that is found; of a store only some are asked for, a request each."""
    first, rest = images[:_FIRST], images[_FIRST:]
    for image in first:
        for folder in folders:
            if _is_there(root, folder + image.file_name):
                return folder
    stored = isinstance(root, locations.Foreign)
    held: dict[str, frozenset[str] | None] = {}
    for image in rest[:: max(1, len(rest) // _REMOTE)] if stored else rest:
        for folder in folders:
            parent, _, name = (folder + image.file_name).rpartition("/")
            if not stored and parent not in held:
                held[parent] = _names(root, parent)
            known = held.get(parent)
            if (known is None or name in known) and _is_there(root, folder + image.file_name):
                return folder
    return None


def _names(root: Path, folder: str) -> frozenset[str] | None:
    """What lies in a folder on a disk, listed once; None where an archive stands for it, which knows its members."""
    try:
        path = inside(root, folder) if folder else root
        if path.is_dir():
            return frozenset(p.name for p in path.iterdir())
        return None if locations.has_folder(root, folder) else frozenset()
    except (Bad, OSError):
        return frozenset()


def _is_there(root: Path, relative: str) -> bool:
    try:
        return inside(root, relative).is_file()
    except (Bad, OSError):
        return False


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its instances; outlines are rasterised here."""
    if isinstance(entry.payload, _Reject):
        return Loaded(
            None, tuple(Dropped(i, "harvest", why, detail, entry.source) for i, why, detail in entry.payload.records)
        )
    photo: _Photo = entry.payload
    try:
        if len(photo.annotations) > MAX_INSTANCES:
            raise Bad("too_many", f"{len(photo.annotations)} annotations, at most {MAX_INSTANCES} are read")
        path, width, height = _frame(root, photo)
    except Bad as bad:
        return Loaded(None, (bad.dropped(entry.image_id, entry.source),), bad.looked(*photo.looked))
    image = ImageRef(entry.image_id, entry.source, path, width, height, photo.photo, "", photo.licence)
    instances: list[Instance] = []
    dropped: list[Dropped] = []
    for n, a in enumerate(photo.annotations):
        instance_id, label = f"{entry.image_id}#{a.id}", photo.labels.get(a.category_id, "")
        try:
            if n in photo.repeats:
                raise Bad("duplicate_id", f"a second annotation of id {a.id}")
            instances.append(_instance(instance_id, label, a, width, height))
        except Bad as bad:
            dropped.append(bad.dropped(instance_id, entry.source, label or "?"))
    return Loaded(SourceImage(image, tuple(instances)), tuple(dropped), photo.looked)


def _frame(root: Path, photo: _Photo) -> tuple[str, int, int]:
    """Where the photo lies below the root, and its size in px."""
    if f"/{photo.name}".rstrip(".").endswith("/"):
        raise Bad("unsafe_path", f"a file name is expected, got {photo.looked[0]!r}")
    first, *others = photo.looked
    # not asked for in a folder that is not there: of a store each is a request
    others = [p for f, p in zip(photo.folders[1:], others, strict=True) if _has(root, f)]
    relative = first_there(root, [first, *others])
    path = inside(root, relative)
    width, height = photo.size
    return relative, *(stored_size(path) if width is None or height is None else usable_size(width, height))


@lru_cache(maxsize=1024)
def _has(root: Path, folder: str) -> bool:
    """Whether a folder, or an archive in its place, is there at all."""
    return not folder or locations.has_folder(root, folder)


def _instance(instance_id: str, label: str, a: js.Annotation, width: int, height: int) -> Instance:
    if not label:
        raise Bad("unknown_category", f"no category of id {a.category_id}")
    mask = _mask(a.segmentation, height, width)
    box = _box(a.bbox) or (mask.box if mask else None)
    if box is None:
        raise Bad("no_box", "neither a bbox nor a segmentation")
    return Instance(instance_id, label, usable_box(box, width, height), mask, None, Flags(crowd=bool(a.iscrowd)))


def _box(bbox: Raw) -> Box | None:
    try:
        values = msgspec.json.decode(bbox, type=list[float | None] | None)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Bad("bad_box", f"bbox: expected [x, y, width, height] px: {e}") from e
    if not values:
        return None
    if len(values) != 4:
        raise Bad("bad_box", f"bbox: expected [x, y, width, height] px, got {len(values)} numbers")
    x, y, w, h = (math.nan if v is None else v for v in values)
    return masks.box_from_xywh(x, y, w, h)


class _Rle(msgspec.Struct):
    size: tuple[int, int]
    counts: str | list[int]


def _mask(outline: Raw, height: int, width: int) -> Mask | None:
    try:
        shape = msgspec.json.decode(outline, type=list[list[float | None]] | _Rle | None)
        if isinstance(shape, _Rle):
            mask = masks.from_rle(shape.size, shape.counts, height, width)
        elif shape:
            mask = _polygons(shape, height, width)
        else:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Bad("bad_segmentation", f"expected polygons or RLE: {e}") from e
    except Bad:
        raise
    except (ValueError, OverflowError) as e:
        raise Bad("bad_rle", str(e)) from e
    if mask.area == 0:
        raise Bad("empty_mask", "the segmentation covers no pixel")
    return mask


def _polygons(polygons: list[list[float | None]], height: int, width: int) -> Mask:
    finite = [[v for v in p if v is not None and math.isfinite(v)] for p in polygons]
    if any(len(f) != len(p) for f, p in zip(finite, polygons, strict=True)):
        raise Bad("not_finite", "a polygon has a coordinate that is no finite number")
    try:
        return masks.from_polygons(finite, height, width)
    except ValueError as e:
        raise Bad("short_polygon", str(e)) from e


def read(root: Path, name: str = _NAME) -> Iterator[SourceImage]:
    """``scan`` and ``load`` in one."""
    return read_all(root, name, scan, load)


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """Write COCO 2017: ``annotations/instances_<split>2017.json`` and ``<split>2017/<12 digits>.jpg``.

    Ids must be COCO's (``coco/<12 digits>``, ``#<number>``). Flags other than crowd, and parsings, are lost. Masks
    without holes become polygons along the pixels' borders; those that polygons cannot give back exactly become RLE.

    Raises:
        UserError: for ids that are no COCO ids.
    """
    coco.write(root, scenes)
