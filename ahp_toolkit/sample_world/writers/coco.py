"""Scenes to COCO instances files; `outline` turns a mask into the polygons that give it back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Mask
from ahp_toolkit.core.records import Instance
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sources.base import PERSON
from ahp_toolkit.storage import files, images

_Point = tuple[int, int]


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """Write COCO 2017: ``annotations/instances_<split>2017.json`` and ``<split>2017/<12 digits>.jpg``.

    Ids must be COCO's (``coco/<12 digits>``, ``#<number>``). Flags other than crowd, and parsings, are lost. Masks
    without holes become polygons along the pixels' borders; those that polygons cannot give back exactly become RLE.

    Raises:
        UserError: for ids that are no COCO ids.
    """
    splits: dict[str, _Split] = {}
    for scene in scenes:
        split = splits.setdefault(scene.split, _Split())
        name = split.add(scene)
        images.write_jpeg(root / f"{scene.split}2017" / name, scene.pixels)
    for name, split in splits.items():
        with files.atomic(root / "annotations" / f"instances_{name}2017.json") as f:
            f.write(msgspec.json.encode(split.file()))


class _Split:
    """The growing lists of one instances file. Category ids are given in order of appearance, person is 1."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories = {PERSON: 1}
        self.licences: dict[str, int] = {}

    def add(self, scene: Scene) -> str:
        """Take a scene in; the name of its photo."""
        ref = scene.image.image
        number = _number(ref.image_id, ref.image_id.partition("/")[2])
        name = f"{number:012d}.jpg"
        record: dict[str, Any] = {"id": number, "file_name": name, "width": ref.width, "height": ref.height}
        if ref.licence:
            record["license"] = self.licences.setdefault(ref.licence, len(self.licences) + 1)
        flickr = [k for k in ref.photo.split() if k.startswith("flickr/")]
        if flickr:
            record["flickr_url"] = f"http://farm1.staticflickr.com/1/{flickr[0][7:]}_0_z.jpg"
        self.images.append(record)
        self.annotations += [self._annotation(i, number) for i in scene.image.instances]
        return name

    def _annotation(self, instance: Instance, image: int) -> dict[str, Any]:
        crowd = bool(instance.flags.crowd)
        return {
            "id": _number(instance.instance_id, instance.instance_id.rpartition("#")[2]),
            "image_id": image,
            "category_id": self.categories.setdefault(instance.label, len(self.categories) + 1),
            "bbox": masks.xywh_from_box(instance.box),
            "area": instance.mask.area if instance.mask else instance.box.area,
            "iscrowd": int(crowd),
            "segmentation": segmentation(instance.mask, crowd) if instance.mask else [],
        }

    def file(self) -> dict[str, Any]:
        """The whole JSON file."""
        return {
            "info": {"description": "COCO instances"},
            "licenses": [{"id": n, "name": name, "url": ""} for name, n in self.licences.items()],
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": n, "name": c, "supercategory": c} for c, n in self.categories.items()],
        }


def _number(whole: str, part: str) -> int:
    if not part.isdecimal():
        raise UserError(f"COCO ids are numbers (coco/000000000785#442619), got {whole!r}")
    return int(part)


def segmentation(mask: Mask, crowd: bool) -> list[list[int]] | dict[str, Any]:
    """Polygons where they give back exactly this mask and it is no crowd; uncompressed RLE otherwise."""
    polygons = [] if crowd else outline(mask.decode())
    if polygons and masks.from_polygons(polygons, mask.height, mask.width).counts == mask.counts:
        return polygons
    return {"size": [mask.height, mask.width], "counts": mask.runs().tolist()}


def outline(mask: Bool2D) -> list[list[int]]:
    """The borders of a mask's pixels as closed polygons, flat x, y lists in px, corners only, inside on the right.

    Pixels that meet at a corner alone belong to two polygons. The border of a hole is a polygon of its own, which
    COCO's union would fill.
    """
    steps = _border_steps(mask)
    polygons = []
    while steps:
        start = min(steps)
        polygons.append(_walk(steps, start))
    return polygons


def _border_steps(mask: Bool2D) -> dict[_Point, list[_Point]]:
    """From each corner point (x, y) on the border, the unit steps (dx, dy) that keep the mask on the right."""
    framed = np.pad(mask, 1)
    steps: dict[_Point, list[_Point]] = {}
    inner = framed[1:-1, 1:-1]
    sides = (
        (inner & ~framed[:-2, 1:-1], (0, 0), (1, 0)),  # top side, walked rightwards
        (inner & ~framed[1:-1, 2:], (1, 0), (0, 1)),  # right side, downwards
        (inner & ~framed[2:, 1:-1], (1, 1), (-1, 0)),  # bottom side, leftwards
        (inner & ~framed[1:-1, :-2], (0, 1), (0, -1)),  # left side, upwards
    )
    for side, (ox, oy), step in sides:
        for y, x in np.argwhere(side).tolist():
            steps.setdefault((x + ox, y + oy), []).append(step)
    return steps


def _walk(steps: dict[_Point, list[_Point]], start: _Point) -> list[int]:
    """Follow one closed border from ``start``, taking its steps away."""
    polygon: list[int] = []
    point, before = start, (0, 0)
    while point in steps:
        # where two pixels meet at a corner, turning right stays on the same pixel
        right = (-before[1], before[0])
        choices = steps[point]
        step = right if right in choices else choices[0]
        choices.remove(step)
        if not choices:
            del steps[point]
        if step != before:
            polygon += point
        point, before = (point[0] + step[0], point[1] + step[1]), step
    return polygon
