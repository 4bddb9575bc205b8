"""What was missing and is there again is found by the harvest, wherever a source may have it."""

from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pytest

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import ImageRef, Instance, SourceImage
from ahp_toolkit.sample_world import write_world
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.sources.base import Scene
from ahp_toolkit.storage import locations
from tests.stages.test_harvest import coco, harvest, photo


def test_photos_that_come_back_in_another_folder_are_harvested(tmp_path):
    """Ultralytics' layout: val first, train fetched later; nobody could tell where train's photos would lie."""
    root = coco(tmp_path / "coco", {i: [{"box": (20, 20, 60, 100)}] for i in range(1, 12)})
    val = json.loads((root / "annotations/instances_train2017.json").read_text())
    val["images"], val["annotations"] = val["images"][:2], val["annotations"][:2]
    (root / "annotations/instances_val2017.json").write_text(json.dumps(val))
    (root / "images/val2017").mkdir(parents=True)
    for image in val["images"]:
        (root / "train2017" / image["file_name"]).rename(root / "images/val2017" / image["file_name"])
    train = root / "annotations/instances_train2017.json"
    said = json.loads(train.read_text())
    said["images"], said["annotations"] = said["images"][2:], said["annotations"][2:]
    train.write_text(json.dumps(said))
    (root / "train2017").rename(tmp_path / "away")
    _, kept, dropped = harvest(tmp_path, {"coco": root})
    assert len(kept) == 2 and list(dropped.values()) == ["image_missing"] * 9
    assert not harvest(tmp_path, {"coco": root})[0].fresh
    (tmp_path / "away").rename(root / "images/train2017")
    r, kept, dropped = harvest(tmp_path, {"coco": root})
    assert r.fresh and len(kept) == 11 and not dropped
    assert {c.image.path.rpartition("/")[0] for c in kept} == {"images/val2017", "images/train2017"}
    assert not harvest(tmp_path, {"coco": root})[0].fresh


@pytest.mark.parametrize("where", ["voc", "sbd", "archive"])
def test_a_photo_of_voc_and_sbd_is_found_in_either_place(tmp_path, where):
    write_world(tmp_path / "w", seed=0, scenes=40)
    root = tmp_path / "w" / "voc_sbd"
    sbd, voc = root / "benchmark_RELEASE/dataset", root / "VOCdevkit/VOC2012"
    mats = {p.stem for p in (sbd / "inst").glob("*.mat")}
    photos = [p for p in sorted(root.rglob("*.jpg")) if p.stem in mats]
    (tmp_path / "away").mkdir()
    for p in photos:
        p.rename(tmp_path / "away" / p.name)
    harvest(tmp_path, {"voc_sbd": root}, min_area=0, gutter=0)
    if where == "archive":
        assert not (sbd / "img").exists() or not list((sbd / "img").iterdir())
        shutil.rmtree(sbd / "img", ignore_errors=True)
        with tarfile.open(sbd / "img.tar", "w") as tar:
            for p in photos:
                tar.add(tmp_path / "away" / p.name, p.name)
        locations._mounted.cache_clear()  # a command's own, kept while it runs
    for p in photos if where != "archive" else ():
        to = voc / "JPEGImages" if where == "voc" else sbd / "img"
        to.mkdir(exist_ok=True)
        (tmp_path / "away" / p.name).rename(to / p.name)
    r, kept, _ = harvest(tmp_path, {"voc_sbd": root}, min_area=0, gutter=0)
    fresh, same, _ = harvest(tmp_path / "anew", {"voc_sbd": root}, min_area=0, gutter=0)
    assert r.fresh and kept == same and r.digest == fresh.digest
    assert {c.image.path.rpartition("/")[2] for c in kept} & {p.name for p in photos}
    assert not harvest(tmp_path, {"voc_sbd": root}, min_area=0, gutter=0)[0].fresh


def one_of_ahp(number: int) -> Scene:
    shape = np.zeros((120, 160), bool)
    shape[20:100, 30:70] = True
    person = Instance(f"ahp/{number}#1", "person", encode(shape).box, encode(shape))
    return Scene(SourceImage(ImageRef(f"ahp/{number}", "ahp", "", 160, 120), (person,)), photo(number))


@pytest.mark.parametrize(
    ("name", "labels"),
    [("lip", "*_segmentations/*.png"), ("openimages", "**/*.png"), ("ahp", "AHP/*/Annotations/*.png")],
)
def test_label_pictures_that_are_there_again_are_harvested(tmp_path, name, labels):
    write_world(tmp_path / "w", seed=0, scenes=10)
    root = tmp_path / "w" / name
    if name == "ahp":  # the world has none
        SOURCES.get(name).write(root, [one_of_ahp(n) for n in (1, 2)])
    found, there, _ = harvest(tmp_path / "whole", {name: root}, min_area=0, gutter=0)
    away = sorted(root.glob(labels))
    assert away
    data = {p: p.read_bytes() for p in away}
    for p in away:
        p.unlink()
    r, _, _ = harvest(tmp_path, {name: root}, min_area=0, gutter=0)
    assert r.digest != found.digest and not harvest(tmp_path, {name: root}, min_area=0, gutter=0)[0].fresh
    for p, d in data.items():
        p.write_bytes(d)
    r, kept, _ = harvest(tmp_path, {name: root}, min_area=0, gutter=0)
    assert r.fresh and r.digest == found.digest and kept == there
    assert not harvest(tmp_path, {name: root}, min_area=0, gutter=0)[0].fresh
