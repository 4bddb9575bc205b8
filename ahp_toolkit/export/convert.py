"""Annotations from one format to another, without a build: ``ahp convert`` (formats §6).

The visible part (modal) and the whole object (amodal) are kept apart. A format that holds one of them loses the other,
and what is lost is counted by its kind. Photos are neither opened, where the annotations have their sizes, nor copied.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask, encode, intersection_union, xywh_from_box
from ahp_toolkit.core.records import Flags, ImageRef, Instance
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.export.annotations import box_of, segmentation
from ahp_toolkit.export.polygons import flat, loops, polygons
from ahp_toolkit.sources import SOURCES, coco
from ahp_toolkit.sources.base import SourceRoot, label_of
from ahp_toolkit.sources.reading import meaning
from ahp_toolkit.storage import files, images, locations

#: Formats that are read beside the sources; those that are written.
AMODAL_FORMATS, TARGETS = ("cocoa", "kins", "labelme"), ("coco", "cocoa", "kins", "yolo", "png")
_AMODAL_MARKS, _MODAL_MARKS = ("amodal", "full", "whole"), ("modal", "inmodal", "visible")


@dataclass(frozen=True)
class Thing:
    """An annotated object: ``instance.mask`` is its visible part, ``amodal`` the whole; None where not known."""

    instance: Instance
    amodal: Mask | None


@dataclass(frozen=True)
class Photo:
    """A photo with its objects; ``image.path`` is below the root of its source."""

    image: ImageRef
    things: tuple[Thing, ...]


@dataclass
class Account:
    """What went in, what came out, and what was lost, by kind; ``examples``: one record of each kind."""

    photos: int = 0
    things: int = 0
    written: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def lose(self, kind: str, example: str) -> None:
        """Count one loss."""
        self.lost[kind] += 1
        self.examples.setdefault(kind, example)

    def lines(self) -> list[str]:
        """One line a kind of loss."""
        return [f"lost: {n} {kind}, such as {self.examples[kind]}" for kind, n in sorted(self.lost.items())]


def convert(
    sources: Iterable[str], target: str, out: Path, person_names: Collection[str] = (), account: Account | None = None
) -> Account:
    """Write sources (``[NAME:]FORMAT=PATH``) in another format into a new folder.

    Raises:
        UserError: for an unknown format, a folder that is not empty, a file that cannot be read, or nothing to write.
    """
    account = account or Account()
    roots = [SourceRoot.parse(text) for text in sources]
    twice = next((r.name for n, r in enumerate(roots) if r.name in [x.name for x in roots[:n]]), None)
    if twice is not None:
        raise UserError(f"two sources are named {twice!r}; name one of them: NAME:FORMAT=PATH")
    if target not in TARGETS:
        raise UserError(f"no format is named {target!r}; known: {', '.join(TARGETS)}")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: expected a new or an empty folder; give another --out")
    people = frozenset(n.strip().lower() for n in person_names)
    for root in roots:
        photos = list(_counted(read(root, people, account), account))
        _WRITERS[target](out, root.name, photos, account)
    if not account.written:
        raise UserError(
            f"{', '.join(r.path for r in roots)}: nothing to write as {target} among {account.things} objects of "
            f"{account.photos} photos; {'; '.join(account.lines()) or 'are these the right files?'}"
        )
    return account


def _counted(photos: Iterable[Photo], account: Account) -> Iterator[Photo]:
    for photo in photos:
        account.photos += 1
        account.things += len(photo.things)
        yield photo


def read(root: SourceRoot, people: Collection[str], account: Account) -> Iterator[Photo]:
    """Every photo of a source with its objects.

    Raises:
        UserError: for an unknown format, or a file that cannot be read.
    """
    path = locations.place(root.path)
    if root.format == "labelme":
        yield from _labelme(path, root.name, people, account)
    elif root.format == "cocoa" and (regions := [p for p in _json_files(path, "*.json") if _has_regions(p)]):
        for file in regions:
            yield from _cocoa(file, root.name, people, account)
    else:
        yield from _source(root, path, people, account)


def _json_files(path: Path, pattern: str) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.glob(pattern)) or sorted(path.glob(f"annotations/{pattern}"))
    if not found:
        raise UserError(f"{path}: expected a JSON file, or a folder with {pattern} in it or in annotations")
    return found


def _source(root: SourceRoot, path: Path, people: Collection[str], account: Account) -> Iterator[Photo]:
    """The photos of a format of the build, of KINS, and of COCOA with classes, which COCO's reader knows."""
    module = SOURCES.get("coco" if root.format in AMODAL_FORMATS else root.format)
    if module is not coco or (path.is_dir() and root.format == "coco"):
        base, entries = path, module.scan(path, root.name, people)
    else:
        chosen = _json_files(path, "*.json")
        base = chosen[0].parent.parent if chosen[0].parent.name == "annotations" else chosen[0].parent
        entries = coco.scan_files(base, chosen, root.name, people)
    for entry in entries:
        loaded = module.load(base, entry)
        for d in loaded.dropped:
            account.lose(f"records: {d.reason}", f"{d.id}: {d.detail}")
        for label, n in loaded.passed_over.items():
            account.lost[f"objects of photos without a person: {label}"] += n
            account.examples.setdefault(f"objects of photos without a person: {label}", root.name)
        if loaded.image is not None:
            things = tuple(_thing(i, loaded.amodal.get(i.instance_id)) for i in loaded.image.instances)
            image = loaded.image.image
            if len(loaded.looked) > 1:  # the photo is not there: its name as the record gives it
                image = replace(image, path=min(loaded.looked, key=len))
            yield Photo(image, things)


