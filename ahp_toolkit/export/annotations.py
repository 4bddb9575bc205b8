"""The flat annotation that COCOA's and KINS's readers share (formats §6, portable export), and the tables around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ahp_toolkit.core.masks import Mask, encode, xywh_from_box
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.export.formats import base
from ahp_toolkit.export.formats.base import Item, Job
from ahp_toolkit.export.polygons import loops, polygons

CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}]


def info(job: Job) -> dict[str, Any]:
    """The file's ``info``, which says whether a decision behind the data was made by rule."""
    state = "PROVISIONAL: decisions made by rule, not by a person" if job.build.provisional else "reviewed by people"
    return {"description": f"AHP {job.split} {job.what}; {state}", "provisional": job.build.provisional}


class Pictures:
    """Numbers and names pictures in their order, and writes them if the job is with pictures."""

    def __init__(self, job: Job, folder: str, pattern: str = "") -> None:
        self.job, self.folder, self.pattern = job, folder, pattern
        self.rows: list[dict[str, Any]] = []
        self._ids: dict[str, int] = {}
        self._bad: set[str] = set()

    def number(self, item: Item) -> int | None:
        """The picture's number; None where it had to be written and could not."""
        key = item.image_id
        if key in self._ids:
            return self._ids[key]
        number = len(self.rows) + 1
        name = self.pattern % number if self.pattern else f"{file_stem(key)}.png"
        if self.job.images:
            pixels = self.job.picture(item)
            if pixels is None:
                return None
            self.job.png(self.job.out / self.folder / name, pixels)
        self._ids[key] = number
        self.rows.append(self._row(item, number, name))
        return number

    def _row(self, item: Item, number: int, name: str) -> dict[str, Any]:
        size = {"width": item.amodal.width, "height": item.amodal.height}
        origin = {"source": item.image.source, "source_path": item.image.path, "licence": item.image.licence}
        return {"id": number, "file_name": name, **size, "ahp_id": item.image_id, **origin}


def numbered(job: Job, pictures: Pictures) -> Iterator[tuple[int, int, Item]]:
    """(annotation id, picture id, item) of each item whose picture is there."""
    for item in job.items():
        number = pictures.number(item)
        if number is not None:
            job.counts["written"] += 1
            yield job.counts["written"], number, item


def box_of(mask: Mask) -> list[int]:
    """COCO's integer [x, y, width, height]; zeros for an empty mask."""
    return [int(v) for v in xywh_from_box(mask.box)]


def segmentation(mask: Mask) -> Any:
    """A polygon where the mask is one piece without holes, else compressed RLE; both give the mask back exactly."""
    found = loops(mask)
    return [[int(v) for v in found[0].ravel()]] if len(found) == 1 else mask.rle_json


def annotation(number: int, image: int, item: Item) -> dict[str, Any]:
    """One person with the keys of COCO, of COCOA ``with_classes``, and of KINS 2019 and 2020."""
    hidden = encode(base.invisible(item))
    occluded = hidden.area > 0
    layers = max(1, len(item.sample.placements)) if item.sample else 1
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0,
        "segmentation": segmentation(item.amodal), "bbox": box_of(item.amodal), "area": item.amodal.area,
        "visible_mask": item.modal.rle_json, "invisible_mask": hidden.rle_json,
        "occlude_rate": item.occlude_rate, "order": 1,
        "inmodal_seg": item.modal.rle_json, "inmodal_bbox": box_of(item.modal),
        "a_bbox": box_of(item.amodal), "a_segm": polygons(item.amodal), "a_area": item.amodal.area,
        "i_bbox": box_of(item.modal), "i_segm": polygons(item.modal), "i_area": item.modal.area,
        "oco_id": number if occluded else 0, "ico_id": 1 + layers if occluded else 0,
        "ahp_id": item.item_id, "human_id": item.human_id, "provisional": item.provisional,
    }  # fmt: skip


def folder_of(job: Job) -> Path:
    """The folder of annotation files."""
    return job.out / "annotations"
