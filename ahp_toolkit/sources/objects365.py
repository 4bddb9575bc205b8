"""Objects365 v1 (2019) and v2 (2020): boxes only, one JSON a split, 25 million boxes in no order (formats §4).

``scan`` passes over each JSON once, writes compact rows to a temporary folder (about 60 bytes a box, under TMPDIR) and
gives the photos with at least one human, by image number, each with all its boxes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, box_from_xywh
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.core.text import short_line
from ahp_toolkit.sources.base import PERSON, Entry, Loaded, Scene, read_all
from ahp_toolkit.sources.reading.grouping import Grouper, Range, bounds, starts
from ahp_toolkit.sources.reading.objects365_json import ANNOTATION, BAD, IMAGE, NO_LABEL, Categories, Sink, pass_over
from ahp_toolkit.sources.reading.shared import MAX_INSTANCES, labelled
from ahp_toolkit.storage import files, images, locations

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
_FOLDERS = ("", "annotations", "train", "val")
#: A row of an entry: annotation id, index into the names, three flags (1, 0, -1 unknown), reason if bad, box.
ROW = np.dtype([(n, ANNOTATION[n]) for n in ("id", "label", "crowd", "fake", "reflected", "bad", "box")])


class Payload(NamedTuple):
    """What ``load`` needs: the photo and its boxes (bytes of ROW), and the class names (one tuple for all entries)."""

    split: str
    file_name: str
    width: int
    height: int
    licence: str
    rows: bytes
    names: tuple[str, ...]


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


def scan(root: Path, name: str = NAME) -> Iterator[Entry]:
    """Every photo with a human, by image number within a file, with all its boxes in the file's order.

    Raises:
        UserError: when a file is missing, cut short or no JSON (with the byte position).
    """
    for split, path in _found(root):
        with tempfile.TemporaryDirectory(prefix="ahp-objects365-") as temp:
            sink = Sink(
                Grouper(Path(temp), "images", IMAGE, texts=True), Grouper(Path(temp), "annotations", ANNOTATION)
            )
            for reject in pass_over(path, sink):
                yield Entry(f"{name}/{split}#{short_line(reject[0])}", Bad(*reject))
            yield from _entries(name, split, sink)


def _entries(name: str, split: str, sink: Sink) -> Iterator[Entry]:
    categories = Categories(sink.categories)
    cuts = bounds([sink.images, sink.annotations])
    for pictures, boxes in zip(sink.images.read(cuts), sink.annotations.read(cuts), strict=True):
        yield from _range((name, split), pictures, boxes.rows, categories, sink.licences)


def _range(
    where: tuple[str, str],
    pictures: Range,
    boxes: NDArray[np.void],
    categories: Categories,
    licences: dict[int, str],
) -> Iterator[Entry]:
    """The entries of one range of image numbers; ``where`` is the names of the source and of its split."""
    source, split = where
    first = starts(boxes["key"])
    if not len(first):
        return
    labels = categories.index(boxes["category"])
    human = np.logical_or.reduceat(categories.human[labels], first)
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
    chosen = np.flatnonzero(human)
    columns = [a[chosen].tolist() for a in (keys, first, last, record, known)]
    for key, a, b, at, there in zip(*columns, strict=True):
        width, height, licence = facts[at] if there else (0, 0, 0)
        name = pictures.texts[at].decode() if there else ""
        image_id = f"{source}/{_stem(name) if name else key}"
        cut = data[a * size : b * size]
        yield Entry(image_id, Payload(split, name, width, height, licences.get(licence, ""), cut, categories.names))


def _stem(name: str) -> str:
    """The file name without folders and suffix."""
    tail = name.replace("\\", "/").rsplit("/", 1)[-1]
    return tail.rpartition(".")[0] or tail or name


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its boxes, clipped to the annotated frame; bad boxes and unusable photos are in ``dropped``."""
    p: Payload | Bad = entry.payload
    source = entry.source
    if isinstance(p, Bad):
        return Loaded(None, (_drop(source, p.id, p.reason, p.detail),))
    if not p.file_name:
        return Loaded(
            None, (_drop(source, entry.image_id, "no_image_record", "boxes of an image that the file does not list"),)
        )
    count = len(p.rows) // ROW.itemsize
    if count > MAX_INSTANCES:
        return Loaded(
            None, (_drop(source, entry.image_id, "too_many", f"{count} boxes, at most {MAX_INSTANCES} are read"),)
        )
    try:
        path = locations.first(root, looked := _looked(root, p.split, p.file_name))
        head = images.header(path)
        (width, height), _ = head.frame((p.width, p.height) if p.width > 0 and p.height > 0 else None)
    except images.ImageError as e:
        return Loaded(None, (_drop(source, entry.image_id, e.reason, str(e)),), looked if e.reason == "missing" else ())
    except ValueError as e:
        return Loaded(None, (_drop(source, entry.image_id, "unsafe_path", str(e)),))
    relative, licence = path.relative_to(root).as_posix(), p.licence or LICENCE
    ref = ImageRef(entry.image_id, source, relative, width, height, licence=licence)
    instances, dropped = _instances(ref, np.frombuffer(p.rows, ROW), p.names)
    return Loaded(SourceImage(ref, tuple(instances)), tuple(dropped))


