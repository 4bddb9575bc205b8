"""Hard cases in known numbers: damaged and unusual photo files, and broken records, put into the written COCO."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ahp_toolkit.sample_world.annotate import coco_number, split_of
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.storage import files, images

#: photo files of each kind, made of extra scenes of COCO
FILES = {
    "truncated_file": 2, "missing_file": 2, "grey": 2, "cmyk": 1, "png_named_jpg": 1, "exif_turned": 2, "poor_masks": 2,
}  # fmt: skip
PHOTOS = sum(FILES.values())
#: records of each kind, added to COCO's train file
RECORDS = {"zero_area_box": 2, "two_point_polygon": 2, "wrong_size_rle": 2, "duplicate_id": 2}
UNREADABLE = ("truncated_file", "missing_file")
_TURN_RIGHT = 6  # EXIF: to be turned by a quarter to the right


def photos(first: int, size: tuple[int, int]) -> list[tuple[int, tuple[int, int], str]]:
    """Index, size and layout of each extra scene; a turned photo must not be square."""
    kinds = [kind for kind, n in FILES.items() for _ in range(n)]
    narrow = (size[0], max(64, size[1] * 4 // 5))
    return [
        (first + i, narrow if kind == "exif_turned" else size, "poor" if kind == "poor_masks" else "pair")
        for i, kind in enumerate(kinds)
    ]


def without_key(scene: Scene) -> Scene:
    """The same photo with nothing that says which it is."""
    return replace(scene, image=replace(scene.image, image=replace(scene.image.image, photo="")))


def plant(root: Path, seed: int, first: int) -> dict[str, list[str]]:
    """Spoil the written COCO under ``root``; returns the ids by kind, and image ids that cannot be read at all."""
    out: dict[str, list[str]] = {}
    kinds = [kind for kind, n in FILES.items() for _ in range(n)]
    for index, kind in enumerate(kinds, first):
        path = root / "coco" / f"{split_of(index)}2017" / f"{coco_number(index):012d}.jpg"
        _spoil(path, kind)
        out.setdefault(kind, []).append(f"coco/{coco_number(index):012d}")
    out |= _records(root / "coco" / "annotations" / "instances_train2017.json")
    out["unreadable"] = [i for kind in UNREADABLE for i in out[kind]]
    return out


def _spoil(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "poor_masks":
        return
    if kind == "missing_file":
        path.unlink()
        return
    if kind == "truncated_file":
        _put(path, data[: len(data) // 2])
        return
    pixels = images.decode(data)
    if kind == "png_named_jpg":
        _put(path, images.encode(pixels, ".png"))
        return
    buffer = io.BytesIO()
    if kind == "exif_turned":
        exif = Image.Exif()
        exif[0x0112] = _TURN_RIGHT
        Image.fromarray(np.rot90(pixels).copy()).save(buffer, "JPEG", quality=95, exif=exif)
    else:
        Image.fromarray(pixels).convert("L" if kind == "grey" else "CMYK").save(buffer, "JPEG", quality=95)
    _put(path, buffer.getvalue())


def _put(path: Path, data: bytes) -> None:
    with files.atomic(path) as f:
        f.write(data)


def _records(path: Path) -> dict[str, list[str]]:
    """Add broken annotations of people to photos that have good ones."""
    document: dict[str, Any] = files.read_json(path)
    people = [a for a in document["annotations"] if a["category_id"] == 1 and not a["iscrowd"]]
    out: dict[str, list[str]] = {}
    number = 800_000_000
    for kind, count in RECORDS.items():
        for i in range(count):
            model = people[(3 * i + len(out)) % len(people)]
            number += 1
            made = model | {"id": number} | _broken(kind, model)
            document["annotations"].append(made)
            out.setdefault(kind, []).append(f"coco/{made['image_id']:012d}#{made['id']}")
    files.write_json(path, document)
    return out


def _broken(kind: str, model: dict[str, Any]) -> dict[str, Any]:
    x, y, w, _ = model["bbox"]
    if kind == "zero_area_box":
        return {"bbox": [x, y, w, 0], "area": 0, "segmentation": []}
    if kind == "two_point_polygon":
        return {"segmentation": [[x, y, x + 5, y + 5]]}
    if kind == "wrong_size_rle":
        return {"segmentation": {"size": [10, 10], "counts": [40, 60]}}
    return {"id": model["id"]}
