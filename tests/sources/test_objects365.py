"""Objects365: known answers and the gotchas of formats §4."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Flags, SourceImage
from ahp_toolkit.sources import objects365
from ahp_toolkit.sources.reading import grouping
from ahp_toolkit.storage import images
from tests.harness.bench.scale_files import write_objects365_json

STEM = "objects365_v1_00420917"


def box(number: int, xywh: Any = (1, 2, 30, 20), image: Any = 7, category: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(xywh), "area": 1.5} | more


def put(root: Path, boxes: list[dict[str, Any]], name: str = f"images/v1/patch8/{STEM}.jpg", **more: Any) -> None:
    document = {
        "annotations": boxes,
        "categories": [{"id": 1, "name": "Person "}, {"id": 9, "name": "Formula 1 "}],
        "images": [{"id": 7, "file_name": name, "width": 60, "height": 40, "license": 5, "url": ""}],
    }
    (root / "zhiyuan_objv2_train.json").write_text(json.dumps(document | more))
    path = root / "train" / "patch8" / f"{STEM}.jpg"
    if not path.exists():
        images.write_jpeg(path, np.zeros((40, 60, 3), np.uint8))


def loaded(root: Path) -> tuple[list[SourceImage], dict[str, str]]:
    found = [objects365.load(root, e) for e in objects365.scan(root)]
    return [x.image for x in found if x.image], {d.id: d.reason for x in found for d in x.dropped}


def test_known_answer(tmp_path: Path) -> None:
    put(tmp_path, [box(51, iscrowd=0, isfake=1, isreflected=0), box(2**40, (50.5, 30, 20, 20), category=9)])
    (image,), dropped = loaded(tmp_path)
    assert image.image.image_id == f"objects365/{STEM}" and image.image.photo == "" and not dropped
    assert image.image.path == f"train/patch8/{STEM}.jpg" and (image.image.width, image.image.height) == (60, 40)
    person, car = image.instances
    assert (person.instance_id, person.label, person.box) == (f"objects365/{STEM}#51", "person", Box(1, 2, 31, 22))
    assert person.flags == Flags(crowd=False, depiction=True, reflection=False)
    assert (car.label, car.box, car.flags) == ("formula 1", Box(50.5, 30, 60, 40), Flags())
    assert car.instance_id.endswith(f"#{2**40}")


def test_bad_boxes_are_dropped_with_their_reasons(tmp_path: Path) -> None:
    rows = [
        box(1), box(2), box(3, (0, 0, 0.5, 9)), box(4, (70, 5, 5, 5)), box(5, ("a", 0, 5, 5)), box(6, (0, 0, 5)),
        box(7, (float("nan"), 0, 5, 5)), box(8, iscrowd=2), box(9, (3, 3, 5, 5), category=77), box(1, (4, 4, 9, 9)),
        box(10, (1, 1, 9, 9), isfake=None), box(11, (2, 2, 9, 9), iscrowd=True), box(12, image="x"), box(13, image=99),
    ]  # fmt: skip
    put(tmp_path, rows)
    (image,), dropped = loaded(tmp_path)
    key = f"objects365/{STEM}#"
    assert [i.instance_id for i in image.instances] == [f"{key}{n}" for n in (1, "1-2", 10, 11)]
    assert image.instances[3].flags.crowd is True and image.instances[2].flags.depiction is None
    reasons = {2: "duplicate", 3: "zero_area", 4: "box_outside", 5: "bad_box", 6: "bad_box", 7: "bad_box",
               8: "bad_flag", 9: "unknown_category"}  # fmt: skip
    assert dropped == {f"{key}{n}": r for n, r in reasons.items()} | {
        f"objects365/{hashing.seed_of('x')}": "no_image_record", "objects365/99": "no_image_record"
    }  # fmt: skip


def test_only_photos_with_a_human_and_any_key_order(tmp_path: Path) -> None:
    put(tmp_path, [box(1, category=9)])
    assert loaded(tmp_path) == ([], {})
    path = tmp_path / "zhiyuan_objv2_train.json"
    put(tmp_path, [box(1)])
    said = json.loads(path.read_text())
    first = loaded(tmp_path)
    path.write_text(json.dumps(dict(reversed(said.items())), indent=3))
    assert loaded(tmp_path) == first


@pytest.mark.parametrize("name", ["../../etc/x.jpg", "/etc/passwd", "images/../../../x.jpg"])
def test_hostile_names_are_dropped(tmp_path: Path, name: str) -> None:
    put(tmp_path, [box(1)], name)
    found, dropped = loaded(tmp_path)
    assert not found and list(dropped.values()) == ["unsafe_path"]


def test_flat_folders_missing_photos_and_wrong_sizes(tmp_path: Path) -> None:
    put(tmp_path, [box(1)])
    path = tmp_path / "train" / "patch8" / f"{STEM}.jpg"
    path.rename(tmp_path / "train" / path.name)
    assert loaded(tmp_path)[0][0].image.path == f"train/{path.name}"
    images.write_jpeg(tmp_path / "train" / path.name, np.zeros((41, 60, 3), np.uint8))
    assert list(loaded(tmp_path)[1].values()) == ["size_mismatch"]
    (tmp_path / "train" / path.name).unlink()
    assert list(loaded(tmp_path)[1].values()) == ["missing"]


@pytest.mark.parametrize(
    "folder",
    ["train/images/v1/patch8", "train/patch8", "train", "images/train/patch8", "images/train", "images/v1/patch8"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_photos_where_the_server_and_its_mirrors_put_them(tmp_path: Path, folder: str, packed: bool) -> None:
    put(tmp_path, [box(1)])
    photo, there = tmp_path / "train" / "patch8" / f"{STEM}.jpg", tmp_path / folder / f"{STEM}.jpg"
    there.parent.mkdir(parents=True, exist_ok=True)
    photo.rename(there)
    if photo.parent != there.parent:
        photo.parent.rmdir()
    if packed:  # as the server packs val: images/v1/patch8.tar holds patch8/NAME.jpg
        with tarfile.open(f"{there.parent}.tar", "w") as archive:
            archive.add(there, f"{there.parent.name}/{there.name}")
        there.unlink()
        there.parent.rmdir()
    (image,), dropped = loaded(tmp_path)
    assert not dropped and image.image.path == f"{folder}/{STEM}.jpg"


def test_a_missing_photo_of_an_unpacked_folder_opens_no_archive_left_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, [box(1)])
    (tmp_path / "train" / "patch8" / f"{STEM}.jpg").unlink()
    (tmp_path / "train/images/v1").mkdir(parents=True)
    (tmp_path / "train/images/v1/patch8.tar.gz").write_bytes(b"as it was fetched")
    assert list(loaded(tmp_path)[1].values()) == ["missing"]


def test_what_is_dropped_says_plain_numbers_and_its_label(tmp_path: Path) -> None:
    rows = [box(1), box(2, (0, 0, 0.5, 9)), box(3, (70, 5, 5, 5), category=9), box(4, (1, 1, 5, 5), category=77)]
    put(tmp_path, rows)
    dropped = [d.detail for e in objects365.scan(tmp_path) for d in objects365.load(tmp_path, e).dropped]
    assert dropped == [
        "width or height below 1 px: [0.0, 0.0, 0.5, 9.0]",
        "label=formula 1: [70.0, 5.0, 5.0, 5.0] lies outside 60x40",
        "label=?: category_id is not in the file's categories",
    ]


def test_v1_is_told_by_name(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "PERSON"}]
    put(tmp_path, [box(1, category=3)], "obj365_train_000000000001.jpg", categories=categories)
    (tmp_path / "zhiyuan_objv2_train.json").rename(tmp_path / "objects365_train.json")
    images.write_jpeg(tmp_path / "train" / "obj365_train_000000000001.jpg", np.zeros((40, 60, 3), np.uint8))
    (image,), _ = loaded(tmp_path)
    assert image.image.path == "train/obj365_train_000000000001.jpg" and image.instances[0].label == "person"


def test_a_list_that_is_missing_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "zhiyuan_objv2_val.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="categories"):
        list(objects365.scan(tmp_path))


def test_many_runs_and_ranges_give_what_one_pass_of_json_gives(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "zhiyuan_objv2_train.json"
    write_objects365_json(path, 900, 9_000, seed=3)
    monkeypatch.setattr(grouping, "RUN_ROWS", 1_500)
    monkeypatch.setattr(grouping, "_STEP", 64)
    monkeypatch.setattr(grouping, "RANGE_ROWS", 500)
    said = json.loads(path.read_text())
    wanted: dict[int, list[int]] = {}
    for a in said["annotations"]:
        wanted.setdefault(a["image_id"], []).append(a["id"])
    human = {a["image_id"] for a in said["annotations"] if a["category_id"] == 1}
    got = {
        int(e.image_id[-8:]): np.frombuffer(e.payload.rows, objects365.ROW)["id"].tolist()
        for e in objects365.scan(tmp_path)
    }
    assert list(got.items()) == [(n, wanted[n]) for n in sorted(human)]
