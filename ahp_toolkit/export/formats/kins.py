"""KINS: ``update_<split>_2020.json`` (a_*, i_*, oco_id, ico_id) and ``instances_<split>.json`` of 2019 (inmodal_*)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ahp_toolkit.export.annotations import CATEGORIES, Pictures, annotation, folder_of, info, numbered
from ahp_toolkit.export.formats.base import Item, Job, JsonStream

PICTURES = False

_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
_2020 = ("a_bbox", "a_segm", "a_area", "i_bbox", "i_segm", "i_area", "oco_id", "ico_id")
_2019 = ("bbox", "area", "inmodal_seg", "inmodal_bbox")
_BOTH = ("id", "image_id", "category_id", "iscrowd", "occlude_rate", "ahp_id", "human_id", "provisional")


def write(job: Job) -> list[Path]:
    """Both files, and ``<training|validation|testing>/image_2/%06d.png`` with pictures."""
    new, old = folder_of(job) / f"update_{job.split}_2020.json", folder_of(job) / f"instances_{job.split}.json"
    pictures = Pictures(job, f"{_FOLDERS[job.split]}/image_2", "%06d.png")
    with job.open(new, "w") as f, job.open(old, "w") as g:
        streams = JsonStream(f, "annotations"), JsonStream(g, "annotations")
        for number, image, item in numbered(job, pictures):
            for stream, value in zip(streams, _both(number, image, item), strict=True):
                stream.add(value)
        for stream in streams:
            stream.close(images=pictures.rows, categories=CATEGORIES, info=info(job))
    return [new, old]


def _both(number: int, image: int, item: Item) -> tuple[dict[str, Any], dict[str, Any]]:
    keys = annotation(number, image, item)
    amodal = {"segmentation": keys["a_segm"]}  # KINS's readers know polygons only
    return {k: keys[k] for k in _BOTH + _2020}, {k: keys[k] for k in _BOTH + _2019} | amodal
