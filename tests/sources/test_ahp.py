"""The authors' release (spec §8): layout, photo keys and bad data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.sources import ahp
from ahp_toolkit.sources.base import Loaded
from ahp_toolkit.storage import images


def put(root: Path, stem: str = "COCO_train2014_000000042967", split: str = "train") -> Path:
    folder = root / split
    mask = np.zeros((30, 20), np.uint8)
    mask[3:9, 4:8] = 1
    images.write_jpeg(folder / "JPEGImages" / f"{stem}.jpg", np.zeros((30, 20, 3), np.uint8))
    images.write_png(folder / "Annotations" / f"{stem}.png", mask)
    images.write_png(folder / "PseudoParsingAnnotations" / f"{stem}.png", mask * 5)
    (folder / "ImageSets").mkdir(exist_ok=True)
    (folder / "ImageSets" / f"{split}.txt").write_text(f"{stem}\n")
    return folder


def load(root: Path) -> Loaded:
    (entry,) = ahp.scan(root)
    return ahp.load(root, entry)


@pytest.mark.parametrize("inner", ["AHP", ""])
def test_the_root_is_ahp_or_its_parent(tmp_path: Path, inner: str) -> None:
    put(tmp_path / inner)
    image = load(tmp_path).image
    assert image is not None and image.image.photo == "coco/000000042967"
    (person,) = image.instances
    assert person.box == (4, 3, 8, 9) and person.parsing is not None and person.parsing.labels == (5,)


@pytest.mark.parametrize(
    ("stem", "photo"),
    [
        ("COCO_val2014_000000000042", "coco/000000000042"),
        ("2008_000008", "voc/2008_000008"),
        ("100034_483681", "coco/000000100034"),
        ("0a1b2c", "ahp/0a1b2c"),
        ("000a1b2c3d4e5f60", "openimages/000a1b2c3d4e5f60"),
    ],
)
def test_the_stem_tells_the_photo(tmp_path: Path, stem: str, photo: str) -> None:
    put(tmp_path, stem)
    image = load(tmp_path).image
    assert image is not None and image.image.photo == photo and image.image.image_id == f"ahp/{stem}"


def test_a_missing_parsing_is_none_and_a_damaged_one_is_dropped_alone(tmp_path: Path) -> None:
    folder = put(tmp_path)
    (parsing,) = (folder / "PseudoParsingAnnotations").iterdir()
    parsing.write_bytes(b"no picture")
    loaded = load(tmp_path)
    assert loaded.image is not None and loaded.image.instances[0].parsing is None
    assert [d.id for d in loaded.dropped] == ["ahp/COCO_train2014_000000042967/parsing"]
    parsing.unlink()
    loaded = load(tmp_path)
    assert loaded.image is not None and loaded.image.instances[0].parsing is None and loaded.dropped == ()


@pytest.mark.parametrize(("kind", "reason"), [("Annotations", "mask_missing"), ("JPEGImages", "missing")])
def test_missing_files_are_dropped(tmp_path: Path, kind: str, reason: str) -> None:
    folder = put(tmp_path)
    next((folder / kind).iterdir()).unlink()
    loaded = load(tmp_path)
    assert [d.reason for d in loaded.dropped] == [reason] and (loaded.image is None or not loaded.image.instances)


def test_hostile_stems_are_refused(tmp_path: Path) -> None:
    folder = put(tmp_path)
    (folder / "ImageSets" / "train.txt").write_text("../../../x\n")
    assert [d.reason for d in load(tmp_path).dropped] == ["unsafe_path"]
    assert load(tmp_path).image is None


def test_splits_come_train_first(tmp_path: Path) -> None:
    for n, split in enumerate(("val", "train", "extra", "test")):
        put(tmp_path, f"{n}", split)
    assert [e.payload.folder for e in ahp.scan(tmp_path)] == ["train/", "val/", "test/", "extra/"]
