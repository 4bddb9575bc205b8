"""LIP, single persons with body parts (formats §3).

Each photo is a crop around one person, cut from a COCO 2014 photo that its name tells (``<image id>_<annotation id>``).
A person at the crop's border is cut by the crop, not by the camera, so ``truncated`` stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import ImageRef, Instance, SourceImage
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import PARTS, PERSON, Entry, Loaded
from ahp_toolkit.sources.reading.finder import picture_of
from ahp_toolkit.sources.reading.shared import (
    coco_key,
    dropped_of,
    inside,
    labels_of,
    looked_for,
    shared_frame,
    stems_of,
    tight_box,
)
from ahp_toolkit.storage import locations

LICENCE = "non-commercial research only; photos from COCO under Flickr's terms"
HOMEPAGE = "https://lip.sysuhcp.com"
CARRIES = frozenset({"mask", "parsing"})
RANK = 4
IS_CROP = True
HAS_PARSINGS = True

_SPLITS = ("train", "val")
_STEM = re.compile(r"(\d{1,12})_(\d+)")
_IMAGES = ("", "TrainVal_images/", "TrainVal_images/TrainVal_images/")
_LABELS = (
    "",
    *(f"TrainVal_parsing_annotations/{'TrainVal_parsing_annotations/' * n}" for n in (0, 1)),
    "TrainVal_images/",
)


class _Crop(NamedTuple):
    """Payload: folders of the crop and of its parts, relative to the root; ``repeat`` names the earlier list."""

    photos: str
    labels: str
    repeat: str = ""


def inputs(root: Path) -> list[Path]:
    """The id lists of the splits that are there (``train_id.txt``, ``val_id.txt``).

    Raises:
        UserError: when there is none, or a list without its folder of parts.
    """
    found = [path for split in _SPLITS if (path := _list_of(root, split))]
    if not found:
        raise UserError(f"{root}: expected LIP's train_id.txt or val_id.txt there or in TrainVal_images, found neither")
    return found


def _list_of(root: Path, split: str) -> Path | None:
    locations = (root / f"{folder}{split}_id.txt" for folder in dict.fromkeys((*_IMAGES, *_LABELS)))
    return next((p for p in locations if p.is_file()), None)


def _folder(root: Path, folders: tuple[str, ...], name: str) -> str:
    for folder in folders:
        if locations.has_folder(root, f"{folder}{name}"):
            return f"{folder}{name}"
    raise UserError(f"{root}: expected the folder {name} of LIP there or in {folders[1]}, found none")


def total(root: Path) -> int:
    """The number of entries of ``scan``, from the id lists."""
    return sum(len(stems_of(path)) for path in inputs(root))


def scan(root: Path, name: str = "lip", person_names: Collection[str] = ()) -> Iterator[Entry]:
    """Every crop in the order of the id lists, train before val.

    Raises:
        UserError: when lists or folders are missing.
    """
    seen: dict[str, str] = {}
    for path in inputs(root):
        split = path.name.removesuffix("_id.txt")
        labels = _folder(root, _LABELS, f"{split}_segmentations")
        photos = _folder(root, _IMAGES, f"{split}_images")
        for stem in stems_of(path):
            crop = _Crop(photos, labels, seen.get(stem, ""))
            yield Entry(f"{name}/{stem}" + (f"@{path.stem}" if crop.repeat else ""), crop)
            seen.setdefault(stem, path.name)


def load(root: Path, entry: Entry) -> Loaded:
    """The crop with its person, whose mask is every labelled pixel."""
    crop: _Crop = entry.payload
    stem = entry.image_id.partition("/")[2]
    photo, parts = picture_of(root, crop.photos, stem), f"{crop.labels}/{stem}.png"
    try:
        if crop.repeat:
            raise BadValue("duplicate_id", f"{stem}: listed before in {crop.repeat}")
        path, labels = inside(root, photo), inside(root, parts)
        image = ImageRef(entry.image_id, entry.source, photo, *shared_frame(path, labels), _photo_key(entry))
    except BadValue as bad:
        return Loaded(None, (dropped_of(bad, entry.image_id, entry.source),), looked_for(bad, (photo,)))
    match = _STEM.fullmatch(stem)
    instance_id = f"{entry.image_id}#{match[2] if match else 1}"
    try:
        return Loaded(SourceImage(image, (_person(instance_id, labels, image),)))
    except BadValue as bad:
        return Loaded(SourceImage(image, ()), (dropped_of(bad, instance_id, entry.source),))


def _photo_key(entry: Entry) -> str:
    match = _STEM.fullmatch(entry.image_id.partition("/")[2])
    return coco_key(match[1]) if match else entry.image_id


def _person(instance_id: str, path: Path, image: ImageRef) -> Instance:
    labels = labels_of(path, image.width, image.height)
    if labels.max(initial=0) >= len(PARTS):
        raise BadValue("bad_label", f"{path.name}: labels go from 0 to {len(PARTS) - 1}, got {labels.max()}")
    mask = labels > 0
    return Instance(instance_id, PERSON, tight_box(mask), masks.encode(mask), masks.encode_labels(labels))
