"""People and occluders for the occlusion benchmarks: of a COCO root, or made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ahp_toolkit.core.masks import Mask, encode, from_polygons
from ahp_toolkit.storage import images
from tests.occlusion.shapes import blob


class Thing(NamedTuple):
    """One instance: its photo's file and its mask in that photo's frame."""

    path: Path
    mask: Mask


def load(root: Path | None, scratch: Path) -> tuple[list[Thing], list[Thing]]:
    """(people away from the border, all instances), each of at least 1000 px."""
    things = _coco(root) if root else _made(scratch)
    things = [(human, t) for human, t in things if t.mask.area >= 1000]
    return [t for human, t in things if human and not t.mask.touches_border(5)], [t for _, t in things]


def _coco(root: Path) -> list[tuple[bool, Thing]]:
    table = json.loads(next((root / "annotations").glob("instances_*.json")).read_text())
    photos = {p["id"]: p for p in table["images"]}
    folder = next(p for p in root.iterdir() if p.is_dir() and p.name != "annotations")
    out = []
    for a in table["annotations"]:
        if not a["iscrowd"]:
            p = photos[a["image_id"]]
            mask = from_polygons(a["segmentation"], p["height"], p["width"])
            out.append((a["category_id"] == 1, Thing(folder / p["file_name"], mask)))
    return out


def _made(scratch: Path) -> list[tuple[bool, Thing]]:
    out = []
    for i in range(40):
        rng = np.random.Generator(np.random.PCG64(i))
        path = scratch / f"{i}.jpg"
        noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        images.write_jpeg(path, np.asarray(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8))
        for k in range(3):
            height, width = (int(v) for v in rng.integers(60, 400, 2))
            full = np.zeros((480, 640), np.bool_)
            y, x = rng.integers(0, 480 - height), rng.integers(0, 640 - width)
            full[y : y + height, x : x + width] = blob(3 * i + k, height, width)
            out.append((k < 2, Thing(path, encode(full))))
    return out
