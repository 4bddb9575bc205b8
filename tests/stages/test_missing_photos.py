"""Missing photos cost their people; a disk that is not mounted ends the command and replaces nothing."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.core.records import Dropped, Human, ImageRef, Occluder, Sample
from ahp_toolkit.storage import files, missing, parquet
from tests.build.test_splits import built, run  # noqa: F401 a fixture


@pytest.fixture
def own(built, tmp_path) -> tuple[list[str], Path, Path]:  # noqa: F811
    """The words of a build, its folder and its data root: copies of the test's own."""
    args, out = built
    copy, root = tmp_path / "o", tmp_path / "coco"
    shutil.copytree(out, copy)
    shutil.copytree(out.parent / "coco", root)
    args = [str(copy) if a == str(out) else a.replace(str(out.parent / "coco"), str(root)) for a in args]
    run(*args)  # knows its data root
    return args, copy, root


def tables(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): hashing.digest_file(p) for p in sorted(out.glob("[!.]*/**/part-*.parquet"))}


def photos_of(out: Path, split: str) -> set[str]:
    return {h.image.path for h in parquet.read_records(out / "splits" / split / "humans", Human)}


def test_the_few_photos_of_a_small_split_that_are_gone_cost_its_people_and_not_the_build(own):
    args, out, root = own
    gone = photos_of(out, "test")
    data = {p: (root / p).read_bytes() for p in gone}
    for p in gone:
        (root / p).unlink()
    run(*args, "--seed", 5)
    assert not list(parquet.read_records(out / "splits/test", Sample))
    dropped = list(parquet.read_records(out / "splits/test/dropped.parquet", Dropped))
    assert dropped and {d.reason for d in dropped} == {"image_missing"}
    assert list(parquet.read_records(out / "splits/val", Sample))
    for p, d in data.items():
        (root / p).write_bytes(d)
    shutil.rmtree(out / "splits/test")
    run(*args, "--seed", 5)
    assert photos_of(out, "test") == gone


def test_a_disk_that_is_not_mounted_replaces_nothing(own):
    args, out, root = own
    before = tables(out / "splits")
    (root / "train2017").rename(root.parent / "away")
    run(*args)  # nothing is to be made: no photo is needed
    with pytest.raises(UserError, match=r"coco: none of 20 photos .*; mount or fetch the photos, .* --rebuild harvest"):
        run(*args, "--seed", 5)
    assert before == tables(out / "splits")


@pytest.mark.parametrize("lost", [1, 10, 30])
def test_a_source_is_refused_when_none_of_its_photos_is_there(tmp_path, lost):
    image = ImageRef("coco/1", "coco", "", 160, 120)
    rows = [replace(image, path=f"train2017/{i}.jpg") for i in range(30)]
    table = [
        Occluder(f"coco/{i}#1", r, "dog", Box(0, 0, 9, 9), encode(np.ones((9, 9), bool)), 1) for i, r in enumerate(rows)
    ]
    parquet.write_records(tmp_path / "harvest/part-00000.parquet", table, Occluder)
    (tmp_path / "train2017").mkdir()
    for i in range(lost, 30):
        (tmp_path / f"train2017/{i}.jpg").touch()
    roots = {"coco": str(tmp_path)}
    with pytest.raises(UserError) if lost == 30 else nullcontext():
        missing.check("coco", str(tmp_path), [[r.path] for r in rows])
    with pytest.raises(UserError) if lost == 30 else nullcontext():  # 20 of them are looked for
        missing.check_mounted(roots, tmp_path / "harvest", tmp_path / "no-such-table")


def test_a_store_that_does_not_answer_is_never_counted_as_missing_photos(monkeypatch):
    def refuses(root, relative):
        raise StorageError("no route to the store")

    monkeypatch.setattr(missing.locations, "find", refuses)
    with pytest.raises(StorageError, match="no route"):
        missing.check("coco", "s3://data/coco", [["a.jpg"]])


@pytest.mark.parametrize("stamps", ["kept", "new"])
def test_data_without_photos_that_were_refused_leave_the_build_at_its_own(own, stamps):
    """As a new folder is: with annotations copied as they were the harvest stands, and the splits refuse it."""
    args, out, root = own
    empty = root.parent / "empty"
    copy = shutil.copy2 if stamps == "kept" else shutil.copy
    shutil.copytree(root / "annotations", empty / "annotations", copy_function=copy)
    wrong = [a.replace(str(root), str(empty)) for a in args]
    assert str(empty) in " ".join(wrong)
    with pytest.raises(UserError, match="none of"):
        run(*wrong, "--seed", 3)
    assert files.read_json(out / "build.json")["roots"] == {"coco": str(root)}
    run("build", "materialize", "--root", out, "--split", "val", "--workers", 1)


@pytest.mark.parametrize("said", ["[]", "{", "{}"])
def test_a_damaged_build_json_is_written_anew_by_a_build(own, said):
    args, out, root = own
    (out / "build.json").write_text(said)
    run(*args)
    assert files.read_json(out / "build.json")["roots"] == {"coco": str(root)}
