"""One quirk, one answer: what tools write, through every reader where it applies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, SourceImage
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import images

H, W = 30, 40
POLYGON = [10, 10, 20, 10, 20, 20, 10, 20]
SHAPE = np.zeros((H, W), bool)
SHAPE[10:20, 10:20] = True
MASK = masks.encode(SHAPE)
RUNS = MASK.runs().tolist()
LOW = np.zeros((H, W), bool)
LOW[10:15, 10:20] = True
SEEN = masks.encode(LOW)
SEEN_POLYGON = [10, 10, 20, 10, 20, 15, 10, 15]
KEY = "000a1b2c3d4e5f60"


def photo(path: Path) -> None:
    images.write_jpeg(path, np.full((H, W, 3), 90, np.uint8))


def coco(
    root: Path,
    note: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
    encoding: str = "utf-8",
    **top: Any,
) -> None:
    """One person in one photo; ``note`` and ``image`` change its records, ``top`` the file's."""
    photo(root / "train" / "a.jpg")
    person = {"id": 5, "image_id": 7, "category_id": 1, "bbox": [10, 10, 10, 10], "segmentation": [POLYGON]}
    document = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": W, "height": H} | (image or {})],
        "annotations": [person | (note or {})],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_bytes(json.dumps(document | top).encode(encoding))


def objects365(
    root: Path,
    note: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
    encoding: str = "utf-8",
    **top: Any,
) -> None:
    photo(root / "train" / "patch0" / "a.jpg")
    person = {"id": 5, "image_id": 7, "category_id": 1, "bbox": [10, 10, 10, 10], "iscrowd": 0}
    document = {
        "images": [{"id": 7, "file_name": "patch0/a.jpg", "width": W, "height": H} | (image or {})],
        "annotations": [person | (note or {})],
        "categories": [{"id": 1, "name": "Person"}, {"id": 2, "name": "Car"}],
    }
    (root / "zhiyuan_objv2_train.json").write_bytes(json.dumps(document | top).encode(encoding))


def openimages(root: Path, flag: str = "0", label: str = "/m/01g317", encoding: str = "utf-8", end: str = "\n") -> None:
    photo(root / "train" / f"{KEY}.jpg")
    head = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    row = f"{KEY},{label},0.25,0.5,0.25,0.75,{flag},0,0,0,0"
    (root / "train-annotations-bbox.csv").write_bytes(f"{head}{end}{row}{end}".encode(encoding))


