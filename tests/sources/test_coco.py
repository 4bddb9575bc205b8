"""COCO's gotchas (formats §1) and bad data."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycoco

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Instance, SourceImage
from ahp_toolkit.sample_world.writers import coco as _coco_write
from ahp_toolkit.sources import coco
from ahp_toolkit.storage import images, locations

SQUARE = [[10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0]]
CATEGORIES = [{"id": 1, "name": "Person"}, {"id": 3, "name": "car"}]


def image(number: int = 9, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012d}.jpg", "width": 40, "height": 30, **more}


def annotation(number: int = 1, **more: Any) -> dict[str, Any]:
    said = {"id": number, "image_id": 9, "category_id": 1, "bbox": [10, 10, 10, 10], "segmentation": SQUARE}
    return {**said, "iscrowd": 0, **more}


def put(root: Path, records: list[Any], pictures: list[Any] | None = None, name: str = "train2017") -> Path:
    file = {"images": [image()] if pictures is None else pictures, "annotations": records, "categories": CATEGORIES}
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(file))
    return path


def loaded(root: Path) -> tuple[list[SourceImage], list[Dropped]]:
    every = [coco.load(root, e) for e in coco.scan(root)]
    return [x.image for x in every if x.image], [d for x in every for d in x.dropped]


def one(root: Path, record: dict[str, Any]) -> Instance | Dropped:
    put(root, [record])
    photos, dropped = loaded(root)
    found = [*photos[0].instances, *dropped] if photos else dropped
    assert len(found) == 1
    return found[0]


def test_a_person_is_read_with_its_keys(tmp_path: Path) -> None:
    url = "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg"
    put(tmp_path, [annotation(900_100_000_257)], [image(flickr_url=url)])
    (photo,), dropped = loaded(tmp_path)
    assert dropped == []
    assert photo.image.photo == "coco/000000000009 flickr/8119368305"
    assert photo.image.path == "train2017/000000000009.jpg"
    (person,) = photo.instances
    assert (person.instance_id, person.label) == ("coco/000000000009#900100000257", "person")
    assert person.box == (10, 10, 20, 20) and person.mask is not None and person.mask.area == 100


@pytest.mark.parametrize("form", ["list", "str", "polygon"])
def test_all_three_forms_of_outline(tmp_path: Path, form: str) -> None:
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:20] = True
    rle = masks.encode(mask)
    counts = rle.runs().tolist() if form == "list" else rle.counts.decode()
    shape = SQUARE if form == "polygon" else {"size": [30, 40], "counts": counts}
    got = one(tmp_path, annotation(segmentation=shape, iscrowd=int(form == "list")))
    assert isinstance(got, Instance) and got.mask == rle and got.flags.crowd is (form == "list")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"segmentation": [[1, 1, 5, 5]]}, "short_polygon"),
        ({"segmentation": [[1, 1, float("nan"), 5, 9, 9]]}, "not_finite"),
        ({"segmentation": {"size": [31, 40], "counts": [1240]}}, "bad_rle"),
        ({"segmentation": {"size": [30, 40], "counts": [7, 5]}}, "bad_rle"),
        ({"segmentation": {"size": [30, 40], "counts": [-7, 1207]}}, "bad_rle"),
        ({"segmentation": {"size": [30, 40], "counts": "~~~"}}, "bad_rle"),
        ({"segmentation": {"size": [30, 40], "counts": [1200]}}, "empty_mask"),
        ({"segmentation": "polygon"}, "bad_segmentation"),
        ({"bbox": [1, 1, 0, 5]}, "empty_box"),
        ({"bbox": [1, 1, 5, -2]}, "empty_box"),
        ({"bbox": [50, 1, 5, 5]}, "box_outside"),
        ({"bbox": [float("nan"), 1, 5, 5]}, "not_finite"),
        ({"bbox": [float("-inf"), 1, 5, 5]}, "not_finite"),
        ({"bbox": [1, 2, 3]}, "bad_box"),
        ({"bbox": "all"}, "bad_box"),
        ({"bbox": None, "segmentation": None}, "no_box"),
        ({"category_id": 77}, "unknown_category"),
        ({"image_id": 404}, "unknown_image"),
        ({"image_id": "nine"}, "unknown_image"),
        ({"image_id": None}, "malformed"),
    ],
)
def test_bad_records_are_dropped_with_their_reason(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    got = one(tmp_path, annotation(**more))
    assert isinstance(got, Dropped) and (got.reason, got.stage, got.source) == (reason, "harvest", "coco")
    assert "#1" in got.id and "\n" not in got.detail


def test_a_dropped_car_says_that_it_is_one(tmp_path: Path) -> None:
    got = one(tmp_path, annotation(category_id=3, bbox=[1, 1, 0, 0]))
    assert isinstance(got, Dropped) and got.detail.startswith("label=car")


def test_boxes_are_clipped_and_missing_ones_come_from_the_mask(tmp_path: Path) -> None:
    over = one(tmp_path, annotation(bbox=[-0.5, 3, 100, 5.25]))
    assert isinstance(over, Instance) and over.box == (0, 3, 40, 8.25)
    bare = one(tmp_path, annotation(bbox=None))
    assert isinstance(bare, Instance) and bare.box == (10, 10, 20, 20)
    unmasked = one(tmp_path, annotation(segmentation=[]))
    assert isinstance(unmasked, Instance) and unmasked.mask is None


def test_a_second_annotation_of_one_id_is_dropped(tmp_path: Path) -> None:
    put(tmp_path, [annotation(5), annotation(5, category_id=3), annotation(6)])
    (photo,), dropped = loaded(tmp_path)
    assert [i.instance_id[-2:] for i in photo.instances] == ["#5", "#6"]
    assert [d.reason for d in dropped] == ["duplicate_id"]


def test_one_photo_in_two_files_is_read_once(tmp_path: Path) -> None:
    put(tmp_path, [annotation()], [image(file_name="COCO_train2014_000000000009.jpg")], "train2014")
    put(tmp_path, [annotation()], name="val2017")
    (photo,), dropped = loaded(tmp_path)
    assert photo.image.path == "train2014/COCO_train2014_000000000009.jpg"
    assert [d.reason for d in dropped] == ["duplicate_image"]


def test_custom_names_of_two_splits_do_not_meet(tmp_path: Path) -> None:
    for split in ("train", "val"):
        put(tmp_path, [annotation()], [image(file_name="a.jpg")], split)
    photos, dropped = loaded(tmp_path)
    assert [p.image.image_id for p in photos] == ["coco/train/a", "coco/val/a"] and dropped == []


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../../x.jpg", "", "."])
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, [annotation()], [image(file_name=name)])
    photos, dropped = loaded(tmp_path)
    assert photos == [] and [d.reason for d in dropped] == ["unsafe_path"]


@pytest.mark.parametrize(("size", "reason"), [((20.5, 30), "malformed"), ((10**9, 10**9), "too_large")])
def test_impossible_sizes_are_refused(tmp_path: Path, size: tuple[Any, Any], reason: str) -> None:
    put(tmp_path, [annotation()], [image(width=size[0], height=size[1])])
    photos, dropped = loaded(tmp_path)
    assert photos == [] and reason in [d.reason for d in dropped]


def test_a_size_not_said_is_read_from_the_photo_whatever_its_name_says(tmp_path: Path) -> None:
    put(tmp_path, [annotation()], [image(width=None, height=None)])
    assert loaded(tmp_path)[1][0].reason == "missing"
    images.write_png(tmp_path / "train2017" / "x.png", np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "train2017" / "x.png").rename(tmp_path / "train2017" / "000000000009.jpg")  # PNG data in a .jpg name
    (photo,), _ = loaded(tmp_path)
    assert (photo.image.width, photo.image.height) == (40, 30)


def test_photos_are_found_in_other_folders(tmp_path: Path) -> None:
    put(tmp_path, [annotation()], name="minival")
    images.write_jpeg(tmp_path / "val2014" / "000000000009.jpg", np.zeros((30, 40, 3), np.uint8))
    assert loaded(tmp_path)[0][0].image.path == "val2014/000000000009.jpg"


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"images": [', "byte 12"), ("[]", "expected"), ("{}", "images"), ("x", "byte 0"), ("[" * 10**6, "expected")],
)
def test_a_file_that_is_no_coco_file_is_named_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = put(tmp_path, [])
    path.write_text(text)
    with pytest.raises(UserError) as error:
        list(coco.scan(tmp_path))
    assert str(path) in str(error.value) and says in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14))
def test_written_outlines_give_back_the_mask(seed: int, h: int, w: int) -> None:
    shape = np.random.default_rng(seed).random((h, w)) < 0.6
    mask = masks.encode(shape)
    said = _coco_write.segmentation(mask, False)
    rle = pycoco.merge(pycoco.frPyObjects(said, h, w)) if isinstance(said, list) else pycoco.frPyObjects(said, h, w)
    assert (pycoco.decode(rle).astype(bool) == shape).all()


def test_solid_masks_are_polygons_and_holes_are_not() -> None:
    solid = np.zeros((20, 20), bool)
    solid[2:9, 3:15] = solid[9:18, 5:9] = True
    holed = solid.copy()
    holed[4:6, 6:9] = False
    assert isinstance(_coco_write.segmentation(masks.encode(solid), False), list)
    assert isinstance(_coco_write.segmentation(masks.encode(holed), False), dict)
    assert isinstance(_coco_write.segmentation(masks.encode(solid), True), dict)


def test_each_photo_is_looked_for_on_its_own_on_a_disk_and_in_an_archive(tmp_path: Path) -> None:
    numbers = range(1, 5)
    put(tmp_path, [annotation(n, image_id=n) for n in numbers], [image(n) for n in numbers])

    def first_places() -> list[str]:
        return [e.payload.found.places[0] for e in coco.scan(tmp_path)]

    assert first_places() == [f"train2017/{n:012d}.jpg" for n in numbers]
    (tmp_path / "val2017").mkdir()
    there = tmp_path / "images" / "train2017" / f"{4:012d}.jpg"
    images.write_jpeg(there, np.zeros((30, 40, 3), np.uint8))
    images.write_jpeg(tmp_path / "val2017" / f"{3:012d}.JPG", np.zeros((30, 40, 3), np.uint8))
    found = [*(f"train2017/{n:012d}.jpg" for n in (1, 2)), f"val2017/{3:012d}.JPG", f"images/train2017/{4:012d}.jpg"]
    assert first_places() == found
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(there, f"{4:012d}.jpg")
    there.unlink()
    (tmp_path / "photos.tar").rename(tmp_path / "images" / "train2017.tar")
    (tmp_path / "images" / "train2017").rmdir()
    locations._mounted.cache_clear()  # a command's own, kept while it runs
    assert first_places() == found
