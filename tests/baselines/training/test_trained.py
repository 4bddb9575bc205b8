"""A run knows whom it was trained on: people that the review moved out of its train split cannot test it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Sample
from ahp_toolkit.storage import parquet
from baselines import commands
from baselines.inference.predict import Options, predict_run
from baselines.training import trained
from baselines.training.train import Training, train


def job(build: Path, out: Path, **more) -> Training:
    settings = {"width": 4, "critic_width": 4}
    return Training(build, "pix2pix", "mask", settings=settings, steps=1, batch=4, out=out, device="cpu", quiet=True,
                    **more)  # fmt: skip


@pytest.fixture(scope="module")
def run(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(job(build, tmp_path_factory.mktemp("run")))


def moved(build: Path, root: Path, change=lambda s: s) -> Path:
    """A build whose test split holds its val people and one person of its train split."""
    split = root / "splits" / "test"
    shutil.copytree(build / "splits" / "val", split)
    shutil.copy(build / "build.json", root / "build.json")
    known = next(iter(parquet.read_records(build / "splits" / "train", Sample)))
    parquet.write_records(split / "part-00001.parquet", [change(known)], Sample)
    theirs = build / "splits" / "train" / "occluders" / "part-00000.parquet"
    shutil.copy(theirs, split / "occluders" / "part-00001.parquet")
    return split


def predict(run: Path, split: Path, out: Path, feeder: Path | None = None) -> list[str]:
    folder = predict_run(run, split, out, feeder, options=Options(device="cpu", quiet=True))
    return json.loads((folder / "run.json").read_text())["training_people"]


def another_id(s: Sample) -> Sample:
    return replace(s, human_id="coco/other#1")


def another_photo(s: Sample) -> Sample:
    return replace(s, image=replace(s.image, photo="coco/other"))


def by_image_id(s: Sample) -> Sample:
    return replace(s, human_id="coco/other#1", image=replace(s.image, photo=""))


@pytest.mark.parametrize("change", [another_id, another_photo, by_image_id])
def test_people_of_the_training_are_refused(build: Path, tmp_path: Path, run: Path, change):
    split = moved(build, tmp_path, change)
    line = f"1 of 4 people of test are of photos that {run.name} was trained on .*; train it again"
    with pytest.raises(UserError, match=line) as e:
        predict(run, split, tmp_path / "p")
    assert "\n" not in str(e.value) and not (tmp_path / "p").exists()
    with pytest.raises(UserError, match=line.replace(run.name, f"{run.name}/last.safetensors")):
        predict(run / "last.safetensors", split, tmp_path / "p")


def test_a_stranger_is_not_refused_and_train_is_counted(build: Path, tmp_path: Path, run: Path):
    split = moved(build, tmp_path, lambda s: another_id(another_photo(s)))
    assert trained.check_unseen([run], split) == []
    said = trained.check_unseen([run], build / "splits" / "train")
    assert said == [f"12 of 12 people of train are of photos that {run.name} was trained on"]
    assert predict(run, build / "splits" / "val", tmp_path / "v") == []
    call = [str(run), "--split", str(build / "splits" / "train"), "--device", "cpu", "-q"]
    done = CliRunner().invoke(commands.predict, call)
    assert done.exit_code == 0 and said[0] in done.output


def test_fine_tuning_inherits_and_an_old_run_is_said_to_be_unknown(build: Path, tmp_path: Path, run: Path):
    split, val = moved(build, tmp_path / "b"), build / "splits" / "val"
    mine, parents = (trained.read(r) for r in (train(job(build, tmp_path, init=run)), run))
    assert mine is not None and parents is not None and mine.whole and np.array_equal(mine.keys, parents.keys)
    old = shutil.copytree(run, tmp_path / "old")
    photo = hashing.seed_of("trained on", "photo", "coco/elsewhere")
    parquet.write_table(old / trained.FILE, pa.table({"key": [photo]}))
    heir = trained.read(train(job(build, tmp_path, init=old, name="heir")))
    assert heir is not None and heir.whole and len(heir.keys) == len(parents.keys) + 1 and photo in heir.keys
    (old / trained.FILE).unlink()
    assert predict(old, split, tmp_path / "p") == [
        "old: on which photos it was trained is not known; test may hold some"
    ]
    child = train(job(build, tmp_path, init=old, name="child"))
    grandchild = train(job(build, tmp_path, init=child, name="grandchild"))
    for its in (child, grandchild):
        (note,) = trained.check_unseen([its], val)
        assert note.startswith(f"{its.name}: on which photos the weights it started from were trained is not known")
        with pytest.raises(UserError, match="1 of 4 people of test"):
            trained.check_unseen([old, its], split)


def test_the_file_is_mended_and_another_kind_is_told(build: Path, tmp_path: Path, run: Path):
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    path = copy / trained.FILE
    whole = path.read_bytes()
    assert (np.diff(trained.read(copy).keys) > 0).all()  # type: ignore[union-attr]
    before = path.stat().st_mtime_ns
    train(job(build, tmp_path))  # finished: nothing to do
    assert path.stat().st_mtime_ns == before
    bad: Sequence[bytes] = (whole[:-9], parquet.table_bytes(pa.table({"key": ["a"]})))
    for data in bad:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"trained_on\.parquet: (cannot be read|expected a column)"):
            predict(copy, build / "splits" / "val", tmp_path / "p")
    train(job(build, tmp_path))
    assert path.read_bytes() == whole
