"""VOC's and SBD's gotchas (formats §2) and bad data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ahp_toolkit.core import masks
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.sample_world.writers import voc_sbd as voc_writer
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sample_world.writers.voc_sbd import voc_palette
from ahp_toolkit.sources import voc_sbd
from ahp_toolkit.sources.base import Loaded
from ahp_toolkit.storage import images

VOC = "VOCdevkit/VOC2012"
ID = "voc_sbd/2008_000001"
PERSON = """<object><name>person</name><truncated>1</truncated><difficult>0</difficult>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>
<bndbox><ymax>20.5</ymax><xmin>11</xmin><xmax>20</xmax><ymin>5.5</ymin></bndbox></object>"""


def put(root: Path, objects: str, stem: str = "2008_000001") -> None:
    path = root / VOC / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / VOC / "JPEGImages").mkdir(exist_ok=True)
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>x.jpg</filename>{size}{objects}</annotation>")


def put_masks(root: Path, objects: np.ndarray, classes: np.ndarray, stem: str = "2008_000001") -> None:
    for name, labels in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        images.write_palette_png(root / VOC / name / f"{stem}.png", labels.astype(np.uint8), voc_palette())


def box(name: str, x0: int, y0: int, x1: int, y1: int) -> str:
    corners = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


def load(root: Path) -> Loaded:
    (entry,) = voc_sbd.scan(root)
    return voc_sbd.load(root, entry)


def people(root: Path) -> tuple[Instance, ...]:
    image = load(root).image
    assert image is not None
    return image.instances


def scene(label: str = "person", flags: Flags | None = None) -> Scene:
    shape = np.zeros((30, 40), bool)
    shape[5:20, 10:20] = True
    mask = masks.encode(shape)
    person = Instance(f"{ID}#1", label, mask.box, mask, None, flags or Flags())
    image = SourceImage(ImageRef(ID, "voc_sbd", "", 40, 30), (person,))
    return Scene(image, np.full((30, 40, 3), 90, np.uint8))


def test_the_persons_own_box_is_read_not_its_head(tmp_path: Path) -> None:
    put(tmp_path, PERSON)
    (person,) = people(tmp_path)
    assert person.box == (10, 4.5, 20, 20.5) and person.mask is None
    assert person.flags == Flags(truncated=True, difficult=False, occluded=None)


def test_masks_go_to_their_objects_and_void_to_none(tmp_path: Path) -> None:
    put(tmp_path, box("person", 1, 1, 10, 10) + box("dog", 21, 11, 30, 20))
    objects = np.zeros((30, 40))
    objects[10:20, 20:30] = 1  # the first mask is the second object's
    objects[0:10, 0:10] = 2
    objects[10, 20:30] = 255
    classes = np.where(objects == 1, 12, np.where(objects == 2, 15, objects))
    put_masks(tmp_path, objects, classes)
    person, dog = people(tmp_path)
    assert person.label == "person" and person.mask is not None and person.mask.area == 100
    assert dog.label == "dog" and dog.mask is not None and dog.mask.area == 90


def test_masks_go_to_the_objects_they_fit_best_whatever_their_numbers(tmp_path: Path) -> None:
    put(tmp_path, box("person", 6, 6, 15, 25) + box("person", 10, 6, 19, 25))
    numbers = np.zeros((30, 40), np.uint8)  # the second object's outline is number 1
    numbers[5:25, 5:15], numbers[6:24, 9:19], numbers[5, 9:19] = 2, 1, 1
    path = tmp_path / "benchmark_RELEASE/dataset/inst/2008_000001.mat"
    path.parent.mkdir(parents=True)
    outlines = {"Segmentation": numbers, "Boundaries": np.zeros((2, 1)), "Categories": np.array([[15], [15]], np.uint8)}
    savemat(path, {"GTinst": outlines})
    for again in range(2):  # SBD's, then VOC's own
        assert [i.mask and i.mask.box.x0 for i in people(tmp_path)] == [5, 9]
        if not again:
            put_masks(tmp_path, numbers, np.where(numbers > 0, 15, 0))


def test_numbers_decide_between_masks_of_voc_that_fit_alike(tmp_path: Path) -> None:
    put(tmp_path, box("person", 3, 1, 32, 29) + box("person", 4, 1, 33, 29))
    numbers = np.zeros((30, 40), np.uint8)
    numbers[1:28, 15:33], numbers[1, 3:33] = 1, 1
    numbers[2:28, 2:15], numbers[27, 2:32] = 2, 2
    put_masks(tmp_path, numbers, np.where(numbers > 0, 15, 0))
    first, second = people(tmp_path)
    assert first.mask is not None and first.mask == masks.encode(numbers == 1) and second.mask is not None
    assert first.mask.box.iou(second.box) > first.mask.box.iou(first.box)  # a pixel better, and yet


def test_a_mask_without_an_object_stands_alone(tmp_path: Path) -> None:
    put(tmp_path, box("person", 1, 1, 10, 10))
    objects = np.zeros((30, 40))
    objects[20:30, 20:40] = 1
    put_masks(tmp_path, objects, objects * 15)
    boxed, masked = people(tmp_path)
    assert boxed.mask is None and masked.instance_id == f"{ID}#mask1" and masked.box == (20, 20, 40, 30)


def test_a_mask_of_another_size_leaves_the_box(tmp_path: Path) -> None:
    put(tmp_path, PERSON)
    put_masks(tmp_path, np.ones((31, 40)), np.ones((31, 40)))
    loaded = load(tmp_path)
    assert loaded.image is not None and loaded.image.instances[0].mask is None
    assert [(d.id, d.reason) for d in loaded.dropped] == [(f"{ID}/mask", "mask_size")]


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (box("person", 11, 1, 5, 10), "empty_box"),
        (box("person", 60, 1, 65, 10), "box_outside"),
        ("<object><name>person</name></object>", "bad_box"),
        (box("person", 1, 1, 9, 9).replace("<xmin>1<", "<xmin>nan<"), "not_finite"),
        (box("", 1, 1, 9, 9), "unknown_category"),
    ],
)
def test_bad_objects_are_dropped(tmp_path: Path, objects: str, reason: str) -> None:
    put(tmp_path, objects + PERSON)
    loaded = load(tmp_path)
    assert loaded.image is not None and [i.instance_id for i in loaded.image.instances] == [f"{ID}#2"]
    assert [(d.id, d.reason) for d in loaded.dropped] == [(f"{ID}#1", reason)]


def test_xml_that_is_none_costs_the_photo_only(tmp_path: Path) -> None:
    put(tmp_path, PERSON + "<object>")
    put(tmp_path, PERSON, "2008_000002")
    first, second = (voc_sbd.load(tmp_path, e) for e in voc_sbd.scan(tmp_path))
    assert first.image is None and first.dropped[0].reason == "annotation_corrupt" and second.image is not None


def test_sbd_alone_gives_masks_with_their_boxes(tmp_path: Path) -> None:
    voc_writer.write(tmp_path, [scene()])
    assert not (tmp_path / VOC).exists()
    loaded = load(tmp_path)
    assert loaded.image is not None and loaded.image.instances == scene().image.instances
    assert loaded.image.image.photo == "voc/2008_000001"
    assert loaded.image.image.path == "benchmark_RELEASE/dataset/img/2008_000001.jpg"


def test_sbd_masks_fill_in_where_voc_has_none_and_give_way_where_it_has(tmp_path: Path) -> None:
    voc_writer.write(tmp_path, [scene()])
    put(tmp_path, box("person", 11, 6, 20, 20))
    (person,) = people(tmp_path)
    assert person.mask == scene().image.instances[0].mask
    smaller = np.zeros((30, 40))
    smaller[6:20, 11:20] = 1
    put_masks(tmp_path, smaller, smaller * 15)
    (person,) = people(tmp_path)
    assert person.mask is not None and person.mask.area == 14 * 9


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_a_damaged_mat_file_is_dropped(tmp_path: Path, data: bytes) -> None:
    voc_writer.write(tmp_path, [scene()])
    (tmp_path / "benchmark_RELEASE/dataset/inst/2008_000001.mat").write_bytes(data)
    loaded = load(tmp_path)
    assert [d.reason for d in loaded.dropped] == ["mask_corrupt"] and all(
        isinstance(d, Dropped) for d in loaded.dropped
    )


@pytest.mark.parametrize("inner", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_may_be_the_root_itself(tmp_path: Path, inner: str) -> None:
    voc_writer.write(tmp_path / "w", [scene(flags=Flags(occluded=True))])
    root = tmp_path / "root" / inner
    root.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "w" / VOC).rename(root)
    (person,) = people(tmp_path / "root")
    assert person.flags.occluded is True and person.flags.truncated is None


def test_the_palette_is_vocs() -> None:
    assert voc_palette()[45:48] == [192, 128, 128] and voc_palette()[-3:] == [224, 224, 192]  # person, void
