"""Cases of the real datasets (formats §1 to §7) that no other test covers; the others stand in sources_a and _b."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Flags
from ahp_toolkit.sources import voc_sbd
from ahp_toolkit.stages.harvest import Harvest, Rules
from ahp_toolkit.storage import images
from tests.sources import test_coco as coco
from tests.sources import test_lip as lip
from tests.sources import test_objects365 as o365
from tests.sources import test_openimages as oi
from tests.sources import test_voc_sbd as voc


def turned_jpeg(width: int, height: int, orientation: int = 6) -> bytes:
    """A JPEG stored as width x height with an EXIF turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.new("RGB", (width, height), (90, 80, 70)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_coco_photos_without_annotations_are_legal_and_give_nothing(tmp_path: Path) -> None:
    coco.put(tmp_path, [coco.annotation()], [coco.image(), coco.image(10)])
    photos, dropped = coco.loaded(tmp_path)
    assert [p.image.image_id for p in photos] == ["coco/000000000009"] and dropped == []


def test_coco_degenerate_polygons_leave_the_good_ones_and_parts_unite(tmp_path: Path) -> None:
    other = [15.0, 10.0, 25.0, 10.0, 25.0, 20.0, 15.0, 20.0]  # overlaps the square: a union, not an exclusive or
    got = coco.one(tmp_path, coco.annotation(segmentation=[[1, 1, 5, 5], *coco.SQUARE, other]))
    assert isinstance(got, coco.Instance) and got.mask is not None and got.mask.area == 150


def test_coco_photos_of_every_mode_and_format_are_harvested(tmp_path: Path) -> None:
    for n, (mode, fmt) in enumerate((("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("RGBA", "PNG"))):
        root = tmp_path / str(n)
        coco.put(root, [coco.annotation()])
        path = root / "train2017" / "000000000009.jpg"
        path.parent.mkdir()
        Image.new("RGB", (40, 30), (200, 90, 10)).convert(mode).save(path, fmt)
        entries = [("coco", e) for e in coco.coco.scan(root)]
        made = Harvest({"coco": str(root)}, Rules(min_area=20, gutter=1))(entries)
        assert len(made.tables[""]) == 1 and not made.dropped


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_truncated_jpeg_costs_its_people_and_says_so(tmp_path: Path, cut: float) -> None:
    coco.put(tmp_path, [coco.annotation()])
    path = tmp_path / "train2017" / "000000000009.jpg"
    images.write_jpeg(path, np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    entries = [("coco", e) for e in coco.coco.scan(tmp_path)]
    made = Harvest({"coco": str(tmp_path)}, Rules(min_area=20, gutter=1))(entries)
    assert not made.tables[""] and made.dropped[0].reason.startswith("image_")


def test_voc_without_flags_is_unknown_and_decimals_are_read(tmp_path: Path) -> None:
    voc.put(tmp_path, voc.box("person", 3, 4, 20, 21).replace("<xmin>3<", "<xmin>3.5<"))
    (person,) = voc.people(tmp_path)
    assert person.flags == Flags() and person.box == Box(2.5, 3, 20, 21)


def test_sbd_reads_class_fifteen_and_passes_over_empty_and_one_pixel_masks(tmp_path: Path) -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[5:20, 5:15], labels[0, 39] = 1, 3  # number 2 is empty
    record = {"Segmentation": labels, "Categories": np.array([[15], [15], [7]], np.uint8)}
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    for name in ("inst", "img"):
        (folder / name).mkdir(parents=True)
    savemat(folder / "inst" / "2009_000001.mat", {"GTinst": record}, do_compression=True)
    images.write_jpeg(folder / "img" / "2009_000001.jpg", np.zeros((30, 40, 3), np.uint8))
    (entry,) = voc_sbd.scan(tmp_path)
    found = voc_sbd.load(tmp_path, entry)
    assert found.image is not None and not found.dropped
    assert [(i.label, i.box) for i in found.image.instances] == [
        ("person", Box(5, 5, 15, 20)), ("car", Box(39, 0, 40, 1))
    ]  # fmt: skip


def test_lip_photos_of_a_few_pixels_are_read(tmp_path: Path) -> None:
    lip.put(tmp_path, np.full((30, 20), 13, np.uint8))
    found = lip.load(tmp_path)
    assert found.image is not None and found.image.instances[0].box == Box(0, 0, 20, 30)


@pytest.mark.parametrize(("stored", "reason"), [((60, 40), ""), ((40, 60), ""), ((41, 60), "size_mismatch")])
def test_objects365_sizes_are_taken_stored_or_turned(tmp_path: Path, stored: tuple[int, int], reason: str) -> None:
    o365.put(tmp_path, [o365.box(1)])
    (tmp_path / "train" / "patch8" / f"{o365.STEM}.jpg").write_bytes(turned_jpeg(*stored))
    photos, dropped = o365.loaded(tmp_path)
    assert [(p.image.width, p.image.height) for p in photos] == ([] if reason else [(60, 40)])
    assert list(dropped.values()) == ([reason] if reason else [])


def test_objects365_boxes_over_the_border_are_clipped_and_exact_repeats_dropped(tmp_path: Path) -> None:
    o365.put(
        tmp_path, [o365.box(1, (-3.25, 30, 10, 20)), o365.box(2, (-3.25, 30, 10, 20)), o365.box(3, (0, 0, 60, 40))]
    )
    (photo,), dropped = o365.loaded(tmp_path)
    assert [i.box for i in photo.instances] == [Box(0, 30, 6.75, 40), Box(0, 0, 60, 40)]
    assert list(dropped.values()) == ["duplicate"]


def test_open_images_boxes_turn_with_their_photo_by_exif_and_never_by_the_rotation_column(tmp_path: Path) -> None:
    oi.put(tmp_path, [oi.row()])
    (tmp_path / "validation" / f"{oi.A}.jpg").write_bytes(turned_jpeg(100, 50))
    text = f"ImageID,OriginalURL,Rotation\n{oi.A},,90.0\n{oi.B},,\n"
    (tmp_path / "validation-images-with-rotation.csv").write_text(text)
    (photo,), _ = oi.loaded(tmp_path)
    assert (photo.image.width, photo.image.height) == (50, 100) and photo.instances[0].box == Box(10, 10, 40, 50)
    made = Harvest({"openimages": str(tmp_path)}, Rules(min_area=20, gutter=1))(
        [("openimages", e) for e in oi.openimages.scan(tmp_path)]
    )
    assert len(made.tables[""]) == 1 and not made.dropped


def test_open_images_class_file_with_a_header_and_without(tmp_path: Path) -> None:
    oi.put(tmp_path, [oi.row(), oi.row(label="/m/01mzpv", sides="0.0,1.0,0.5,0.75")])
    names = "/m/01mzpv,Chair\n/m/01g317,Person\n"
    for head, file in (
        ("", "class-descriptions-boxable.csv"),
        ("LabelName,DisplayName\n", "oidv7-class-descriptions-boxable.csv"),
    ):
        (tmp_path / file).write_text(head + names)
        assert [i.label for i in oi.loaded(tmp_path)[0][0].instances] == ["person", "chair"]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_open_images_masks_of_one_bit_and_of_eight(tmp_path: Path, mode: str) -> None:
    oi.put(tmp_path, [oi.row()])
    name = f"{oi.A}_m01g317_9a041d52.png"
    text = f"{oi.MASK_HEAD}\n{name},{oi.A},{oi.PERSON},9a041d52,0.1,0.5,0.2,0.8,,\n"
    (tmp_path / "validation-annotations-object-segmentation.csv").write_text(text)
    pixels = np.zeros((50, 100), np.uint8)
    pixels[10:40, 10:50] = 255
    (tmp_path / "validation-masks").mkdir()
    Image.fromarray(pixels).convert(mode).save(tmp_path / "validation-masks" / name)
    (photo,), dropped = oi.loaded(tmp_path)
    assert not dropped and photo.instances[0].mask is not None and photo.instances[0].mask.area == 30 * 40


def test_open_images_files_without_flag_columns_leave_them_unknown(tmp_path: Path) -> None:
    head = "ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsDepictionOf,IsInsideOf"  # MIAP's names
    oi.put(tmp_path, [f"{oi.A},{oi.PERSON},1,0.1,0.5,0.2,0.8,1,1,1"], head)
    (photo,), _ = oi.loaded(tmp_path)
    assert photo.instances[0].flags == Flags(occluded=True)


def test_open_images_humans_of_all_five_classes_and_no_body_parts(tmp_path: Path) -> None:
    mids = ("/m/01g317", "/m/04yx4", "/m/03bt1vf", "/m/01bl7v", "/m/05r655", "/m/02p0tk3", "/m/04hgtk", "/m/0dzct")
    rows = [oi.row(label=mid, sides=f"{k / 10},{k / 10 + 0.09:.2f},0.1,0.9") for k, mid in enumerate(mids)]
    oi.put(tmp_path, rows)
    (photo,), _ = oi.loaded(tmp_path)
    assert [i.label == "person" for i in photo.instances] == [True] * 5 + [False] * 3


def test_one_flickr_photo_in_coco_and_open_images_shares_its_key(tmp_path: Path) -> None:
    url = "http://farm8.staticflickr.com/7/5249_c8a2_z.jpg"
    coco.put(tmp_path / "c", [coco.annotation()], [coco.image(flickr_url=url)])
    oi.put(tmp_path, [oi.row()])
    (tmp_path / "validation-images-with-rotation.csv").write_text(f"ImageID,OriginalURL\n{oi.A},{url}\n{oi.B},\n")
    keys = [p.image.photo for p in (*coco.loaded(tmp_path / "c")[0], *oi.loaded(tmp_path)[0])]
    assert all("flickr/5249" in key.split() for key in keys)
