"""COCO 2014 and 2017, and folders of the same build (formats §1).

``annotations/instances_*.json`` beside image folders such as ``train2017/`` (else Roboflow's ``_annotations.coco.json``
and other JSON files there). A photograph's identity is its path below the root; for COCO's own files it is COCO's
number. Records of one photograph, in one file or several, are united.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import Entry, Loaded, label_of
from ahp_toolkit.sources.reading import coco_json as js
from ahp_toolkit.sources.reading import meaning
from ahp_toolkit.sources.reading.finder import Finder, Found
from ahp_toolkit.sources.reading.shared import (
    MAX_INSTANCES,
    coco_key,
    dropped_of,
    first_there,
    frame_size,
    inside,
    labelled,
    looked_for,
    usable_box,
)

LICENCE = "annotations CC BY 4.0; photos under Flickr's terms and each photo's own licence"
HOMEPAGE = "https://cocodataset.org"
CARRIES = frozenset({"mask", "crowd", "label"})
RANK, IS_CROP = 0, False

_PATTERNS = ("annotations/instances_*.json", "annotations/*.json", "_annotations.coco.json", "*/_annotations.coco.json")
_NOT_INSTANCES = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
#: COCO's own splits, and the name of a photo in them.
_OWN_SPLITS = frozenset(
    ("train2014", "val2014", "test2014", "test2015", "train2017", "val2017", "test2017", "unlabeled2017")
)
_OWN_NAME = re.compile(r"(?:COCO_[a-z]+20\d\d_)?(\d{12})\.jpg")


class _Photo(NamedTuple):
    """Payload of a photo: where it lies, its key and size, and its annotations from each file with their labels."""

    found: Found
    key: str
    size: tuple[int, int] | None
    licence: str
    parts: tuple[tuple[dict[js.Id, str], list[js.Annotation]], ...]


class _Reject(NamedTuple):
    """Payload that stands for records without a photo: (id, reason, detail) of each."""

    records: tuple[tuple[str, str, str], ...]


def inputs(root: Path) -> list[Path]:
    """The instances files of a COCO folder, sorted by name.

    Raises:
        UserError: when there is none.
    """
    for pattern in _PATTERNS:
        found = sorted(p for p in root.glob(pattern) if not p.name.startswith(_NOT_INSTANCES))
        if found:
            return found
    raise UserError(f"{root}: expected a COCO folder holding {_PATTERNS[0]}, found none; give the folder above it")


def scan(root: Path, name: str = "coco", person_names: Collection[str] = ()) -> Iterator[Entry]:
    """Every annotated photo, in the order of the image records of the files.

    Raises:
        UserError: when a file is cut short, no JSON or no COCO file.
    """
    return scan_files(root, inputs(root), name, person_names)


def scan_files(root: Path, paths: Sequence[Path], name: str, person_names: Collection[str] = ()) -> Iterator[Entry]:
    """`scan` of chosen files.

    Raises:
        UserError: when a file is cut short, no JSON or no COCO file.
    """
    collected = _Collected(root, name, person_names)
    for path in paths:
        collected.add(path)
    yield from collected.entries()


@dataclass
class _Collected:
    """The photos of all files, by where they lie, and the records that belong to no photo."""

    root: Path
    name: str
    person_names: Collection[str]
    photos: dict[str, tuple[str, _Photo]] = field(default_factory=dict)
    rejects: list[Entry] = field(default_factory=list)
    ids: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        """Take in one file."""
        index = js.read_index(path)
        split = path.parent.name if path.name == "_annotations.coco.json" else path.stem.removeprefix("instances_")
        labels = {number: label_of(name, self.person_names) for number, name in index.labels.items()}
        groups: dict[js.Id, list[js.Annotation]] = defaultdict(list)
        for a in index.annotations:
            groups[a.image_id].append(a)
        for m in index.malformed:
            if m.kind == "annotation" and isinstance(m.ids[1], (int, str)) and m.ids[1] != "?":
                groups[m.ids[1]] += []  # its photo is one with annotations
        ambiguous = _ambiguous(index.images)
        lost: list[tuple[str, str, str]] = []
        for number, names in ambiguous.items():
            why = f"{path.name}: the image id {number} is given to {' and '.join(names[:3])}"
            lost += [(f"{self.name}/{split}/{name}", "ambiguous_id", why) for name in names]
            lost += self._orphans(number, groups.pop(number, []), labels, "ambiguous_id", why)
        for image, found in self._found(path, split, index.images):
            if image.id not in ambiguous and (group := groups.get(image.id)) is not None:
                licence = index.licences.get(image.licence, "") if image.licence is not None else ""
                self._put(path, split, image, _Photo(found, "", image.size, licence, ((labels, group),)))
        known = {image.id for image in index.images}
        for number, group in groups.items():
            if number not in known and group:
                why = f"{path.name}: no image record of id {number}"
                orphans = tuple(self._orphans(number, group, labels, "unknown_image", why))
                self.rejects.append(Entry(f"{self._name_of(number)}@{path.stem}", _Reject(orphans)))
        bad = [self._malformed(path, m) for m in index.malformed]
        if bad or lost:
            self.rejects.append(Entry(f"{self.name}/@{path.stem}", _Reject((*bad, *lost))))

    def _found(self, path: Path, split: str, images: list[js.Image]) -> Iterator[tuple[js.Image, Found]]:
        """Each image record with its photo; one file for two different paths that lead elsewhere is ambiguous."""
        own = [f"{split}/", f"images/{split}/", "", "images/"]
        if path.parent not in (self.root, self.root / "annotations"):
            own.insert(0, f"{path.parent.relative_to(self.root).as_posix()}/")
        finder = Finder(self.root, own)
        pairs = [(image, finder.find(image.file_name, image.size)) for image in images]
        tails: dict[str, set[str]] = defaultdict(set)
        for image, found in pairs:
            if found.tail and found.there:
                tails[found.places[0]].add(image.file_name)
        for image, found in pairs:
            if found.tail and len(tails[found.places[0]]) > 1:
                why = f"{image.file_name!r} and others lead to {found.places[0]!r} alone"
                found = Found(found.places, BadValue("ambiguous_photo", why))
            yield image, found

    def _put(self, path: Path, split: str, image: js.Image, photo: _Photo) -> None:
        place = photo.found.places[0]
        where = place if photo.found.problem is None else f"?{image.file_name}"
        before = self.photos.get(where)
        if before is not None:
            image_id, first = before
            last_labels, last = first.parts[-1]
            labels, group = photo.parts[0]
            # records of one file are one part: its ids tell repeats
            parts = (
                (*first.parts[:-1], (labels, [*last, *group]))
                if labels is last_labels
                else (*first.parts, *photo.parts)
            )
            self.photos[where] = image_id, first._replace(parts=parts, size=first.size or photo.size)
            return
        name, number = self.name, _own_number(split, image, place)
        official = f"{name}/{number}"
        seen = self.ids.get(official)
        if number and seen is not None and self._is_same(seen, split, photo.size):
            reason = ("duplicate_image", f"{path.name}: read before from {seen[0]}")
            self.rejects.append(Entry(f"{official}@{path.stem}", _Reject(((f"{official}@{path.stem}", *reason),))))
            return
        if number and seen is None:
            image_id, key = official, coco_key(number)
        else:
            image_id = key = self._path_id(split, image, photo.found)
        self.ids[image_id] = (path.name, split, where)
        flickr = _flickr(image.flickr_url)
        self.photos[where] = image_id, photo._replace(key=f"{key} {flickr}" if flickr else key)

    def _is_same(self, seen: tuple[str, str, str], split: str, size: tuple[int, int] | None) -> bool:
        """Whether COCO's number is that of the photo seen before: COCO never uses one twice in one year."""
        _, before, where = seen
        return before[-4:] != split[-4:] and (size is None or self.photos[where][1].size in (None, size))

    def _path_id(self, split: str, image: js.Image, found: Found) -> str:
        """The id of a photo that is not COCO's: its path without ending, with it where another has the same."""
        place = f"{split}/{image.file_name}" if found.problem is not None else found.places[0]
        stem = f"{self.name}/{place.rpartition('.')[0] or image.id}"
        return stem if stem not in self.ids else f"{self.name}/{place}"

    def entries(self) -> Iterator[Entry]:
        """What was taken in, photos first."""
        for image_id, photo in self.photos.values():
            yield Entry(image_id, photo)
        yield from self.rejects

    def _orphans(
        self, number: js.Id, group: Iterable[js.Annotation], labels: dict[js.Id, str], reason: str, why: str
    ) -> Iterator[tuple[str, str, str]]:
        for a in group:
            yield f"{self._name_of(number)}#{a.id}", reason, labelled(why, labels.get(a.category_id, "?"))

    def _name_of(self, number: Any) -> str:
        return f"{self.name}/{number:012d}" if type(number) is int and number >= 0 else f"{self.name}/{number}"

    def _malformed(self, path: Path, record: js.Malformed) -> tuple[str, str, str]:
        own, image = record.ids
        why = f"{path.name}: {record.kind} record: {record.detail}"
        if record.kind != "annotation":
            return f"{self.name}/{record.kind}/{own}", "malformed", why
        label = label_of(record.label, self.person_names) if record.label else "?"
        return f"{self._name_of(image)}#{own}", "malformed", labelled(why, label)