def _looked(root: Path, split: str, file_name: str) -> tuple[str, ...]:
    """Where a photo may lie: the last two parts of its name below the split's folder, its name alone (formats §4), or
    all of it below the split's folder (as the server lays val out) or below ``root``.

    Raises:
        ValueError: when the name leads out of ``root``.
    """
    files.below(file_name)
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
    seen_ids: set[int] = set()
    seen_boxes: set[tuple[int, tuple[float, ...]]] = set()
    columns = (rows[n].tolist() for n in ROW.names or ())  # a row's own tolist leaves an array in it
    for number, label, crowd, fake, reflected, bad, xywh in zip(*columns, strict=True):
        instance_id = f"{ref.image_id}#{number}"
        exact = (label, tuple(xywh))
        reason, detail = _fault(bad, label, xywh, (crowd, fake, reflected))
        if not reason and (exact in seen_boxes or number in seen_ids):
            reason = "duplicate" if exact in seen_boxes else "duplicate_id"
            detail = f"{names[label]} {xywh} is there already"
        box = box_from_xywh(*xywh).clip(ref.width, ref.height)
        if not reason and (box.width <= 0 or box.height <= 0):
            reason, detail = "box_outside", f"{xywh} lies outside {ref.width}x{ref.height}"
        if reason:
            dropped.append(_drop(ref.source, instance_id, reason, detail, names[label] or "?"))
            continue
        seen_ids.add(number)
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


def read(root: Path, name: str = NAME) -> Iterator[SourceImage]:
    """Every loadable photo with a human."""
    return read_all(root, name, scan, load)


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """The layout of v2: ``zhiyuan_objv2_<split>.json`` and ``<split>/patchK/NAME.jpg``; held in memory (small sizes).

    An instance id ends in ``#`` and the annotation's number; where it does not, the annotations are numbered.
    """
    splits: dict[str, list[SourceImage]] = {}
    for scene in scenes:
        splits.setdefault(scene.split, []).append(scene.image)
        images.write_jpeg(files.safe_join(root, _relative(scene)), scene.pixels)
    for split, found in splits.items():
        files.write_json(root / FILES[split][0], _document(found))


def _relative(scene: Scene) -> str:
    stem = scene.image.image.image_id.split("/", 1)[-1]
    return f"{scene.split}/{_patch(stem)}/{stem}.jpg"


def _patch(stem: str) -> str:
    return f"patch{hashing.seed_of(stem) % 51}"


def _document(found: Sequence[SourceImage]) -> dict[str, Any]:
    labels = sorted({i.label for image in found for i in image.instances} - {PERSON})
    numbers = {name: n for n, name in enumerate([PERSON, *labels], 1)}
    licences = {name: n for n, name in enumerate(sorted({s.image.licence for s in found} - {LICENCE, ""}), 1)}
    document: dict[str, Any] = {
        "categories": [{"id": n, "name": name.capitalize()} for name, n in numbers.items()],
        "licenses": [{"id": n, "name": name, "url": ""} for name, n in licences.items()],
        "images": [],
        "annotations": [],
    }
    number = 0
    for image_number, image in enumerate(found, 1):
        ref = image.image
        stem = ref.image_id.split("/", 1)[-1]
        document["images"].append(
            {"id": image_number, "width": ref.width, "height": ref.height, "license": licences.get(ref.licence, 0),
             "file_name": f"images/v2/{_patch(stem)}/{stem}.jpg", "url": ""}
        )  # fmt: skip
        for instance in image.instances:
            number += 1
            document["annotations"].append(_annotation(instance, image_number, number, numbers[instance.label]))
    return document


def _annotation(instance: Instance, image_number: int, number: int, category: int) -> dict[str, Any]:
    tail = instance.instance_id.rpartition("#")[2]
    box: Box = instance.box
    record: dict[str, Any] = {
        "id": int(tail) if tail.isdigit() else number,
        "image_id": image_number,
        "category_id": category,
        "bbox": [box.x0, box.y0, _extent(box.x0, box.x1), _extent(box.y0, box.y1)],
        "area": box.area,
    }
    said = {
        "iscrowd": instance.flags.crowd,
        "isfake": instance.flags.depiction,
        "isreflected": instance.flags.reflection,
    }
    return record | {name: int(value) for name, value in said.items() if value is not None}


def _extent(a: float, b: float) -> float:
    """The width w for which a + w is b to the last bit."""
    w = b - a
    for near in (w, math.nextafter(w, math.inf), math.nextafter(w, -math.inf)):
        if a + near == b:
            return near
    return w
