"""Scenes to the files of Open Images V6: box, mask and image-info CSVs, classes, hierarchy, photos and mask PNGs."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ahp_toolkit.core.records import Instance, SourceImage
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sources.base import PERSON
from ahp_toolkit.sources.openimages import LICENCE
from ahp_toolkit.sources.reading.openimages_index import CLASSES, HIERARCHY, HUMANS, PERSON_MID
from ahp_toolkit.storage import files, images

_HUMAN_NAMES = dict(zip(HUMANS, ("Person", "Man", "Woman", "Boy", "Girl"), strict=True))
_BOX_HEADER = (
    "ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsOccluded", "IsTruncated",
    "IsGroupOf", "IsDepiction", "IsInside",
)  # fmt: skip
_CLICKS = tuple(f"XClick{n}{axis}" for axis in "XY" for n in (1, 2, 3, 4))
_MASK_HEADER = (
    "MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax", "PredictedIoU", "Clicks",
)  # fmt: skip
_INFO_HEADER = (
    "ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author", "Title",
    "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation",
)  # fmt: skip


class _Split:
    """The rows of one split."""

    def __init__(self) -> None:
        self.boxes: list[tuple[object, ...]] = []
        self.masks: list[tuple[object, ...]] = []
        self.infos: list[tuple[object, ...]] = []


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """Write the files of V6 and their layout, held in memory (small sizes); ``val`` goes to ``validation``."""
    splits: dict[str, _Split] = {}
    names: dict[str, str] = dict(_HUMAN_NAMES)
    for scene in scenes:
        split = "validation" if scene.split == "val" else scene.split
        _scene(root, split, scene, splits.setdefault(split, _Split()), names)
    for split, rows in splits.items():
        _tables(root, split, rows)
    _put(root / CLASSES[0], to_csv(("LabelName", "DisplayName"), sorted(names.items())))
    others = [{"LabelName": mid} for mid in sorted(set(names) - set(HUMANS))]
    below = [{"LabelName": mid} for mid, depth in HUMANS.items() if depth]
    person = {"LabelName": PERSON_MID, "Subcategory": below, "Part": [{"LabelName": "/m/04hgtk"}]}
    files.write_json(root / HIERARCHY, {"LabelName": "/m/0bl9f", "Subcategory": [person, *others]})


def _put(path: Path, data: bytes) -> None:
    with files.atomic(path) as f:
        f.write(data)


def _tables(root: Path, split: str, rows: _Split) -> None:
    train = split == "train"
    header = _BOX_HEADER + (_CLICKS if train else ())
    boxes = [row + ((-1.0,) * len(_CLICKS) if train else ()) for row in rows.boxes]
    _put(root / f"{'oidv6-' if train else ''}{split}-annotations-bbox.csv", to_csv(header, boxes))
    _put(root / f"{split}-annotations-object-segmentation.csv", to_csv(_MASK_HEADER, rows.masks))
    name = "train-images-boxable-with-rotation.csv" if train else f"{split}-images-with-rotation.csv"
    _put(root / name, to_csv(_INFO_HEADER, rows.infos))


def hex_id(image_id: str) -> str:
    """The ImageID of an image id: its last part where that is 16 hex digits, else 16 digits of its digest."""
    stem = image_id.split("/", 1)[-1]
    return stem if re.fullmatch(r"[0-9a-f]{16}", stem) else hashlib.sha256(image_id.encode()).hexdigest()[:16]


def mid_of(instance: Instance) -> str:
    """The MID of an instance: the one in its id if there is one, Person, or one made from the class name."""
    found = re.match(r"m(0\w+)-\d", instance.instance_id.rpartition("#")[2])
    if found:
        return f"/m/{found.group(1)}"
    if instance.label == PERSON:
        return PERSON_MID
    return f"/m/0{hashlib.sha256(instance.label.encode()).hexdigest()[:6]}"


def _scene(root: Path, split: str, scene: Scene, rows: _Split, names: dict[str, str]) -> None:
    image = scene.image
    key = hex_id(image.image.image_id)
    images.write_jpeg(files.safe_join(root, f"{split}/{key}.jpg"), scene.pixels)
    rows.infos.append(_info(image, key, split))
    for instance in image.instances:
        mid = mid_of(instance)
        names.setdefault(mid, instance.label.capitalize())
        sides = _sides(instance, image.image.width, image.image.height)
        f = instance.flags
        flags = (-1 if v is None else int(v) for v in (f.occluded, f.truncated, f.group, f.depiction, f.inside))
        rows.boxes.append((key, "xclick", mid, 1, *map(repr, sides), *flags))
        if instance.mask is None:
            continue
        box_id = hashlib.sha256(instance.instance_id.encode()).hexdigest()[:8]
        name = f"{key}_{mid.replace('/', '')}_{box_id}.png"
        rows.masks.append((name, key, mid, box_id, *(f"{v:.6f}" for v in sides), "", ""))
        pixels = instance.mask.decode().astype(np.uint8) * np.uint8(255)
        images.write_png(root / f"{split}-masks" / f"{split}-masks-{key[0]}" / name, pixels)


def _sides(instance: Instance, width: int, height: int) -> tuple[float, float, float, float]:
    """XMin, XMax, YMin, YMax in [0, 1]."""
    box = instance.box.scaled(1 / width, 1 / height)
    return box.x0, box.x1, box.y0, box.y1


def _info(image: SourceImage, key: str, split: str) -> tuple[object, ...]:
    found = re.search(r"flickr/(\d+)", image.image.photo)
    url = f"https://farm1.staticflickr.com/1/{found.group(1)}_0000000000_o.jpg" if found else ""
    licence = "" if image.image.licence == LICENCE else image.image.licence
    # a comma, a quote and a line break, as authors and titles have them
    return key, split, url, "", licence, "", "An author, of photos", 'A "title"\nin two lines', 0, "", "", 0.0


def to_csv(header: Sequence[str] | None, rows: Sequence[Sequence[object]]) -> bytes:
    """CSV bytes, lines ending in a newline as Open Images has them."""
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    if header is not None:
        out.writerow(header)
    out.writerows(rows)
    return text.getvalue().encode()
