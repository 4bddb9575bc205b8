"""``ahp convert``: visible and whole outlines are kept apart, and what is lost is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ahp_toolkit.cli.main import ahp
from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.export.convert import convert
from ahp_toolkit.export.polygons import polygons
from ahp_toolkit.sample_world import write_world

H, W = 60, 80


def square(x0: int, y0: int, x1: int, y1: int) -> masks.Mask:
    shape = np.zeros((H, W), bool)
    shape[y0:y1, x0:x1] = True
    return masks.encode(shape)


WHOLE, SEEN, FREE = square(10, 10, 30, 50), square(10, 10, 30, 30), square(50, 5, 70, 55)


def xywh(mask: masks.Mask) -> list[int]:
    return [int(v) for v in masks.xywh_from_box(mask.box)]


def kins(seen: masks.Mask, whole: masks.Mask, number: int) -> dict[str, Any]:
    return {
        "id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": polygons(whole),
        "bbox": xywh(whole), "area": whole.area, "inmodal_seg": seen.rle_json, "inmodal_bbox": xywh(seen),
        "a_segm": polygons(whole), "a_bbox": xywh(whole), "a_area": whole.area,
        "i_segm": polygons(seen), "i_bbox": xywh(seen), "i_area": seen.area,
    }  # fmt: skip


def put(path: Path, notes: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": W, "height": H}],
        "annotations": notes,
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    path.write_text(json.dumps(document))
    return path


def notes_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("annotations/*.json")
    return json.loads(path.read_text())["annotations"]


def test_kins_to_coco_holds_the_visible_part_and_says_what_is_lost(tmp_path: Path) -> None:
    path = put(tmp_path / "k" / "update_train_2020.json", [kins(SEEN, WHOLE, 3), kins(FREE, FREE, 4)])
    account = convert([f"kins={path}"], "coco", tmp_path / "coco")
    hidden, free = notes_of(tmp_path / "coco")
    assert (hidden["id"], hidden["bbox"], hidden["area"], hidden["occluded"]) == (3, xywh(SEEN), SEEN.area, 1)
    assert free["occluded"] == 0 and free["area"] == FREE.area
    assert account.lines() == [
        "lost: 1 amodal outlines (COCO holds the visible part), such as kins/update_train_2020/a#3"
    ]


@pytest.mark.parametrize("between", ["coco", "cocoa"])
def test_kins_there_and_back_is_equal_where_nothing_is_lost(tmp_path: Path, between: str) -> None:
    people = [kins(FREE, FREE, 4)] + ([kins(SEEN, WHOLE, 3)] if between == "cocoa" else [])
    path = put(tmp_path / "k" / "instances_train.json", people)
    first = convert([f"kins={path}"], between, tmp_path / "x")
    second = convert([f"kins:{between}={tmp_path / 'x'}"], "kins", tmp_path / "y")
    assert not first.lost and not second.lost
    assert notes_of(tmp_path / "y") == people


def test_cocoas_regions_and_flat_files_are_read_alike(tmp_path: Path) -> None:
    hidden = masks.encode(WHOLE.decode() & ~SEEN.decode())
    flat = [{"segmentation": polygons(WHOLE)[0], "occlude_rate": 0.5, "visible_mask": SEEN.rle_json,
             "invisible_mask": hidden.rle_json, "name": "person"},
            {"segmentation": polygons(FREE)[0], "occlude_rate": 0, "name": "person"}]  # fmt: skip
    regions = put(tmp_path / "r" / "COCO_amodal_val2014.json", [{"id": 1, "image_id": 1, "size": 2, "regions": flat}])
    cls = [{**r, "id": n, "image_id": 1, "category_id": 1} for n, r in enumerate(flat, 1)]
    classes = put(tmp_path / "c" / "with_classes.json", cls)
    for name, path in (("r", regions), ("c", classes)):
        account = convert([f"cocoa={path}"], "kins", tmp_path / f"out-{name}")
        assert not account.lost
    assert notes_of(tmp_path / "out-r") == notes_of(tmp_path / "out-c")
    assert [n["inmodal_bbox"] for n in notes_of(tmp_path / "out-r")] == [xywh(SEEN), xywh(FREE)]


def test_labelme_outlines_of_one_group_are_one_person(tmp_path: Path) -> None:
    def shape(label: str, mask: masks.Mask, group: int | None = 1) -> dict[str, Any]:
        points = np.array(polygons(mask)[0]).reshape(-1, 2).tolist()
        return {"label": label, "points": points, "group_id": group, "shape_type": "polygon", "flags": {}}

    shapes = [shape("person_amodal", WHOLE), shape("person_visible", SEEN), shape("person", FREE, None)]
    document = {"shapes": shapes, "imagePath": "C:\\x\\a.jpg", "imageHeight": H, "imageWidth": W}
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "a.json").write_text(json.dumps(document))
    account = convert([f"labelme={tmp_path / 'l'}"], "cocoa", tmp_path / "out")
    (note,) = notes_of(tmp_path / "out")
    assert note["occlude_rate"] == 0.5 and note["area"] == WHOLE.area
    assert account.lost == {"objects without amodal outline": 1}


@pytest.mark.parametrize("target", ["coco", "yolo", "png"])
def test_every_source_is_converted(tmp_path: Path, target: str) -> None:
    write_world(tmp_path / "w", scenes=5, size=(160, 160))
    names = ("coco", "voc_sbd", "lip") if target != "coco" else ("coco", "voc_sbd", "lip", "objects365", "openimages")
    account = convert([f"{n}={tmp_path / 'w' / n}" for n in names], target, tmp_path / "out")
    assert account.written > 5
    if target == "coco":
        assert len(list((tmp_path / "out").glob("annotations/instances_*.json"))) == 5
    if target == "yolo":
        line = next((tmp_path / "out").rglob("*.txt")).read_text().splitlines()[0].split()
        assert len(line) % 2 == 1 and all(0 <= float(v) <= 1 for v in line[1:])


def test_what_a_user_does_wrong_is_one_line(tmp_path: Path) -> None:
    path = put(tmp_path / "k" / "instances_train.json", [])
    with pytest.raises(UserError, match="nothing to write"):
        convert([f"coco={path}"], "kins", tmp_path / "out")
    with pytest.raises(UserError, match="no format"):
        convert([f"coco={path}"], "xml", tmp_path / "out")
    with pytest.raises(UserError, match="two sources"):
        convert([f"coco={path}", f"coco={path}"], "kins", tmp_path / "out")
    with pytest.raises(UserError, match="empty folder"):
        convert([f"coco={path}"], "kins", tmp_path / "k")
    with pytest.raises(UserError, match="NAME"):
        convert([str(path)], "kins", tmp_path / "out")


def test_the_command_prints_counts_and_losses(tmp_path: Path) -> None:
    path = put(tmp_path / "k" / "instances_train.json", [kins(SEEN, WHOLE, 3)])
    args = ["convert", f"my:kins={path}", "--to", "coco", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(ahp, args, catch_exceptions=False)
    assert result.exit_code == 0 and "1 of 1 objects of 1 photos as coco" in result.output
    assert "lost: 1 amodal outlines" in result.output and "my/train/a#3" in result.output
