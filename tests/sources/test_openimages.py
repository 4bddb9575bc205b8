"""Open Images: known answers and the gotchas of formats §5."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import SourceImage
from ahp_toolkit.sources import openimages
from ahp_toolkit.sources.reading import grouping
from ahp_toolkit.sources.reading import openimages_csv as oicsv
from ahp_toolkit.storage import images
from tests.harness.bench.scale_files import PERSON_MIDS, write_openimages_csv

A, B = "000002b66c9c498e", "00000000000000ff"
PERSON, MAN = "/m/01g317", "/m/04yx4"
HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
MASK_HEAD = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"


def row(image: str = A, label: str = PERSON, sides: str = "0.1,0.5,0.2,0.8", flags: str = "0,0,0,0,0") -> str:
    return f"{image},xclick,{label},1,{sides},{flags}"


def put(root: Path, rows: list[str], head: str = HEAD) -> None:
    (root / "validation-annotations-bbox.csv").write_text("\n".join([head, *rows]) + "\n")
    for key in (A, B):
        images.write_jpeg(root / "validation" / f"{key}.jpg", np.zeros((50, 100, 3), np.uint8))


def loaded(root: Path) -> tuple[list[SourceImage], list[str]]:
    found = [openimages.load(root, e) for e in openimages.scan(root)]
    return [x.image for x in found if x.image], [d.reason for x in found for d in x.dropped]


def test_known_answer_and_tri_state_flags(tmp_path: Path) -> None:
    put(tmp_path, [row(flags="1,0,-1,0,-1"), row(label="/m/01mzpv", sides="0.0,1.0,0.5,0.75")])
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01mzpv,Chair\n")
    (image,), dropped = loaded(tmp_path)
    person, chair = image.instances
    assert not dropped and image.image.image_id == f"openimages/{A}" and image.image.photo == f"openimages/{A}"
    assert (image.image.width, image.image.height) == (100, 50) and image.image.path == f"validation/{A}.jpg"
    assert person.box == Box(10, 10, 50, 40) and person.label == "person"
    f = person.flags
    assert (f.occluded, f.truncated, f.group, f.depiction, f.inside) == (True, False, None, False, None)
    assert person.instance_id == f"openimages/{A}#m01g317-01000-02000-05000-08000"
    assert (chair.label, chair.box) == ("chair", Box(0, 25, 100, 37.5))


def test_columns_go_by_name(tmp_path: Path) -> None:
    put(tmp_path, [row()])
    first = loaded(tmp_path)
    head = "YMax,LabelName,IsGroupOf,XMax,More,ImageID,YMin,XMin,IsOccluded,IsTruncated,IsDepiction,IsInside"
    put(tmp_path, [f'0.8,{PERSON},0,0.5,"a,\nb",{A},0.2,0.1,0,0,0,0'], head)
    assert loaded(tmp_path) == first


def test_an_image_that_comes_back_is_one_photo(tmp_path: Path) -> None:
    put(tmp_path, [row(), row(B), row(sides="0.6,0.9,0.2,0.8")])
    found, _ = loaded(tmp_path)
    assert [(i.image.image_id[-4:], len(i.instances)) for i in found] == [("00ff", 1), ("498e", 2)]


def test_the_same_human_under_two_labels_stays_under_the_specific_one(tmp_path: Path) -> None:
    put(tmp_path, [row(flags="0,0,0,0,0"), row(label=MAN, sides="0.1,0.5,0.2,0.79", flags="1,0,0,0,0")])
    (image,), dropped = loaded(tmp_path)
    assert dropped == ["duplicate_label"] and [i.flags.occluded for i in image.instances] == [True]


def test_a_human_is_no_second_label_of_the_group_around_it(tmp_path: Path) -> None:
    put(tmp_path, [row(), row(label=MAN, sides="0.1,0.5,0.2,0.79", flags="0,0,1,0,0")])
    (image,), dropped = loaded(tmp_path)
    assert not dropped and [i.flags.group for i in image.instances] == [False, True]


def test_what_is_dropped_says_plain_numbers_and_its_label(tmp_path: Path) -> None:
    put(tmp_path, [row(), row(sides="0.5,0.1,0.2,0.8"), row(label="/m/0k4j", sides="1.1,1.5,0.2,0.8")])
    dropped = [d.detail for e in openimages.scan(tmp_path) for d in openimages.load(tmp_path, e).dropped]
    sides = "XMin, XMax, YMin, YMax ="
    assert dropped == [
        f"{PERSON} {sides} [0.5, 0.1, 0.2, 0.8], [0, 0, 0, 0, 0]",
        f"label=/m/0k4j: /m/0k4j {sides} [1.1, 1.5, 0.2, 0.8], [0, 0, 0, 0, 0]",
    ]


def test_bad_rows_are_dropped(tmp_path: Path) -> None:
    rows = [
        row(), row(), row(sides="0.5,0.1,0.2,0.8"), row(sides="nan,0.5,0.2,0.8"), row(sides="x,0.5,0.2,0.8"),
        row(sides="1.1,1.5,0.2,0.8"), row(sides="0.1,0.101,0.2,0.8"), row(flags="0,7,0,0,0"), row("not-hex"), f"{A},x",
    ]  # fmt: skip
    wanted = [
        "bad_box",
        "bad_box",
        "bad_box",
        "bad_box",
        "bad_flag",
        "bad_record",
        "box_outside",
        "duplicate",
        "zero_area",
    ]
    put(tmp_path, rows)  # a row that no type fits: the whole block goes row by row
    (image,), dropped = loaded(tmp_path)
    assert len(image.instances) == 1 and sorted(dropped) == wanted
    put(tmp_path, [r for r in rows if not r.endswith(",x") and "x,0.5" not in r])  # all of it typed
    assert sorted(loaded(tmp_path)[1]) == wanted[2:]


def test_subclasses_come_from_the_hierarchy(tmp_path: Path) -> None:
    put(tmp_path, [row(label="/m/0new"), row(B, MAN)])
    person = {"LabelName": PERSON, "Subcategory": [{"LabelName": "/m/0new"}], "Part": [{"LabelName": MAN}]}
    (tmp_path / "bbox_labels_600_hierarchy.json").write_text(json.dumps({"LabelName": "x", "Subcategory": [person]}))
    found, _ = loaded(tmp_path)
    assert [i.image.image_id for i in found] == [f"openimages/{A}"]


@pytest.mark.parametrize("size", [(50, 100), (26, 50), (100, 200)])
def test_masks_of_any_size_fit_the_photo(tmp_path: Path, size: tuple[int, int]) -> None:
    put(tmp_path, [row(), row(sides="0.6,0.9,0.2,0.8")])
    name = f"{A}_m01g317_9a041d52.png"
    text = f"{MASK_HEAD}\n{name},{A},{PERSON},9a041d52,0.60001,0.899999,0.2,0.8,,0.1 0.2 1;\n"
    (tmp_path / "validation-annotations-object-segmentation.csv").write_text(text)
    pixels = np.zeros(size, np.uint8)
    pixels[: size[0] // 2, size[1] // 2 :] = 255
    assert loaded(tmp_path)[1] == ["mask_missing"] and len(loaded(tmp_path)[0][0].instances) == 2
    images.write_png(tmp_path / "validation-masks" / name, pixels)
    (image,), dropped = loaded(tmp_path)
    mask = image.instances[1].mask
    assert not dropped and image.instances[0].mask is None and mask is not None
    assert mask.box == Box(50, 0, 100, 25) and mask.area == 50 * 25
    (tmp_path / "validation-masks" / name).write_bytes(b"nonsense")
    (image,), dropped = loaded(tmp_path)
    assert dropped == ["mask_unreadable"] and image.instances[1].mask is None


def test_hostile_and_homeless_masks(tmp_path: Path) -> None:
    put(tmp_path, [row()])
    text = f"{MASK_HEAD}\n../../x.png,{A},{PERSON},1,0.1,0.5,0.2,0.8,,\nb.png,{A},{MAN},2,0.1,0.5,0.2,0.8,,\n"
    (tmp_path / "validation-annotations-object-segmentation.csv").write_text(text)
    (image,), dropped = loaded(tmp_path)
    assert sorted(dropped) == ["mask_without_box", "unsafe_path"] and image.instances[0].mask is None


def test_image_info_with_quoted_commas_and_newlines(tmp_path: Path) -> None:
    put(tmp_path, [row(), row(B)])
    url = "https://farm8.staticflickr.com/7/5249_c8a2_o.jpg"
    text = f'ImageID,Title,OriginalURL,License,Rotation\n{B},"a, ""b""\n{A},x",,L0,90.0\n{A},"t\n",{url},L1,\n'
    (tmp_path / "validation-images-with-rotation.csv").write_text(text)
    found, _ = loaded(tmp_path)
    assert [(i.image.photo, i.image.licence) for i in found] == [
        (f"openimages/{B}", "L0"), (f"openimages/{A} flickr/5249", "L1")
    ]  # fmt: skip
    assert all((i.image.width, i.image.height) == (100, 50) for i in found)


def test_cut_at_any_byte_is_a_user_error_or_the_right_prefix(tmp_path: Path) -> None:
    put(tmp_path, [row(), row(B)])
    path = tmp_path / "validation-annotations-bbox.csv"
    whole = path.read_bytes()
    counts = set()
    for stop in range(len(whole) + 1):
        path.write_bytes(whole[:stop])
        try:
            counts.add((stop, len(list(openimages.scan(tmp_path)))))
        except UserError as e:
            assert path.name in str(e) and "\n" not in str(e)
    ends = [n + 1 for n, c in enumerate(whole) if c == 10]
    assert counts == {(end, n) for n, end in enumerate(ends)}


def test_small_blocks_and_runs_group_as_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "oidv6-train-annotations-bbox.csv"
    write_openimages_csv(path, 3_000, seed=5)
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    order = np.random.default_rng(0).permutation(len(lines)).tolist()
    lines = [lines[n] for n in order]
    path.write_text("\n".join([path.read_text().split("\n", 1)[0], *map(",".join, lines)]) + "\n")
    for name, value in {"RUN_ROWS": 400, "_STEP": 16, "RANGE_ROWS": 100}.items():
        monkeypatch.setattr(grouping, name, value)
    monkeypatch.setattr(oicsv.blocks, "__defaults__", (None, 20_000))
    wanted: dict[str, list[float]] = {}
    for line in lines:
        wanted.setdefault(line[0], []).append(float(line[4]))
    human = {line[0] for line in lines if line[2] in PERSON_MIDS}
    got = {
        e.image_id[-16:]: np.frombuffer(e.payload.rows, openimages._ROW)["box"][:, 0].tolist()
        for e in openimages.scan(tmp_path)
    }
    assert list(got.items()) == [(k, wanted[k]) for k in sorted(human)]