def voc_sbd(root: Path, flag: str = "0", size: str = f"<width>{W}</width><height>{H}</height>", box: str = "11",
            encoding: str = "utf-8", name: str = "person") -> None:  # fmt: skip
    folder = root / "VOCdevkit" / "VOC2012"
    photo(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations").mkdir()
    thing = (f"<object><name>{name}</name><occluded>{flag}</occluded><bndbox><xmin>{box}</xmin><ymin>11</ymin>"
             "<xmax>20</xmax><ymax>20</ymax></bndbox></object>")  # fmt: skip
    head = "" if encoding != "utf-16" else '<?xml version="1.0" encoding="utf-16"?>'
    text = f"{head}<annotation><filename>a.jpg</filename><size>{size}</size>{thing}</annotation>"
    (folder / "Annotations" / "a.xml").write_bytes(text.encode(encoding))


def lip(root: Path, encoding: str = "utf-8", end: str = "\n", line: str = "a") -> None:
    photo(root / "train_images" / "a.jpg")
    images.write_png(root / "train_segmentations" / "a.png", SHAPE.astype(np.uint8) * 5)
    (root / "train_id.txt").write_bytes(f"{line}{end}".encode(encoding))


def ahp(root: Path, encoding: str = "utf-8", end: str = "\n", line: str = "a") -> None:
    photo(root / "train" / "JPEGImages" / "a.jpg")
    images.write_png(root / "train" / "Annotations" / "a.png", SHAPE.astype(np.uint8) * 255)
    (root / "train" / "ImageSets").mkdir()
    (root / "train" / "ImageSets" / "train.txt").write_bytes(f"{line}{end}".encode(encoding))


WRITE = {
    "coco": coco, "objects365": objects365, "openimages": openimages, "voc_sbd": voc_sbd, "lip": lip, "ahp": ahp,
}  # fmt: skip


def read(name: str, root: Path) -> tuple[list[SourceImage], list[Dropped]]:
    module = SOURCES.get(name)
    loaded = [module.load(root, e) for e in module.scan(root, name)]
    return [x.image for x in loaded if x.image is not None], [d for x in loaded for d in x.dropped]


JSON_READERS, TEXT_READERS = ("coco", "objects365"), ("lip", "ahp")
MASKED = [
    ("polygon", [POLYGON]), ("flat", POLYGON), ("floats", [[float(v) for v in POLYGON]]),
    ("texts", [[str(v) for v in POLYGON]]), ("points", [[10, 10], [20, 10], [20, 20], [10, 20]]),
    ("with_empty", [POLYGON, []]), ("runs", {"size": [H, W], "counts": RUNS}),
    ("float_runs", {"size": [float(H), float(W)], "counts": [float(r) for r in RUNS]}),
    ("compressed", MASK.rle_json),
]  # fmt: skip
BOX_ONLY = [("null", None), ("empty", []), ("empty_inner", [[]])]
REFUSED = [
    ("fraction", {"size": [H, W], "counts": [r + 0.5 for r in RUNS]}, "bad_rle"),
    ("other_size", {"size": [W, H], "counts": RUNS}, "bad_rle"), ("two_points", [[1, 1, 5, 5]], "short_polygon"),
    ("odd", [[1, 1, 5, 5, 9]], "bad_segmentation"), ("text", "polygon", "bad_segmentation"),
    ("nan", [[1, 1, math.nan, 5, 9, 9]], "not_finite"), ("bool", [[True] * 6], "bad_segmentation"),
]  # fmt: skip
GOOD = [
    *((n, q, {"note": {"id": v}}) for n in JSON_READERS for q, v in (("float_id", 5.0), ("text_id", "5"))),
    *((n, "float_image_id", {"note": {"image_id": 7.0}}) for n in JSON_READERS),
    *((n, "text_image_id", {"note": {"image_id": "7"}}) for n in JSON_READERS),
    *((n, "text_category", {"note": {"category_id": "1"}}) for n in JSON_READERS),
    *((n, "stem_ids", {"note": {"image_id": "x_1"}, "image": {"id": "x_1"}}) for n in JSON_READERS),
    *((n, f"crowd_{v}", {"note": {"iscrowd": v}}) for n in JSON_READERS for v in (None, False, 0.0, "0")),
    *((n, "text_box", {"note": {"bbox": ["10", "10", "10", "10"]}}) for n in JSON_READERS),
    *((n, "float_box", {"note": {"bbox": [10.0, 10.0, 10.0, 10.0]}}) for n in JSON_READERS),
    *((n, f"size_{w}", {"image": {"width": w, "height": w}}) for n in JSON_READERS for w in (0, -1, None)),
    *((n, "text_size", {"image": {"width": str(W), "height": float(H)}}) for n in JSON_READERS),
    *((n, f"licenses_{v}", {"licenses": v}) for n in ("coco",) for v in (None, "", [{"name": "x"}], {})),
    *((n, e, {"encoding": e}) for n in WRITE for e in ("utf-8-sig", "utf-16")),
    *((n, "crlf", {"end": "\r\n"}) for n in (*TEXT_READERS, "openimages")),
    *((n, "with_ending", {"line": "a.jpg"}) for n in TEXT_READERS),
    *(("openimages", f"flag_{v}", {"flag": v}) for v in ("0.0", "False", "false", "", "-1")),
    *(("voc_sbd", f"flag_{v}", {"flag": v}) for v in ("0.0", "False", "", "Unspecified")),
    *(("openimages", f"label_{v}", {"label": v}) for v in ("Person", "Man", "woman")),
    ("voc_sbd", "size_zero", {"size": "<width>0</width><height>0</height>"}),
    ("voc_sbd", "no_size", {"size": ""}), ("voc_sbd", "float_box", {"box": "11.0"}),
    ("voc_sbd", "upper_case", {"name": "Person"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "quirk", "given"), GOOD, ids=[f"{n}-{q}" for n, q, _ in GOOD])
def test_a_quirk_loses_nobody(name: str, quirk: str, given: dict[str, Any], tmp_path: Path) -> None:
    WRITE[name](tmp_path, **given)
    (found,), dropped = read(name, tmp_path)
    (person,) = found.instances
    assert person.label == "person" and dropped == []
    assert (found.image.width, found.image.height) == (W, H)
    if name != "openimages":
        assert person.box == (10, 10, 20, 20)
    assert not person.flags.crowd and not person.flags.occluded


@pytest.mark.parametrize(("name", "flag"), [(n, v) for n in ("openimages", "voc_sbd") for v in ("1", "1.0", "True")])
def test_a_flag_is_true_in_every_form(name: str, flag: str, tmp_path: Path) -> None:
    WRITE[name](tmp_path, flag=flag)
    assert read(name, tmp_path)[0][0].instances[0].flags.occluded is True


@pytest.mark.parametrize("name", ["openimages", "voc_sbd"])
def test_what_is_no_flag_drops_the_person(name: str, tmp_path: Path) -> None:
    WRITE[name](tmp_path, flag="7")
    assert [d.reason for d in read(name, tmp_path)[1]] == ["bad_flag"]


@pytest.mark.parametrize("name", JSON_READERS)
@pytest.mark.parametrize("flag", [1, 1.0, True, "1", "true"])
def test_a_crowd_is_one_in_every_form(name: str, flag: Any, tmp_path: Path) -> None:
    WRITE[name](tmp_path, note={"iscrowd": flag})
    assert read(name, tmp_path)[0][0].instances[0].flags.crowd is True


@pytest.mark.parametrize("name", JSON_READERS)
@pytest.mark.parametrize(
    ("note", "reason"),
    [({"iscrowd": 2}, {"bad_flag"}), ({"id": None}, {"malformed", "bad_record"}), ({"bbox": [1, 2, 3]}, {"bad_box"}),
     ({"bbox": [1, 2, 3, math.nan]}, {"not_finite", "bad_box"})],
)  # fmt: skip
def test_what_has_no_meaning_is_dropped(name: str, note: dict[str, Any], reason: set[str], tmp_path: Path) -> None:
    WRITE[name](tmp_path, note=note)
    _, dropped = read(name, tmp_path)
    assert len(dropped) == 1 and dropped[0].reason in reason


@pytest.mark.parametrize(("quirk", "value"), MASKED, ids=[q for q, _ in MASKED])
def test_every_form_of_an_outline_is_the_mask(quirk: str, value: Any, tmp_path: Path) -> None:
    coco(tmp_path, note={"segmentation": value})
    assert read("coco", tmp_path)[0][0].instances[0].mask == MASK


@pytest.mark.parametrize(("quirk", "value"), BOX_ONLY, ids=[q for q, _ in BOX_ONLY])
def test_no_outline_leaves_the_box(quirk: str, value: Any, tmp_path: Path) -> None:
    coco(tmp_path, note={"segmentation": value})
    (person,) = read("coco", tmp_path)[0][0].instances
    assert person.mask is None and person.box == (10, 10, 20, 20)


@pytest.mark.parametrize(("quirk", "value", "reason"), REFUSED, ids=[q for q, _, _ in REFUSED])
def test_an_outline_without_a_meaning_is_dropped(quirk: str, value: Any, reason: str, tmp_path: Path) -> None:
    coco(tmp_path, note={"segmentation": value})
    assert [d.reason for d in read("coco", tmp_path)[1]] == [reason]


@pytest.mark.parametrize(
    "fields",
    [
        {"visible_mask": SEEN.rle_json, "occlude_rate": 0.5},
        {"inmodal_seg": SEEN.rle_json, "inmodal_bbox": [10, 10, 10, 5]},
        {"segmentation": None, "a_segm": [POLYGON], "i_segm": [SEEN_POLYGON], "i_bbox": [10, 10, 10, 5]},
        {"invisible_mask": masks.encode(SHAPE & ~LOW).rle_json, "occlude_rate": 0.5},
        {"amodal_segmentation": [POLYGON], "segmentation": [SEEN_POLYGON], "bbox": [10, 10, 10, 5]},
    ],
    ids=["cocoa_cls", "kins_2019", "kins_2020", "invisible", "amodal_beside"],
)  # fmt: skip
def test_the_visible_part_is_the_mask_and_the_person_is_occluded(fields: dict[str, Any], tmp_path: Path) -> None:
    coco(tmp_path, note=fields)
    (person,) = read("coco", tmp_path)[0][0].instances
    assert person.mask == SEEN and person.box == (10, 10, 20, 15) and person.flags.occluded is True


@pytest.mark.parametrize(
    ("fields", "occluded", "has_mask"),
    [({"occlude_rate": 0}, False, True), ({"occlude_rate": 0.3}, True, False),
     ({"visible_mask": MASK.rle_json}, False, True),
     ({"attributes": {"occluded": True}}, True, True),
     ({"occluded": False}, False, True)],
)  # fmt: skip
def test_how_far_a_person_is_occluded(fields: dict[str, Any], occluded: bool, has_mask: bool, tmp_path: Path) -> None:
    coco(tmp_path, note=fields)
    (person,) = read("coco", tmp_path)[0][0].instances
    assert person.flags.occluded is occluded and (person.mask is not None) is has_mask


@pytest.mark.parametrize("field", ["amodal_outline_v2", "inmodal_thing"])
def test_a_field_that_may_change_the_meaning_is_refused_in_one_line(field: str, tmp_path: Path) -> None:
    coco(tmp_path, note={field: [POLYGON]})
    with pytest.raises(UserError, match=field) as error:
        read("coco", tmp_path)
    assert "\n" not in str(error.value) and "instances_train.json" in str(error.value)


def two_photos(root: Path, names: tuple[str, str], ids: tuple[Any, Any] = (1, 2)) -> None:
    notes = [{"id": n, "image_id": i, "category_id": 1, "bbox": [n, 10, 10, 10]} for n, i in enumerate(ids, 1)]
    pictures = [{"id": i, "file_name": name, "width": W, "height": H} for i, name in zip(ids, names, strict=True)]
    document = {"images": pictures, "annotations": notes, "categories": [{"id": 1, "name": "person"}]}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(document))


def test_one_id_for_two_files_is_dropped_and_named(tmp_path: Path) -> None:
    two_photos(tmp_path, ("a.jpg", "b.jpg"), (1, 1))
    photos, dropped = read("coco", tmp_path)
    assert photos == [] and {d.reason for d in dropped} == {"ambiguous_id"} and "a.jpg and b.jpg" in dropped[0].detail


def test_one_name_in_two_folders_is_told_by_the_annotated_size_or_dropped(tmp_path: Path) -> None:
    two_photos(tmp_path, ("a.jpg", "b.jpg"))
    for folder, grey in (("x", 10), ("y", 20)):
        images.write_jpeg(tmp_path / folder / "a.jpg", np.full((H, W, 3), grey, np.uint8))
        images.write_jpeg(tmp_path / folder / "b.jpg", np.full((H if folder == "y" else 8, W, 3), grey, np.uint8))
    photos, dropped = read("coco", tmp_path)
    assert [p.image.path for p in photos] == ["y/b.jpg"] and [d.reason for d in dropped] == ["ambiguous_photo"]


@pytest.mark.parametrize(
    "name",
    ["/home/u/data/a.jpg", "C:\\Users\\u\\a.jpg", "/data/local-files/?d=x/a.jpg", "../../upload/4/a.jpg", "a%20b.jpg",
     "http://host/x/a.jpg", "a.JPEG", "deep\\a.jpg"],
)  # fmt: skip
def test_paths_of_other_machines_are_found_by_their_tails(name: str, tmp_path: Path) -> None:
    two_photos(tmp_path, (name, "zz.jpg"))
    place = {"a%20b.jpg": "a b.jpg", "deep\\a.jpg": "deep/a.jpg"}.get(name, "a.jpg")
    photo(tmp_path / "images" / place)
    assert f"images/{place}" in [p.image.path for p in read("coco", tmp_path)[0]]


def test_two_paths_that_lead_to_one_file_are_ambiguous(tmp_path: Path) -> None:
    two_photos(tmp_path, ("/u/cam1/a.jpg", "/u/cam2/a.jpg"))
    photo(tmp_path / "images" / "a.jpg")
    photos, dropped = read("coco", tmp_path)
    assert photos == [] and [d.reason for d in dropped] == ["ambiguous_photo"] * 2


def test_photos_in_deeper_folders_are_found_by_name_and_annotated_size(tmp_path: Path) -> None:
    two_photos(tmp_path, ("a.jpg", "b.jpg"))
    photo(tmp_path / "training" / "image_2" / "left" / "a.jpg")
    images.write_jpeg(tmp_path / "training" / "image_2" / "left" / "b.jpg", np.zeros((8, 8, 3), np.uint8))
    assert read("coco", tmp_path)[0][0].image.path == "training/image_2/left/a.jpg"
    assert [p.image.path for p in read("coco", tmp_path)[0]][1] == "train/b.jpg"  # another picture of that name
