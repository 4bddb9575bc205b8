"""The authors' AHP release (spec §8): one whole person a photo, as mask and pseudo parsing.

``<split>/JPEGImages/<stem>.jpg``, ``Annotations/<stem>.png`` (> 0), ``PseudoParsingAnnotations/<stem>.png`` (may lack)
and ``ImageSets/<split>.txt``, in a folder ``AHP`` or in the root itself. The stem carries the photo's own source.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import LabelMap
from ahp_toolkit.core.records import Dropped, ImageRef, Instance, SourceImage
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

LICENCE = "annotations CC BY 4.0, non-commercial research purpose only; photos under their sources' terms"
HOMEPAGE = "https://sydney0zq.github.io/ahp/"
CARRIES = frozenset({"mask", "parsing"})
RANK = 5
HAS_PARSINGS = True
IS_CROP = True  # one person of a photo is annotated, and some photos are crops

_ORDER = ("train", "val", "test")
#: What a stem tells of its photo, in its source's form: COCO's (2014, 2017) or LIP's (no leading zeros), and others'.
_COCO_STEM = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})|([1-9]\d{0,11})_[1-9]\d*")
_VOC_STEM = re.compile(r"(?:VOC\w*?_)?((?:19|20)\d\d_0\d{5})")
_OPENIMAGES_STEM = re.compile(r"[0-9a-f]{16}")


class _Human(NamedTuple):
    """Payload: the split's folder relative to the root (with its slash), stem; ``repeat`` names an earlier list."""

    folder: str
    stem: str
    repeat: str = ""


def _splits(root: Path) -> list[tuple[str, Path]]:
    """(folder relative to the root, id list) of each split, train first."""
    for base in ("AHP/", ""):
        found = [p for p in (root / base).glob("*/ImageSets/*.txt") if p.stem == p.parents[1].name]
        if found:
            rank = {name: n for n, name in enumerate(_ORDER)}
            found.sort(key=lambda p: (rank.get(p.stem, len(rank)), p.stem))
            return [(f"{base}{p.stem}/", p) for p in found]
    raise UserError(f"{root}: expected the AHP release with train/ImageSets/train.txt in it or in its folder AHP")


def inputs(root: Path) -> list[Path]:
    """The id lists of the splits, train, val, test first.

    Raises:
        UserError: when there is none.
    """
    return [path for _, path in _splits(root)]


def total(root: Path) -> int:
    """The number of entries of ``scan``, from the id lists."""
    return sum(len(stems_of(path)) for path in inputs(root))


def scan(root: Path, name: str = "ahp", person_names: Collection[str] = ()) -> Iterator[Entry]:
    """Every person in the order of the id lists.

    Raises:
        UserError: when there is no list.
    """
    seen: dict[str, str] = {}
    for folder, path in _splits(root):
        for stem in stems_of(path):
            repeat = seen.get(stem, "")
            yield Entry(f"{name}/{stem}" + (f"@{path.stem}" if repeat else ""), _Human(folder, stem, repeat))
            seen.setdefault(stem, path.name)


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its person. A parsing that cannot be used is dropped alone (``<image id>/parsing``)."""
    human: _Human = entry.payload
    photo = picture_of(root, f"{human.folder}JPEGImages", human.stem)
    labels = f"{human.folder}Annotations/{human.stem}.png"
    try:
        if human.repeat:
            raise BadValue("duplicate_id", f"{human.stem}: listed before in {human.repeat}")
        label_path = inside(root, labels)
        size, key = shared_frame(inside(root, photo), label_path), _photo_key(human.stem) or entry.image_id
        image = ImageRef(entry.image_id, entry.source, photo, *size, key)
        parsing_path = inside(root, f"{human.folder}PseudoParsingAnnotations/{human.stem}.png")
    except BadValue as bad:
        return Loaded(None, (dropped_of(bad, entry.image_id, entry.source),), looked_for(bad, (photo,)))
    instance_id = f"{entry.image_id}#1"
    try:
        mask = labels_of(label_path, image.width, image.height) > 0
        box = tight_box(mask)
    except BadValue as bad:
        return Loaded(SourceImage(image, ()), (dropped_of(bad, instance_id, entry.source),))
    parsing, dropped = _parsing(parsing_path, image)
    return Loaded(SourceImage(image, (Instance(instance_id, PERSON, box, masks.encode(mask), parsing),)), dropped)


def _parsing(path: Path, image: ImageRef) -> tuple[LabelMap | None, tuple[Dropped, ...]]:
    if not locations.is_picture(path):
        return None, ()
    try:
        labels = labels_of(path, image.width, image.height)
        if labels.max(initial=0) >= len(PARTS):
            raise BadValue("bad_label", f"{path.name}: labels go from 0 to {len(PARTS) - 1}, got {labels.max()}")
        return masks.encode_labels(labels), ()
    except BadValue as bad:
        return None, (dropped_of(bad, f"{image.image_id}/parsing", image.source),)


def _photo_key(stem: str) -> str:
    """The photo's key in the dataset that it comes from; empty where its stem does not tell."""
    coco = _COCO_STEM.fullmatch(stem)
    if coco:
        return coco_key(coco[1] or coco[2])
    if _OPENIMAGES_STEM.fullmatch(stem):
        return f"openimages/{stem}"
    voc = _VOC_STEM.fullmatch(stem)
    return f"voc/{voc[1]}" if voc else ""