def _thing(instance: Instance, amodal: Mask | None) -> Thing:
    """An object; one that its file calls unoccluded is whole."""
    if amodal is None and instance.flags.occluded is False:
        amodal = instance.mask
    return Thing(instance, amodal)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(values.decode_text(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: cannot be read as JSON ({e})") from e


def _has_regions(path: Path) -> bool:
    document = _read_json(path)
    notes = document.get("annotations") if isinstance(document, dict) else None
    return isinstance(notes, list) and any(isinstance(a, dict) and "regions" in a for a in notes)


def _cocoa(path: Path, name: str, people: Collection[str], account: Account) -> Iterator[Photo]:
    """COCOA's regions: one annotation a photo (and annotator), a region an object."""
    document = _read_json(path)
    pictures: dict[Any, dict[str, Any]] = {}
    for record in document.get("images") or []:
        if isinstance(record, dict) and record.get("id") is not None:
            pictures[values.identifier(record["id"])] = record
    for n, note in enumerate(document["annotations"]):
        try:
            picture = pictures[values.identifier(note.get("image_id"))]
            size = values.size(picture.get("width"), picture.get("height"))
            if size is None:
                raise BadValue("bad_size", "the image record has no width and height")
        except (KeyError, BadValue, AttributeError) as e:
            account.lose("records: unknown_image", f"{path.name} annotation {n}: {e}")
            continue
        stem = f"{name}/{str(picture.get('file_name')).rpartition('.')[0]}@{n}"
        image = ImageRef(stem, name, str(picture.get("file_name")), *size)
        things = []
        for k, region in enumerate(note.get("regions") or [], 1):
            record = {"occlude_rate": 0, **region} if isinstance(region, dict) else {}
            label = label_of(str(record.get("name") or "object"), people)
            things += _outlined(f"{stem}#{k}", label, record, image, account)
        yield Photo(image, tuple(things))


def _outlined(
    instance_id: str, label: str, record: Mapping[str, Any], image: ImageRef, account: Account
) -> list[Thing]:
    """The object of a record with COCO's, COCOA's or KINS's fields; none where it cannot be used."""
    try:
        found = meaning.outlines(record, image.height, image.width)
        if found.box is None:
            raise BadValue("no_box", "neither a bbox nor a segmentation")
    except BadValue as bad:
        account.lose(f"records: {bad.reason}", f"{instance_id}: {bad}")
        return []
    instance = Instance(instance_id, label, found.box, found.modal, None, Flags(occluded=found.occluded))
    return [_thing(instance, found.amodal)]


def _labelme(path: Path, name: str, people: Collection[str], account: Account) -> Iterator[Photo]:
    """Labelme's files: outlines of one ``group_id`` and label are one object; 'amodal' in a label marks the whole."""
    for file in _json_files(path, "*.json"):
        document = _read_json(file)
        shapes = document.get("shapes") if isinstance(document, dict) else None
        if not isinstance(shapes, list):
            raise UserError(f"{file}: expected a file of labelme with shapes, imagePath, imageWidth and imageHeight")
        size = values.size(document.get("imageWidth"), document.get("imageHeight"))
        if size is None:
            account.lose("photos without a size", file.name)
            continue
        picture = PurePosixPath(str(document.get("imagePath") or file.stem).replace("\\", "/")).name
        image = ImageRef(f"{name}/{file.stem}", name, picture, *size)
        groups: dict[Any, dict[str, Any]] = {}
        for n, shape in enumerate(s for s in shapes if isinstance(s, dict)):
            kind, label = _kind(shape)
            group = shape.get("group_id")
            key = (label, group) if group is not None else (label, f"#{n}")
            if shape.get("shape_type") not in ("polygon", None):
                account.lose(f"shapes: {shape.get('shape_type')}", f"{file.name} shape {n}")
            else:
                groups.setdefault(key, {}).setdefault(kind, []).append(shape.get("points"))
        things = []
        for n, ((label, _), outlines) in enumerate(groups.items(), 1):
            things += _outlined(f"{image.image_id}#{n}", label_of(label, people), outlines, image, account)
        yield Photo(image, tuple(things))


def _kind(shape: Mapping[str, Any]) -> tuple[str, str]:
    """(the field of `meaning` that a shape is, its label without the mark)."""
    parts = str(shape.get("label") or "object").lower().replace("-", "_").replace("(", "_").replace(")", "").split("_")
    marks = {p.strip() for p in parts} | {k for k, v in (shape.get("flags") or {}).items() if v}
    label = "_".join(p.strip() for p in parts if p.strip() and p.strip() not in (*_AMODAL_MARKS, *_MODAL_MARKS))
    kind = "a_segm" if marks & set(_AMODAL_MARKS) else "i_segm" if marks & set(_MODAL_MARKS) else "segmentation"
    return kind, label or "object"


# -- writers ----------------------------------------------------------------------------------------------------------
def _number(instance: Instance, taken: set[int], n: int) -> int:
    tail = instance.instance_id.rpartition("#")[2]
    number = int(tail) if tail.isdecimal() and int(tail) not in taken and int(tail) < 2**53 else n
    while number in taken:
        number += 1
    taken.add(number)
    return number


def _tables(photos: list[Photo]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(image records, category numbers; person is 1)."""
    rows = [
        {"id": n, "file_name": p.image.path, "width": p.image.width, "height": p.image.height}
        for n, p in enumerate(photos, 1)
    ]
    labels = sorted({t.instance.label for p in photos for t in p.things}, key=lambda label: (label != "person", label))
    return rows, {label: n for n, label in enumerate(labels, 1)}


def _flat_file(path: Path, photos: list[Photo], account: Account, fields: Any) -> None:
    """One COCO-like JSON; ``fields(thing, account)`` gives an annotation's own fields, None for what cannot be told."""
    rows, categories = _tables(photos)
    notes: list[dict[str, Any]] = []
    taken: set[int] = set()
    for image, photo in enumerate(photos, 1):
        for thing in photo.things:
            own = fields(thing, account)
            if own is None:
                continue
            number = _number(thing.instance, taken, len(notes) + 1)
            head = {"id": number, "image_id": image, "category_id": categories[thing.instance.label]}
            notes.append(head | {"iscrowd": int(bool(thing.instance.flags.crowd))} | own)
            account.written += 1
    table = [{"id": n, "name": label, "supercategory": label} for label, n in categories.items()]
    files.write_json(path, {"images": rows, "annotations": notes, "categories": table})


def _losses(thing: Thing, account: Account) -> None:
    """Count what no target holds."""
    if thing.instance.parsing is not None:
        account.lose("body part maps", thing.instance.instance_id)


def _coco_fields(thing: Thing, account: Account) -> dict[str, Any]:
    i = thing.instance
    _losses(thing, account)
    if thing.amodal is not None and thing.amodal != i.mask:
        account.lose("amodal outlines (COCO holds the visible part)", i.instance_id)
    own: dict[str, Any] = {"bbox": list(xywh_from_box(i.box)), "area": i.mask.area if i.mask else i.box.area}
    own["segmentation"] = segmentation(i.mask) if i.mask else []
    if i.mask is None:
        account.lose("outlines that the source does not have (a box is written)", i.instance_id)
    flags = {"occluded": i.flags.occluded, "truncated": i.flags.truncated, "difficult": i.flags.difficult}
    return own | {name: int(value) for name, value in flags.items() if value is not None}


def _both(thing: Thing, account: Account) -> tuple[Mask, Mask, float] | None:
    """(modal, amodal, hidden share); None, counted, where one of the two is not known."""
    _losses(thing, account)
    modal, amodal = thing.instance.mask, thing.amodal
    if modal is None or amodal is None:
        which = "visible" if modal is None else "amodal"
        account.lose(f"objects without {which} outline", thing.instance.instance_id)
        return None
    whole = amodal if intersection_union(modal, amodal)[0] == modal.area else encode(modal.decode() | amodal.decode())
    return modal, whole, 1 - modal.area / whole.area


def _cocoa_fields(thing: Thing, account: Account) -> dict[str, Any] | None:
    both = _both(thing, account)
    if both is None:
        return None
    modal, amodal, rate = both
    hidden = encode(amodal.decode() & ~modal.decode())
    return {
        "segmentation": segmentation(amodal), "bbox": box_of(amodal), "area": amodal.area, "isStuff": 0,
        "occlude_rate": rate, "visible_mask": modal.rle_json, "invisible_mask": hidden.rle_json,
    }  # fmt: skip


def _kins_fields(thing: Thing, account: Account) -> dict[str, Any] | None:
    both = _both(thing, account)
    if both is None:
        return None
    modal, amodal, _ = both
    return {
        "segmentation": polygons(amodal), "bbox": box_of(amodal), "area": amodal.area,
        "inmodal_seg": modal.rle_json, "inmodal_bbox": box_of(modal),
        "a_bbox": box_of(amodal), "a_segm": polygons(amodal), "a_area": amodal.area,
        "i_bbox": box_of(modal), "i_segm": polygons(modal), "i_area": modal.area,
    }  # fmt: skip


def _write_coco(out: Path, name: str, photos: list[Photo], account: Account) -> None:
    _flat_file(out / "annotations" / f"instances_{name}.json", photos, account, _coco_fields)


def _write_cocoa(out: Path, name: str, photos: list[Photo], account: Account) -> None:
    _flat_file(out / "annotations" / f"{name}_amodal.json", photos, account, _cocoa_fields)


def _write_kins(out: Path, name: str, photos: list[Photo], account: Account) -> None:
    _flat_file(out / "annotations" / f"instances_{name}.json", photos, account, _kins_fields)


def _write_yolo(out: Path, name: str, photos: list[Photo], account: Account) -> None:
    """One text file a photo: class and the visible outline, in shares of the photo; ``data.yaml`` names the classes."""
    _, categories = _tables(photos)
    for photo in photos:
        w, h = photo.image.width, photo.image.height
        lines = []
        for thing in photo.things:
            i = thing.instance
            _losses(thing, account)
            if thing.amodal is not None and thing.amodal != i.mask:
                account.lose("amodal outlines (YOLO holds the visible part)", i.instance_id)
            if i.mask is None:
                account.lose("objects without visible outline", i.instance_id)
                continue
            outline = flat(loops(i.mask))
            points = (f"{v / (h if n % 2 else w):.6f}" for n, v in enumerate(outline))
            lines.append(f"{categories[i.label] - 1} {' '.join(points)}\n")
            account.written += 1
        path = PurePosixPath(photo.image.path.replace("\\", "/")).with_suffix(".txt")
        safe = [p for p in path.parts if p not in ("/", "..")]
        files.write_bytes(out / "labels" / name / "/".join(safe), "".join(lines).encode())
    names = "".join(f"  {n - 1}: {json.dumps(label)}\n" for label, n in categories.items())
    files.write_bytes(out / f"{name}.yaml", f"names:\n{names}".encode())


def _write_png(out: Path, name: str, photos: list[Photo], account: Account) -> None:
    """A PNG (0 and 255) an object and kind, ``NAME/modal`` and ``NAME/amodal``; ``NAME.json`` says what each is."""
    index = []
    for photo in photos:
        for thing in photo.things:
            i = thing.instance
            _losses(thing, account)
            found = {kind: m for kind, m in (("modal", i.mask), ("amodal", thing.amodal)) if m is not None}
            if not found:
                account.lose("objects without outline", i.instance_id)
                continue
            stem = f"{file_stem(i.instance_id)}.png"
            for kind, mask in found.items():
                images.write_png(out / name / kind / stem, mask.decode().astype(np.uint8) * np.uint8(255))
            record = {"id": i.instance_id, "photo": photo.image.path, "label": i.label, "occluded": i.flags.occluded}
            index.append(record | {kind: f"{name}/{kind}/{stem}" for kind in found})
            account.written += 1
    files.write_json(out / f"{name}.json", index)


_WRITERS = {
    "coco": _write_coco, "cocoa": _write_cocoa, "kins": _write_kins, "yolo": _write_yolo, "png": _write_png,
}  # fmt: skip
