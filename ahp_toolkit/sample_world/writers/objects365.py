"""Scenes to the files of Objects365 v2."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ahp_toolkit.core import hashing
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Instance, SourceImage
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sources.base import PERSON
from ahp_toolkit.sources.objects365 import FILES, LICENCE
from ahp_toolkit.storage import files, images


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
    flags = {
        "iscrowd": instance.flags.crowd,
        "isfake": instance.flags.depiction,
        "isreflected": instance.flags.reflection,
    }
    return record | {name: int(value) for name, value in flags.items() if value is not None}


def _extent(a: float, b: float) -> float:
    """The width w for which a + w is b to the last bit."""
    w = b - a
    for near in (w, math.nextafter(w, math.inf), math.nextafter(w, -math.inf)):
        if a + near == b:
            return near
    return w
