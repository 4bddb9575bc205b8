"""COCOA: ``COCO_amodal_<split>.json`` (regions) and the flat ``<split>_amodal.json`` that pycocotools reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ahp_toolkit.core.masks import encode
from ahp_toolkit.export.annotations import CATEGORIES, Pictures, annotation, folder_of, info, numbered
from ahp_toolkit.export.formats import base
from ahp_toolkit.export.formats.base import Item, Job, JsonStream
from ahp_toolkit.export.polygons import flat, loops

PICTURES = False


def write(job: Job) -> list[Path]:
    """Both files, and ``images/<split>/*.png`` with pictures."""
    regions_path = folder_of(job) / f"COCO_amodal_{job.split}.json"
    flat_path = folder_of(job) / f"{job.split}_amodal.json"
    pictures = Pictures(job, f"images/{job.split}")
    with job.open(flat_path, "w") as f, job.open(regions_path, "w") as g:
        people, scenes = JsonStream(f, "annotations"), JsonStream(g, "annotations")
        current: list[tuple[int, Item]] = []
        for number, image, item in numbered(job, pictures):
            people.add(annotation(number, image, item))
            if current and current[0][0] != image:
                scenes.add(_scene(current))
                current = []
            current.append((image, item))
        if current:
            scenes.add(_scene(current))
        people.close(images=pictures.rows, categories=CATEGORIES, info=info(job))
        scenes.close(images=pictures.rows, info=info(job))
    return [flat_path, regions_path]


def _scene(items: list[tuple[int, Item]]) -> dict[str, Any]:
    """COCOA's annotation: one a photo, a region a person, without a depth order: nobody hides another."""
    image = items[0][0]
    regions = [_region(item, order) for order, (_, item) in enumerate(items, 1)]
    head = {"id": image, "image_id": image, "author": "ahp-toolkit", "url": "", "size": len(regions)}
    return {**head, "depth_constraint": "", "regions": regions}


def _region(item: Item, order: int) -> dict[str, Any]:
    region: dict[str, Any] = {
        "segmentation": [float(v) for v in flat(loops(item.amodal))], "name": "person", "area": item.amodal.area,
        "isStuff": 0, "occlude_rate": item.occlude_rate, "order": order, "provisional": item.provisional,
    }  # fmt: skip
    hidden = base.invisible(item)
    if hidden.any():
        region |= {"visible_mask": item.modal.rle_json, "invisible_mask": encode(hidden).rle_json}
    return region
