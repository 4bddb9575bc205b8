"""Commands on a build at an address: what is refused before anything is written there, and what a line then names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ahp_toolkit.cli import main
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import files, locations
from ahp_toolkit.storage.sync import check_there, folder_of, naming, reading, working
from tests import fake_build
from tests.benchmark.world import by_rule, make_split, submit


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    return fake_build.make(tmp_path_factory.mktemp("build"), photos=4)


@pytest.fixture
def build(s3, local):
    """(the bucket, the address of a build, its name in the bucket)."""
    _, bucket, root = s3
    name = root.removeprefix("s3://ahp/")
    bucket.put_tree(f"{name}/b", local)
    return bucket, f"{root}/b", name


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        """(status, stdout, stderr) of a command line."""
        monkeypatch.setattr(sys, "argv", ["ahp", *map(str, words)])
        code = main._run()
        said = capsys.readouterr()
        return code, said.out, said.err.strip()

    return run


def refused(run, *words: object) -> str:
    code, _, said = run(*words)
    assert code == 2 and "\n" not in said and "internal" not in said, said
    return said


EXPORT = ("build", "export", "--format", "cocoa", "--no-images")
MATERIALIZE = ("build", "materialize", "--workers", 1)
TRAIN = ("bench", "train", "pix2pix", "--task", "mask", "--device", "cpu")


@pytest.mark.parametrize("command", [("build", "report"), EXPORT, MATERIALIZE, TRAIN])
@pytest.mark.parametrize("there", [False, True])
def test_where_there_is_no_build_nothing_is_written(s3, run, command, there):
    _, bucket, root = s3
    name = root.removeprefix("s3://ahp/")
    if there:
        bucket.put(f"{name}/thesis.txt", b"x")
    said = refused(run, *command, "--root", root)
    assert (
        said == f"ahp: {root}: expected a build folder (build.json), found none; make one with ahp build --out {root}"
    )
    assert bucket.keys(f"{name}/") == ([f"{name}/thesis.txt"] if there else [])


@pytest.mark.parametrize("command", [EXPORT, MATERIALIZE, TRAIN])
@pytest.mark.parametrize("root", ["at an address", "here", "of something else"])
def test_nothing_is_written_at_another_address_when_there_is_no_build(s3, run, tmp_path, command, root):
    _, bucket, address = s3
    name = address.removeprefix("s3://ahp/")
    if root == "of something else":
        bucket.put(f"{name}/x/thesis.txt", b"x")
    said = refused(run, *command, "--root", tmp_path if root == "here" else f"{address}/x", "--out", f"{address}/to")
    assert "expected a build" in said
    assert not bucket.keys(f"{name}/to")


def test_scores_and_predictions_of_nothing_write_nothing(s3, run, local):
    _, bucket, root = s3
    where = ("--split", local / "splits/val", "--out", f"{root}/to")
    assert f"{root}/none: expected" in refused(run, "bench", "score", f"{root}/none", *where)
    assert f"{root}/b/runs/r: expected" in refused(run, "bench", "predict", f"{root}/b/runs/r", *where)
    assert f"{root}/b/runs/r: expected" in refused(run, "bench", "predict", f"{root}/b/runs/r", "--split", "val")
    assert not bucket.keys(root.removeprefix("s3://ahp/") + "/")


def test_what_is_there_passes(build, local):
    _, root, _ = build
    check_there(*map(locations.place, (root, f"{root}/splits/val", f"{root}/build.json")), local, local / "none", None)


def test_scores_of_predictions_in_a_store_lie_at_the_address(s3, run, tmp_path):
    _, bucket, root = s3
    name = root.removeprefix("s3://ahp/")
    made = make_split(tmp_path / "val", 3, 2)
    bucket.put_tree(f"{name}/p", submit(tmp_path / "p", by_rule(made, "given"), tmp_path / "val"))
    bucket.put_tree(f"{name}/val", tmp_path / "val")
    code, said, error = run("bench", "score", f"{root}/p", "--split", f"{root}/val", "--out", f"{root}/boards")
    assert code == 0, error
    folder = said.split("->")[1].split()[0]
    assert folder.startswith(f"{root}/boards/") and bucket.get(f"{folder.removeprefix('s3://ahp/')}/score.json")
    for key in bucket.keys(f"{name}/p/"):
        if key.endswith(".parquet"):
            bucket.delete(key)
    said = refused(run, "bench", "score", f"{root}/p", "--split", f"{root}/val", "--out", f"{root}/boards")
    assert f"{root}/p" in said and str(tmp_path / "cache") not in said


def test_an_error_names_the_address(build, run, tmp_path):
    _, root, _ = build
    folder = reading(locations.place(root))
    for out in ([], ["--out", tmp_path / "x"], ["--out", f"{root}-x"]):
        shutil.rmtree(folder / "splits", ignore_errors=True)
        said = refused(run, *EXPORT, "--root", root, "--split", "train", *out)
        assert root in said and str(tmp_path / "cache") not in said


def test_what_is_named(s3, tmp_path):
    _, _, text = s3
    root, other = locations.place(text), locations.place(f"{text}-2")
    folder = folder_of(root)
    for said, shown in (
        (f"{folder / 'x'}: no good", f"{root}/x: no good"),
        (f"{folder}: in use, see {folder_of(other)}", f"{root}: in use, see {other}"),
        (f"{folder / 'decisions/kim.jsonl'}, line 3: mend it", None),
        (f"delete {folder / 'decisions/.kim.jsonl.end'}", None),
        (f"{tmp_path}: is another", None),
    ):
        with pytest.raises(UserError) as e, naming(root, None, tmp_path, other):
            raise UserError(said)
        assert str(e.value) == (shown or said)
    with pytest.raises(UserError, match=f"^{root}/x: no good$"), working(root) as at:
        raise UserError(f"{at / 'x'}: no good")


def test_exports_lie_where_the_line_says(build, run, tmp_path):
    bucket, root, name = build
    code, said, error = run(*EXPORT, "--root", root, "--split", "val")
    assert code == 0, error
    assert said.split() and all(line.startswith(f"{root}/export/cocoa/") for line in said.split())
    assert set(said.split()) <= {f"s3://ahp/{k}" for k in bucket.keys(f"{name}/b/export/")}


@pytest.mark.parametrize("at", ["here", "at an address"])
@pytest.mark.parametrize("command", [EXPORT, MATERIALIZE])
def test_an_out_among_the_sources_photos_is_refused(build, run, local, at, command):
    source = Path(files.read_json(local / "build.json")["roots"]["coco"])
    root = local if at == "here" else build[1]
    before = sorted(source.rglob("*"))
    for out in (source, source / "img/new"):
        said = refused(run, *command, "--root", root, "--out", out)
        assert f"--out {out}: expected a folder outside the data of --source coco={source}" in said
    assert sorted(source.rglob("*")) == before


def test_crops_have_one_place(run, local, tmp_path):
    said = refused(run, *MATERIALIZE, "--root", local, "--what", "crops", "--out", tmp_path / "x")
    assert f"--out {tmp_path / 'x'}" in said and "leave --out out" in said
    assert not (tmp_path / "x").exists()
