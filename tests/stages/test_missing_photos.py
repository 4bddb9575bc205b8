"""Photos that are away, gone, moved or back: what stands stays while a disk is away, and no photo stops a build."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Candidate, Dropped, Human, Sample
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
    run(*args, "--seed", 5)
    assert photos_of(out, "test") == gone


def test_a_disk_that_is_away_replaces_nothing_and_photos_moved_within_it_are_found_as_the_line_says(own):
    args, out, root = own
    before = tables(out / "splits")
    (root / "train2017").rename(root.parent / "away")
    with pytest.raises(UserError, match=r"none of the \d+ photos .*; what stood of (\w+) stays; .*remove .*/o/harvest"):
        run(*args, "--seed", 5)
    assert before == tables(out / "splits")
    (root / "images").mkdir()
    (root.parent / "away").rename(root / "images/train2017")
    with pytest.raises(UserError, match="remove"):
        run(*args, "--seed", 5)
    shutil.rmtree(out / "harvest")
    run(*args, "--seed", 5)
    assert photos_of(out, "val") and all(p.startswith("images/train2017/") for p in photos_of(out, "val"))


def test_a_folder_on_another_disk_tells_nothing_of_the_one_that_is_away(own):
    _, out, root = own
    rows = list(parquet.read_records(out / "harvest", Candidate))
    image = replace(rows[0].image, path="val2017/a.jpg")
    known = out / "known"
    other = replace(rows[0], candidate_id="coco/x#1", image=image)
    parquet.write_records(known / "part-00000.parquet", [*rows, other], Candidate)
    (root / "val2017").mkdir()
    shutil.copy(root / rows[0].image.path, root / image.path)
    lost = [("coco", p) for p in sorted(photos_of(out, "val"))]
    missing.refuse("val", {"coco": str(root)}, lost, set(), False, known)  # others of their folder are there
    (root / "train2017").rename(root.parent / "away")
    with pytest.raises(UserError, match="val: none of the"):
        missing.refuse("val", {"coco": str(root)}, lost, set(), False, known)
    # no other photo of the folder is known
    parquet.write_records(known / "part-00000.parquet", [other], Candidate)
    missing.refuse("val", {"coco": str(root)}, lost, set(), False, known)


@pytest.mark.parametrize("stamps", ["kept", "new"])
def test_data_without_photos_that_were_refused_leave_the_build_at_its_own(own, stamps):
    """As a new folder is: with annotations copied as they were the harvest stands, and the splits refuse it."""
    args, out, root = own
    empty = root.parent / "empty"
    copy = shutil.copy2 if stamps == "kept" else shutil.copy
    shutil.copytree(root / "annotations", empty / "annotations", copy_function=copy)
    wrong = [a.replace(str(root), str(empty)) for a in args]
    assert str(empty) in " ".join(wrong)
    with pytest.raises(UserError, match="none of the"):
        run(*wrong, "--seed", 3)
    assert files.read_json(out / "build.json")["roots"] == {"coco": str(root)}
    run("build", "materialize", "--root", out, "--split", "val", "--workers", 1)


@pytest.mark.parametrize("said", ["[]", "{", "{}"])
def test_a_damaged_build_json_is_written_anew_by_a_build(own, said):
    args, out, root = own
    (out / "build.json").write_text(said)
    run(*args)
    assert files.read_json(out / "build.json")["roots"] == {"coco": str(root)}


def test_a_plan_says_that_a_stage_would_be_made_anew_and_makes_nothing(own):
    args, out, root = own
    away = sorted((root / "train2017").iterdir())[0]
    data = away.read_bytes()
    away.unlink()
    shutil.rmtree(out / "harvest")
    run(*args)
    before = {str(p): p.stat().st_mtime_ns for p in out.rglob("*")}
    away.write_bytes(data)
    said = run("build", "plan", *args[1:])
    assert f"{away}: was missing when {out / 'harvest'} was made; would be made anew\n" in said
    assert before == {str(p): p.stat().st_mtime_ns for p in out.rglob("*")}
    assert "was made; made anew\n" in run(*args)
