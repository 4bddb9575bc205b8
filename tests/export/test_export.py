"""Every export read back by somebody else's reader: pycocotools, webdataset, and our source of the AHP release."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from pycocotools.coco import COCO

from ahp_toolkit.cli.main import ahp
from ahp_toolkit.core import masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Human, Sample
from ahp_toolkit.export.export import Contents
from ahp_toolkit.export.export import export as write_export
from ahp_toolkit.export.formats import FORMATS
from ahp_toolkit.export.polygons import flat, loops, polygons
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import read_all
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage import images, parquet
from ahp_toolkit.storage.tar_index import plain_files
from tests import fake_build


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    return fake_build.make(tmp_path_factory.mktemp("build"), photos=6)


def export(build: Path, out: Path, fmt: str, splits=("train", "val", "test"), **contents: object) -> list[Path]:
    return write_export(build, out, fmt, splits, Contents(**contents), quiet=True)  # type: ignore[arg-type]


def run(build: Path, out: Path, fmt: str, what: str = "samples", **more: object) -> list[Path]:
    return export(build, out, fmt, ["val"], what=what, render=fake_build.render_of(build), **more)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
@settings(max_examples=300, deadline=None)
def test_polygons_rasterise_back_exactly(array):
    mask = masks.encode(array)
    h, w = array.shape
    for found in ([flat(loops(mask))], polygons(mask)):
        back = coco.decode(coco.merge(coco.frPyObjects(found, h, w))) if found and found[0] else np.zeros((h, w))
        assert np.array_equal(back.astype(bool), array)


def truth(build: Path, cls: type) -> dict[str, object]:
    folder = build / "splits/val" / ("humans" if cls is Human else "")
    found = parquet.read_records(folder, cls)
    return {getattr(r, "human_id" if cls is Human else "sample_id"): r for r in found}


@pytest.mark.parametrize("what", ["samples", "humans"])
def test_cocoa_is_read_by_pycocotools(build, tmp_path, what):
    flat_path, regions_path, _ = run(build, tmp_path, "cocoa", what, images=False)
    api = COCO(str(flat_path))
    known = truth(build, Sample if what == "samples" else Human)
    assert {a["ahp_id"] for a in api.anns.values()} == set(known)
    for a in api.anns.values():
        record = known[a["ahp_id"]]
        amodal = record.amodal if what == "samples" else record.mask
        assert np.array_equal(api.annToMask(a).astype(bool), amodal.decode())
        visible, hidden = (coco.decode(a[k]).astype(bool) for k in ("visible_mask", "invisible_mask"))
        assert np.array_equal(visible | hidden, amodal.decode()) and not (visible & hidden).any()
        assert a["area"] == amodal.area and a["provisional"]
    assert "PROVISIONAL" in api.dataset["info"]["description"]
    said = json.loads(regions_path.read_text())
    regions = [(r, a["image_id"]) for a in said["annotations"] for r in a["regions"]]
    sizes = {i["id"]: (i["height"], i["width"]) for i in said["images"]}
    assert len(regions) == len(known) and all(len(a["regions"]) == a["size"] for a in said["annotations"])
    for region, image in regions:
        raster = coco.decode(coco.frPyObjects([region["segmentation"]], *sizes[image]))
        assert int(raster.sum()) == region["area"]
        assert ("visible_mask" in region) == (region["occlude_rate"] > 0)


def test_pictures_are_written_and_an_unreadable_photo_is_dropped(build, tmp_path):
    flat_path = run(build, tmp_path, "cocoa")[0]
    api = COCO(str(flat_path))
    said = disk.read_json(tmp_path / "export.json")
    val = said["splits"]["val"]
    assert val["in"] == val["out"] + 3 and val["dropped"] == {"coco/image_missing": 3} and said["provisional"]
    for image in api.imgs.values():
        assert images.read(tmp_path / "images/val" / image["file_name"]).shape[:2] == (image["height"], image["width"])


def test_kins_has_both_years(build, tmp_path):
    new, old, _ = run(build, tmp_path, "kins")
    assert (new.name, old.name) == ("update_val_2020.json", "instances_val.json")
    known = truth(build, Sample)
    a = json.loads(new.read_text())["annotations"]
    assert all({"a_bbox", "a_segm", "a_area", "i_bbox", "i_segm", "i_area", "oco_id", "ico_id"} <= set(x) for x in a)
    for x in a:
        sample = known[x["ahp_id"]]
        for key, mask in (("a", sample.amodal), ("i", sample.modal)):
            raster = coco.decode(coco.merge(coco.frPyObjects(x[f"{key}_segm"], mask.height, mask.width)))
            assert np.array_equal(raster.astype(bool), mask.decode()) and x[f"{key}_area"] == mask.area
    api = COCO(str(old))
    for x in api.anns.values():
        assert np.array_equal(coco.decode(x["inmodal_seg"]).astype(bool), known[x["ahp_id"]].modal.decode())
        assert np.array_equal(api.annToMask(x).astype(bool), known[x["ahp_id"]].amodal.decode())
    assert (tmp_path / "validation/image_2/000001.png").exists()


def test_ahp_layout_is_read_by_the_ahp_source(build, tmp_path):
    run(build, tmp_path, "ahp", "humans")
    found = list(read_all(SOURCES.get("ahp"), tmp_path, "ahp"))
    humans = [h for h in truth(build, Human).values() if h.human_id != "coco/0000#0"]
    key = lambda h: (h.mask, h.parsing)  # noqa: E731
    assert {i.instances[0].mask for i in found} == {h.mask for h in humans}
    assert len(found) == len(humans) == len({i.image.image_id for i in found})
    assert sum(i.instances[0].parsing is not None for i in found) == sum(key(h)[1] is not None for h in humans)
    assert (tmp_path / "AHP/val/PROVISIONAL.txt").exists()


def test_ahp_samples(build, tmp_path):
    run(build, tmp_path, "ahp")
    folder = tmp_path / "AHP/val"
    for stem in (folder / "ImageSets/val_samples.txt").read_text().split():
        parts = [images.read_labels(folder / f"{k}Masks/{stem}.png") > 0 for k in ("Amodal", "Modal", "Invisible")]
        assert np.array_equal(parts[0], parts[1] | parts[2]) and not (parts[1] & parts[2]).any()
        shown, whole = (images.read(folder / f"{k}Images/{stem}.png") for k in ("Occluded", "Recovered"))
        assert np.array_equal(shown[~parts[2]], whole[~parts[2]])


@pytest.mark.parametrize("what", ["samples", "humans"])
def test_webdataset_is_read_by_webdataset_and_its_bytes_are_fixed(build, tmp_path, what):
    shard = run(build, tmp_path / "a", "webdataset", what)[0]
    again = run(build, tmp_path / "b", "webdataset", what)[0]
    assert shard.read_bytes() == again.read_bytes()
    known = truth(build, Sample if what == "samples" else Human)
    seen = 0
    for row in webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False).decode("rgb8"):
        record = known[row["json"]["id"]]
        amodal = record.amodal if what == "samples" else record.mask
        assert np.array_equal(row["amodal.png"][..., 0] > 0, amodal.decode()) and row["json"]["provisional"]
        seen += 1
    assert seen == disk.read_json(tmp_path / "a/export.json")["splits"]["val"]["out"] > 0


def test_every_format_refuses_what_is_not_there(build, tmp_path):
    for fmt in FORMATS.names():
        with pytest.raises(UserError, match="no samples in train"):
            export(build, tmp_path, fmt, ["train"], render=fake_build.render_of(build))
    with pytest.raises(UserError, match="did you mean cocoa"):
        run(build, tmp_path, "coco")
    with pytest.raises(UserError, match="renderer"):
        export(build, tmp_path, "cocoa", ["val"])


def test_ids_from_data_never_leave_the_folder(tmp_path):
    out = fake_build.make(tmp_path / "x", photos=3, evil=True)
    run(out, tmp_path / "o", "ahp", "humans")
    names = [p.name for p in (tmp_path / "o").rglob("*.jpg")]
    assert names and all("<" not in n and "'" not in n for n in names)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def with_split(build: Path, to: Path, last: int) -> Path:
    """A copy of a build whose val has the ``last`` samples alone, and whose test is what val was."""
    shutil.copytree(build, to)
    shutil.copytree(to / "splits/val", to / "splits/test")
    found = list(parquet.read_records(to / "splits/val", Sample))
    parquet.write_records(to / "splits/val/part-00000.parquet", found[-last:], Sample)
    return to


@pytest.mark.parametrize("fmt", FORMATS.names())
def test_what_a_former_export_made_and_this_one_does_not_goes(build, tmp_path, fmt):
    smaller = with_split(build, tmp_path / "smaller", 2)
    run(smaller, tmp_path / "fresh", fmt)
    run(build, tmp_path / "o", fmt)
    (tmp_path / "o/mine.txt").write_text("mine")
    run(smaller, tmp_path / "o", fmt)
    assert files(tmp_path / "o") == files(tmp_path / "fresh") | {"mine.txt"}
    said = disk.read_json(tmp_path / "o/export.json")
    assert said == disk.read_json(tmp_path / "fresh/export.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh", "o", "smaller"]


def test_an_export_speaks_of_every_split_that_lies_there(build, tmp_path):
    both = with_split(build, tmp_path / "both", 2)
    render = fake_build.render_of(both)
    for splits in (["test"], ["val"]):
        export(both, tmp_path / "a", "cocoa", splits, render=render)
    export(both, tmp_path / "b", "cocoa", ["val", "test"], render=render)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert disk.read_json(tmp_path / "a/export.json") == disk.read_json(tmp_path / "b/export.json")
    rejects = list(parquet.read_records(tmp_path / "a/dropped-val.parquet", Dropped))
    said = disk.read_json(tmp_path / "a/export.json")
    assert (
        len(rejects)
        == said["splits"]["val"]["in"] - said["splits"]["val"]["out"]
        == sum(said["splits"]["val"]["dropped"].values())
    )


def killed(_: Sample) -> None:
    raise KeyboardInterrupt


def killed_after(build: Path, n: int) -> Callable[[Sample], object]:
    """A renderer that is killed at the ``n``-th sample."""
    render, left = fake_build.render_of(build), [n]

    def one(sample: Sample) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return render(sample)

    return one


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("before", [True, False])
def test_a_killed_export_leaves_the_former_one_whole_and_nothing_else(build, tmp_path, n, before):
    if before:
        run(build, tmp_path / "o", "ahp")
    there = files(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        export(build, tmp_path / "o", "ahp", ["val"], render=killed_after(build, n))
    assert files(tmp_path) == there
    beside = tmp_path / ".o.exporting"  # kill -9 leaves its folder
    (beside / "new/AHP").mkdir(parents=True)
    (beside / "new/AHP/half.png").write_bytes(b"half")
    if before:
        (tmp_path / "o").rename(beside / "old")
    smaller = with_split(build, tmp_path / "smaller", 2)
    run(smaller, tmp_path / "o", "ahp")
    run(smaller, tmp_path / "fresh", "ahp")
    assert files(tmp_path / "o") == files(tmp_path / "fresh") and not beside.exists()


def test_a_split_that_has_nobody_any_more_goes(build, tmp_path):
    both = with_split(build, tmp_path / "both", 2)
    made = {"render": fake_build.render_of(both)}
    export(both, tmp_path / "o", "ahp", **made)
    shutil.rmtree(both / "splits/test")
    export(both, tmp_path / "o", "ahp", **made)
    export(both, tmp_path / "fresh", "ahp", **made)
    assert files(tmp_path / "o") == files(tmp_path / "fresh")
    assert list(disk.read_json(tmp_path / "o/export.json")["splits"]) == ["val"]


def test_a_disk_that_is_away_is_refused_and_the_export_stays(build, tmp_path):
    mine, photos = shutil.copytree(build, tmp_path / "mine"), tmp_path / "photos"
    about = disk.read_json(mine / "build.json")
    shutil.copytree(about["roots"]["coco"], photos)
    disk.write_json(mine / "build.json", about | {"roots": about["roots"] | {"coco": str(photos)}})
    run(mine, tmp_path / "o", "ahp", "humans")
    whole = files(tmp_path / "o")
    photos.rename(tmp_path / "away")
    with pytest.raises(UserError, match="none of .* photos that were looked for is there, such as .*mount or fetch"):
        run(mine, tmp_path / "o", "ahp", "humans")
    assert files(tmp_path / "o") == whole


def test_photos_that_are_gone_for_good_stop_no_export(build, tmp_path):
    mine, photos = shutil.copytree(build, tmp_path / "mine"), tmp_path / "photos"
    about = disk.read_json(mine / "build.json")
    shutil.copytree(about["roots"]["coco"], photos)
    disk.write_json(mine / "build.json", about | {"roots": about["roots"] | {"coco": str(photos)}})
    humans = list(parquet.read_records(mine / "splits/val/humans", Human))
    for photo in [p for p in photos.rglob("*") if p.is_file()]:
        photo.unlink()
    with pytest.raises(UserError, match="moved within it, add --rebuild harvest"):
        run(mine, tmp_path / "o", "ahp", "humans")
    other = str(Path(humans[0].image.path).with_name("other.jpg"))  # the harvest has had it, and it is there
    (photos / other).write_bytes(b"")
    had = replace(humans[0], image=replace(humans[0].image, path=other, source="coco"))
    parquet.write_records(mine / "harvest/part-00000.parquet", [had], Human)
    run(mine, tmp_path / "o", "ahp", "humans")
    said = disk.read_json(tmp_path / "o/export.json")["splits"]["val"]
    gone = sum(h.image.source == "coco" for h in humans)
    assert gone > 0 and said["dropped"] == {"coco/image_missing": gone}
    assert (said["in"], said["out"]) == (len(humans), len(humans) - gone)


@pytest.mark.parametrize(
    ("fmt", "what", "images", "told"),
    [
        ("kins", "samples", True, "expected no export yet or one of samples as kins, found samples as cocoa"),
        ("cocoa", "humans", True, "found samples as cocoa; give another --out"),
        ("cocoa", "samples", False, "holds an export with pictures, which --no-images would remove"),
    ],
)
def test_an_export_is_not_mixed_with_another(build, tmp_path, fmt, what, images, told):
    run(build, tmp_path, "cocoa")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(UserError, match=told):
        run(build, tmp_path, fmt, what, images=images)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize("record", ["{", "[]", '{"splits": 3}', '{"format": "cocoa", "what": "samples", "splits": {}}'])
def test_a_folder_of_something_else_is_refused(build, tmp_path, record):
    (tmp_path / "o").mkdir()
    (tmp_path / "o/export.json").write_text(record)
    with pytest.raises(UserError, match="found files that are no export; give another --out"):
        run(build, tmp_path / "o", "cocoa", images=False)
    assert (tmp_path / "o/export.json").read_text() == record


def test_humans_and_samples_have_folders_of_their_own(build):
    for what, folder in (("samples", "cocoa"), ("humans", "cocoa-humans")):
        args = ["build", "export", "--root", str(build), "--format", "cocoa", "--split", "val", "--what", what]
        result = CliRunner().invoke(ahp, [*args, "--no-images"])
        assert result.exit_code == 0, result.output
        assert disk.read_json(build / "export" / folder / "export.json")["what"] == what


def test_names_beyond_100_bytes_fit_into_shards(build, tmp_path):
    out = with_split(build, tmp_path / "long", 1)
    part = out / "splits/val/part-00000.parquet"
    one = next(iter(parquet.read_records(part, Sample)))
    parquet.write_records(part, [replace(one, sample_id=f"test/{'openimages/' * 9}a#1")], Sample)
    shard, again = (run(out, tmp_path / name, "webdataset")[0] for name in "ab")
    assert shard.read_bytes() == again.read_bytes()
    rows = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(rows) == 1 and len(rows[0]["__key__"]) > 100 and rows[0]["occluded.png"].ndim == 3
    with shard.open("rb") as f:
        assert {name.partition(".")[0] for name, _, _ in plain_files(f)} == {rows[0]["__key__"]}


@pytest.mark.parametrize("fmt", ["cocoa", "kins"])
def test_our_coco_source_reads_an_export_as_visible_masks_of_occluded_people(build, tmp_path, fmt):
    made = run(build, tmp_path / "o", fmt)
    pictures = tmp_path / "o" / ("images/val" if fmt == "cocoa" else "validation/image_2")
    known = [s for s in truth(build, Sample).values() if s.modal != s.amodal]
    for path in (p for p in made[:-1] if "COCO_amodal" not in p.name):  # that one holds regions, a format of its own
        root = tmp_path / path.stem
        (root / "annotations").mkdir(parents=True)
        shutil.copy(path, root / "annotations" / "instances_val2017.json")
        shutil.copytree(pictures, root / "val2017")
        found = [i for image in read_all(SOURCES.get("coco"), root, "mine") for i in image.instances]
        assert len(found) == disk.read_json(tmp_path / "o/export.json")["splits"]["val"]["out"]
        hidden = [i for i in found if i.mask in [s.modal for s in known]]
        assert hidden and all(i.flags.occluded for i in hidden)
        assert not [i for i in found if i.mask in [s.amodal for s in known]]