def _ambiguous(images: list[js.Image]) -> dict[js.Id, list[str]]:
    """Image ids that are given to several files, with the files."""
    count = Counter(image.id for image in images)
    names: dict[js.Id, list[str]] = defaultdict(list)
    for image in images:
        if count[image.id] > 1 and image.file_name not in names[image.id]:
            names[image.id].append(image.file_name)
    return {number: found for number, found in names.items() if len(found) > 1}


def _own_number(split: str, image: js.Image, place: str) -> str:
    """COCO's number of twelve digits for a photo of COCO's own layout and names, else nothing."""
    name = _OWN_NAME.fullmatch(PurePosixPath(place).name)
    if name is None or split not in _OWN_SPLITS or image.id != int(name[1]):
        return ""
    return name[1] if place.rpartition("/")[0].rpartition("/")[2] in ("", "images", *_OWN_SPLITS) else ""


def _flickr(url: str) -> str:
    number = url.rpartition("/")[2].partition("_")[0] if "flickr.com/" in url else ""
    return f"flickr/{number}" if number.isdecimal() else ""


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its instances; outlines are rasterised here."""
    source = entry.source
    if isinstance(entry.payload, _Reject):
        dropped = tuple(Dropped(i, "harvest", why, detail, source) for i, why, detail in entry.payload.records)
        return Loaded(None, dropped, is_photo=False)
    photo: _Photo = entry.payload
    try:
        count = sum(len(group) for _, group in photo.parts)
        if count > MAX_INSTANCES:
            raise BadValue("too_many", f"{count} annotations, at most {MAX_INSTANCES} are read")
        if photo.found.problem is not None:
            raise photo.found.problem
        path = photo.found.places[0] if photo.found.there else first_there(root, photo.found.places)
        width, height = frame_size(inside(root, path), photo.size)
    except BadValue as bad:
        return Loaded(None, (dropped_of(bad, entry.image_id, source),), looked_for(bad, photo.found.places))
    image = ImageRef(entry.image_id, source, path, width, height, photo.key, "", photo.licence)
    amodal: dict[str, Mask] = {}
    instances, lost = _instances(image, photo, amodal)
    return Loaded(SourceImage(image, tuple(instances)), tuple(lost), photo.found.places, amodal=amodal)


def _instances(image: ImageRef, photo: _Photo, amodal: dict[str, Mask]) -> tuple[list[Instance], list[Dropped]]:
    """The usable annotations of all parts. Equal id and outline in a file, and equal outline in two, is a repeat."""
    instances: list[Instance] = []
    dropped: list[Dropped] = []
    ids: Counter[str] = Counter()
    outlines: set[Any] = set()
    repeated = 0
    for labels, group in photo.parts:
        own: set[Any] = set()
        for a in group:
            instance_id, label = f"{image.image_id}#{a.id}", labels.get(a.category_id, "").strip()
            try:
                instance, whole = _instance(instance_id, label, a, image.width, image.height)
                outline = (instance.box, instance.mask.counts if instance.mask else None)
                if outline in outlines:
                    repeated += 1
                    continue
                if (a.id, outline) in own:
                    raise BadValue("duplicate_id", f"a second annotation of id {a.id}")
            except BadValue as bad:
                dropped.append(dropped_of(bad, instance_id, image.source, label or "?"))
                continue
            own.add((a.id, outline))
            ids[instance_id] += 1
            number = f"-{ids[instance_id]}" if ids[instance_id] > 1 else ""
            instances.append(replace(instance, instance_id=f"{instance_id}{number}"))
            if whole is not None:
                amodal[f"{instance_id}{number}"] = whole
        outlines |= {outline for _, outline in own}
    if repeated:
        detail = f"{repeated} annotations of this photo are in another file too"
        dropped.append(Dropped(f"{image.image_id}/repeated", "harvest", "repeated", detail, image.source))
    return instances, dropped


def _instance(instance_id: str, label: str, a: js.Annotation, width: int, height: int) -> tuple[Instance, Mask | None]:
    """An annotation, and its whole outline where the file has it."""
    if not label:
        raise BadValue("unknown_category", f"no category of id {a.category_id}")
    record = _decoded(a.more, "annotation") if a.more is not None else {}
    if record:
        found = meaning.outlines(record, height, width)
    else:
        found = meaning.plain(_decoded(a.segmentation, "segmentation"), _decoded(a.bbox, "bbox"), height, width)
    if found.box is None:
        raise BadValue("no_box", "neither a bbox nor a segmentation")
    difficult, ignore = meaning.flag_of(record, "difficult"), meaning.flag_of(record, "ignore")
    flags = Flags(
        crowd=values.flag(a.iscrowd),
        occluded=found.occluded,
        truncated=meaning.flag_of(record, "truncated"),
        difficult=True if ignore else difficult,
    )
    box = usable_box(found.box, width, height)
    return Instance(instance_id, label, box, found.modal, None, flags), found.amodal


def _decoded(raw: msgspec.Raw, what: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadValue(f"bad_{'box' if what == 'bbox' else what}", f"{what}: no JSON: {e}") from e
