"""LIP's layouts and bad data (formats §3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Flags
from ahp_toolkit.sources import lip
from ahp_toolkit.sources.base import Loaded
from ahp_toolkit.storage import images

STEM = "100034_483681"


def put(root: Path, labels: np.ndarray | None = None, stem: str = STEM, photos: str = "", parts: str = "") -> None:
    (root / photos).mkdir(parents=True, exist_ok=True)
    (root / photos / "val_id.txt").write_text(f"{stem}\n\n")
    images.write_jpeg(root / photos / "val_images" / f"{STEM}.jpg", np.zeros((30, 20, 3), np.uint8))
    if labels is None:
        labels = np.zeros((30, 20), np.uint8)
        labels[5:30, 4:9] = 13
    images.write_png(root / parts / "val_segmentations" / f"{STEM}.png", labels)


def load(root: Path) -> Loaded:
    (entry,) = lip.scan(root)
    return lip.load(root, entry)


@pytest.mark.parametrize(
    ("photos", "parts"),
    [
        ("", ""),
        ("TrainVal_images", "TrainVal_parsing_annotations"),
        ("TrainVal_images", "TrainVal_parsing_annotations/TrainVal_parsing_annotations"),
    ],
)
def test_a_crop_is_a_person_of_a_known_coco_photo(tmp_path: Path, photos: str, parts: str) -> None:
    put(tmp_path, photos=photos, parts=parts)
    image = load(tmp_path).image
    assert image is not None and image.image.photo == "coco/000000100034"
    (person,) = image.instances
    assert person.instance_id == f"lip/{STEM}#483681" and person.box == (4, 5, 9, 30)
    assert person.mask is not None and person.mask.area == 125
    assert person.parsing is not None and person.parsing.labels == (13,) and person.flags == Flags()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros((30, 20), np.uint8), "empty_mask"),
        (np.full((30, 21), 3, np.uint8), "mask_size"),
        (np.full((30, 20), 20, np.uint8), "bad_label"),
        (np.full((30, 20, 3), 3, np.uint8), "mask_not_labels"),
    ],
)
def test_bad_parts_are_dropped(tmp_path: Path, labels: np.ndarray, reason: str) -> None:
    put(tmp_path, labels)
    loaded = load(tmp_path)
    assert loaded.image is not None and loaded.image.instances == ()
    assert [(d.reason, d.id) for d in loaded.dropped] == [(reason, f"lip/{STEM}#483681")]


@pytest.mark.parametrize("stem", ["../../x", "a/../../../x", "..\\..\\x"])
def test_hostile_ids_are_refused(tmp_path: Path, stem: str) -> None:
    put(tmp_path, stem=stem)
    loaded = load(tmp_path)
    assert loaded.image is None and [d.reason for d in loaded.dropped] == ["unsafe_path"]


def test_an_id_of_both_lists_is_read_once(tmp_path: Path) -> None:
    put(tmp_path)
    for kind in ("images", "segmentations"):
        (tmp_path / f"train_{kind}").symlink_to(tmp_path / f"val_{kind}")
    (tmp_path / "train_id.txt").write_text(STEM)
    loaded = [lip.load(tmp_path, e) for e in lip.scan(tmp_path)]
    assert loaded[0].image is not None and loaded[1].dropped[0].reason == "duplicate_id"


def test_a_list_without_its_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "train_id.txt").write_text(STEM)
    with pytest.raises(UserError, match="train_segmentations"):
        list(lip.scan(tmp_path))
