"""Objects365 v1 (2019) and v2 (2020): boxes only, one JSON a split, 25 million boxes in no order (formats §4).

``scan`` passes over each JSON once, writes compact rows to a temporary folder (about 60 bytes a box, under TMPDIR) and
gives the photos with at least one human, by image number, each with all its boxes.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import box_from_xywh
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.core.text import short_line
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import PERSON, Entry, Loaded, PassedOver, passed_over
from ahp_toolkit.sources.reading.grouping import Grouper, Range, bounds, starts
from ahp_toolkit.sources.reading.objects365_json import ANNOTATION, BAD, IMAGE, NO_LABEL, Categories, Sink, pass_over
from ahp_toolkit.sources.reading.shared import (
    MAX_INSTANCES,
    first_there,
    inside,
    labelled,
    looked_for,
    stored_frame,
)
from ahp_toolkit.storage import files

NAME = "objects365"
LICENCE = "annotations CC BY 4.0, academic purpose only; images: Flickr terms of use, not to be redistributed"
HOMEPAGE = "https://www.objects365.org"
#: What survives ``write`` and ``read``: no masks, no parsings; these flags.
CARRIES = frozenset({"label", "crowd", "depiction", "reflection"})
RANK = 3
FILES = {
    "train": ("zhiyuan_objv2_train.json", "objects365_train.json"),
    "val": ("zhiyuan_objv2_val.json", "objects365_val.json"),
}
#: Objects365's own names of photos.
_OWN = re.compile(r"objects365_v[12]_\d{8}")
_FOLDERS = ("", "annotations", "train", "val")
#: A row of an entry: annotation id, index into the names, three flags (1, 0, -1 unknown), reason if bad, box.
ROW = np.dtype([(n, ANNOTATION[n]) for n in ("id", "label", "crowd", "fake", "reflected", "bad", "box")])


class Payload(NamedTuple):
    """What ``load`` needs: the photo and its boxes (bytes of ROW), and the class names (one tuple for all entries).

    ``names_of_id``: the files, where one image number is given to several.
    """

    split: str
    file_name: str
    width: int
    height: int
    licence: str
    rows: bytes
    names: tuple[str, ...]
    names_of_id: str = ""


class Bad(NamedTuple):
    """A record that belongs to no photo."""

    id: str
    reason: str
    detail: str


def _found(root: Path) -> list[tuple[str, Path]]:
    found = [
        (split, root / folder / name)
        for split, names in FILES.items()
        for name in names
        for folder in _FOLDERS
        if (root / folder / name).is_file()
    ]
    if not found:
        raise UserError(f"{root}: no Objects365 here, expected {FILES['train'][0]} or {FILES['val'][0]} in it")
    return found


def inputs(root: Path) -> list[Path]:
    """The JSON files, train before val, v2 before v1.

    Raises:
        UserError: when there is none.
    """
    return [path for _, path in _found(root)]


def scan(root: Path, name: str = NAME, person_names: Collection[str] = ()) -> Iterator[Entry]:
    """Every photo with a human, by image number within a file, with all its boxes in the file's order.

    Raises:
        UserError: when a file is missing, cut short or no JSON (with the byte position).
    """
    for split, path in _found(root):
        with tempfile.TemporaryDirectory(prefix="ahp-objects365-") as temp:
            sink = Sink(
                Grouper(Path(temp), "images", IMAGE, texts=True), Grouper(Path(temp), "annotations", ANNOTATION)
            )
            for reject in pass_over(path, sink, person_names):
                yield Entry(f"{name}/{split}#{short_line(reject[0])}", Bad(*reject))
            yield from _entries(name, split, sink, person_names)


def _entries(name: str, split: str, sink: Sink, person_names: Collection[str]) -> Iterator[Entry]:
    categories = Categories(sink.categories, person_names)
    left_out = np.zeros(len(categories.names), np.int64)
    cuts = bounds([sink.images, sink.annotations])
    for pictures, boxes in zip(sink.images.read(cuts), sink.annotations.read(cuts), strict=True):
        if not len(boxes.rows):
            continue
        labels, first = categories.index(boxes.rows["category"]), starts(boxes.rows["key"])
        human = np.logical_or.reduceat(categories.human[labels], first)
        alone = ~np.repeat(human, np.diff(np.append(first, len(labels))))
        left_out += np.bincount(labels[alone], minlength=len(left_out))
        index = _Index(name, split, labels, first, np.flatnonzero(human))
        yield from _range(index, pictures, boxes.rows, categories, sink.licences)
    others = passed_over(categories.names, left_out.tolist())
    if others is not None:
        yield Entry(f"{name}/@{split}", others)


class _Index(NamedTuple):
    """A range of boxes: names of the source and its split, label of each box, first box of each photo, those chosen."""

    source: str
    split: str
    labels: NDArray[np.uint32]
    first: NDArray[np.int64]
    chosen: NDArray[np.int64]


def _range(
    index: _Index, pictures: Range, boxes: NDArray[np.void], categories: Categories, licences: dict[int, str]
) -> Iterator[Entry]:
    """The entries of one range of image numbers."""
    source, split, labels, first, chosen = index
    keys = boxes["key"][first]
    last = np.append(first[1:], len(boxes))
    rows = np.empty(len(boxes), ROW)
    for name in ROW.names or ():
        rows[name] = labels if name == "label" else boxes[name]
    record = np.searchsorted(pictures.rows["key"], keys)
    known = np.append(pictures.rows["key"], 0)[record] == keys
    known &= record < len(pictures.rows)
    data, size = rows.tobytes(), ROW.itemsize
    facts = pictures.rows[["width", "height", "licence"]].tolist()
    ambiguous = _ambiguous(pictures)
    columns = [a[chosen].tolist() for a in (keys, first, last, record, known)]
    for key, a, b, at, there in zip(*columns, strict=True):
        width, height, licence = facts[at] if there else (0, 0, 0)
        name = pictures.texts[at].decode() if there else ""
        image_id = f"{source}/{_own_id(split, name) if name else key}"
        cut, licence_name = data[a * size : b * size], licences.get(licence, "")
        names = ambiguous.get(key, "")
        yield Entry(image_id, Payload(split, name, width, height, licence_name, cut, categories.names, names))


def _ambiguous(pictures: Range) -> dict[int, str]:
    """The image numbers that several files have, with their names."""
    keys = pictures.rows["key"]
    found: dict[int, str] = {}
    for at in np.flatnonzero(keys[1:] == keys[:-1]).tolist():
        if pictures.texts[at] != pictures.texts[at + 1]:
            names = b" and ".join(pictures.texts[at : at + 2])
            found[int(keys[at])] = names.decode()
    return found


def _own_id(split: str, name: str) -> str:
    """The name of a photo of Objects365 without folders and ending; of others the path below the split."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if _OWN.fullmatch(path.stem) else f"{split}/{path.with_suffix('').as_posix().lstrip('./')}"


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its boxes, clipped to the annotated frame; bad boxes and unusable photos are in ``dropped``."""
    p: Payload | Bad | PassedOver = entry.payload
    source = entry.source
    if isinstance(p, PassedOver):
        return Loaded(None, is_photo=False, passed_over=p.labels)
    if isinstance(p, Bad):
        return Loaded(None, (_drop(source, p.id, p.reason, p.detail),), is_photo=False)
    looked: tuple[str, ...] = ()
    try:
        _check(p)
        looked = _looked(root, p.split, p.file_name)
        relative = first_there(root, looked)
        size = (p.width, p.height) if p.width > 0 and p.height > 0 else None
        width, height = stored_frame(inside(root, relative), size)
    except BadValue as bad:
        return Loaded(None, (_drop(source, entry.image_id, bad.reason, str(bad)),), looked_for(bad, looked))
    ref = ImageRef(entry.image_id, source, relative, width, height, licence=p.licence or LICENCE)
    instances, dropped = _instances(ref, np.frombuffer(p.rows, ROW), p.names)
    return Loaded(SourceImage(ref, tuple(instances)), tuple(dropped))


def _check(p: Payload) -> None:
    """Check that the boxes have one photo, and are not too many.

    Raises:
        BadValue: ``no_image_record``, ``ambiguous_id`` or ``too_many``.
    """
    count = len(p.rows) // ROW.itemsize
    if not p.file_name:
        raise BadValue("no_image_record", "boxes of an image that the file does not list")
    if p.names_of_id:
        raise BadValue("ambiguous_id", f"one image id is given to {p.names_of_id}")
    if count > MAX_INSTANCES:
        raise BadValue("too_many", f"{count} boxes, at most {MAX_INSTANCES} are read")


def _looked(root: Path, split: str, file_name: str) -> tuple[str, ...]:
    """Where a photo may lie: the last two parts of its name below the split's folder, its name alone (formats §4), or
    all of it below the split's folder (as the server lays val out) or below ``root``.

    Raises:
        BadValue: ``unsafe_path`` when the name leads out of ``root``.
    """
    try:
        files.below(file_name)
    except ValueError as e:
        raise BadValue("unsafe_path", str(e)) from e
    parts = PurePosixPath(file_name.replace("\\", "/")).parts
    name, tail, whole = (f"/{'/'.join(parts[-n:])}" for n in (1, 2, len(parts)))
    unpacked = _is_folder(root, (split + tail).rpartition("/")[0])  # then archives left elsewhere stay closed
    packed = [] if unpacked else [split + whole, f"images/{split}{tail}", whole[1:]]
    return (split + tail, *packed, split + name, f"images/{split}{name}")


@lru_cache(maxsize=4096)
def _is_folder(root: Path, folder: str) -> bool:
    return (root / folder).is_dir()


def _instances(ref: ImageRef, rows: NDArray[np.void], names: Sequence[str]) -> tuple[list[Instance], list[Dropped]]:
    kept: list[Instance] = []
    dropped: list[Dropped] = []
    seen_ids: Counter[int] = Counter()
    seen_boxes: set[tuple[int, tuple[float, ...]]] = set()
    columns = (rows[n].tolist() for n in ROW.names or ())  # a row's own tolist leaves an array in it
    for number, label, crowd, fake, reflected, bad, xywh in zip(*columns, strict=True):
        instance_id = f"{ref.image_id}#{number}"
        exact = (label, tuple(xywh))
        reason, detail = _fault(bad, label, xywh, (crowd, fake, reflected))
        if not reason and exact in seen_boxes:
            reason = "duplicate"
            detail = f"{names[label]} {xywh} is there already"
        box = box_from_xywh(*xywh).clip(ref.width, ref.height)
        if not reason and (box.width <= 0 or box.height <= 0):
            reason, detail = "box_outside", f"{xywh} lies outside {ref.width}x{ref.height}"
        if reason:
            dropped.append(_drop(ref.source, instance_id, reason, detail, names[label] or "?"))
            continue
        seen_ids[number] += 1  # another box of the same id is another object
        instance_id += f"-{seen_ids[number]}" if seen_ids[number] > 1 else ""
        seen_boxes.add(exact)
        flags = Flags(crowd=_tri(crowd), depiction=_tri(fake), reflection=_tri(reflected))
        kept.append(Instance(instance_id, names[label], box, flags=flags))
    return kept, dropped


def _fault(bad: int, label: int, xywh: Sequence[float], flags: Sequence[int]) -> tuple[str, str]:
    """(reason, detail) why a row is no instance; empty strings where it is one."""
    if bad:
        return BAD[bad], "a field of the record is missing or of the wrong type"
    if label == NO_LABEL:
        return "unknown_category", "category_id is not in the file's categories"
    if not all(map(math.isfinite, xywh)):
        return "bad_box", f"bbox holds what is no finite number: {xywh}"
    if any(f not in (-1, 0, 1) for f in flags):
        return "bad_flag", f"expected 0 or 1 for iscrowd, isfake, isreflected, got {list(flags)}"
    if xywh[2] < 1 or xywh[3] < 1:
        return "zero_area", f"width or height below 1 px: {xywh}"
    return "", ""


def _tri(value: int) -> bool | None:
    return None if value < 0 else value == 1


def _drop(source: str, id_: str, reason: str, detail: str, label: str = PERSON) -> Dropped:
    return Dropped(id_ or "?", "harvest", reason, labelled(detail, label), source)
