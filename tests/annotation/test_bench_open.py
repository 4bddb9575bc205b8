"""Predictions of several runs in the App's database: masks, figures, disagreement, pictures as slices of a group."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahp_toolkit.core.crops import crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Prediction, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.storage import files, images
from annotation.app import bench_app
from benchmark.features.context import Context
from benchmark.grading.score import score
from tests.annotation import app_server
from tests.benchmark import world

WORK = """
import json, sys
from pathlib import Path
from annotation.app import commands
root = Path(sys.argv[1])
args = ["--root", str(root), "--boards", str(root / "boards")]
args += ["--run", str(root / "truth"), "--run", str(root / "given")]
try:
    commands.open_([*args, "--check"])
except SystemExit as e:
    assert not e.code
import fiftyone as fo
dataset = fo.load_dataset(fo.list_datasets()[0])
found = {"n": len(dataset), "views": dataset.list_saved_views(), "type": dataset.media_type,
         "slices": sorted(dataset.group_slices or []), "targets": dataset.mask_targets["truth"][2],
         "active": dataset.app_config.active_fields.paths}
view = dataset.load_saved_view("most disagreed")
found["disagreement"] = view.values("disagreement")
found["figures"] = [dataset.values(f) for f in ("truth__2_iou_amodal", "given_iou_invisible", "spread")]
one = dataset.first()
same = one.truth.mask.tolist() == one["truth__2"].mask.tolist()
found["labels"] = [same, sorted(set(one["given"].mask.ravel().tolist()))]
found["exists"] = Path(one.filepath).exists()
try:
    commands.open_([*args, "--check"])
except SystemExit as e:
    assert not e.code
found["again"] = [len(fo.load_dataset(dataset.name)), len(fo.list_datasets())]
print(json.dumps(found))
"""


def make(root: Path, painter: bool) -> list[Sample]:
    """A split with crops, and two submissions to it, scored."""
    split = root / "splits" / "val"
    samples = world.make_split(split, humans=3, each=2, pictures=True)
    files.write_json(root / "build.json", {"roots": {}})
    world.submit(root / "truth", world.by_rule(samples, "truth"), split)
    given = world.by_rule(samples, "given")
    if painter:
        given = [Prediction(p.sample_id, p.model, p.amodal, image=f"{file_stem(p.sample_id)}.png") for p in given]
        for s, p in zip(samples, given, strict=True):
            assert p.image
            images.write_png(root / "given" / p.image, world.paint(s)[1])
    world.submit(root / "given", given, split)
    for name in ("truth", "given"):
        score(root / name, split, root / "boards", Context())
    return samples


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[app_server.Mongo]:
    started = app_server.Mongo(tmp_path_factory.mktemp("db")).start()
    yield started
    started.kill()


@pytest.mark.database
@pytest.mark.skipif(app_server.find_mongod() is None, reason="no mongod")
@pytest.mark.parametrize("painter", [False, True])
def test_open_builds_the_dataset(tmp_path: Path, mongo: app_server.Mongo, painter: bool):
    samples = make(tmp_path, painter)
    env = app_server.environment(mongo, f"ahp_open_{painter}")
    run = subprocess.run(
        [sys.executable, "-c", WORK, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    n = len(samples)
    assert found["n"] == n and found["exists"] and found["again"] == [n, 1] and found["targets"] == "invisible"
    assert found["active"] == ["truth", "truth__2", "given"]  # the App's checkboxes
    assert found["type"] == ("group" if painter else "image")
    assert found["slices"] == (["given", "occluded", "recovered"] if painter else [])
    assert sorted(found["disagreement"], reverse=True) == found["disagreement"] and found["disagreement"][0] > 0
    assert found["figures"] == [[1.0] * n, [0.0] * n, [1.0] * n]
    assert found["labels"][0] and 2 not in found["labels"][1]
    assert set(found["views"]) == {"most disagreed", "widest spread of scores", "worst of given", "worst of truth__2"}


def test_a_run_folders_newest_predictions_are_taken_and_not_its_other_tables(tmp_path: Path):
    run = tmp_path / "runs" / "r"
    inside = run / "predictions" / "val"
    inside.mkdir(parents=True)
    (run / "trained_on.parquet").touch()
    with pytest.raises(UserError, match="expected predictions of val; make them with"):
        bench_app.predictions_of(run, "val")
    (inside / "part-00000.parquet").touch()
    assert bench_app.predictions_of(run, "val") == inside
    assert bench_app.predictions_of(inside, "val") == inside


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Path, list[Sample]]]:
    yield tmp_path, make(tmp_path, False)


def test_runs_are_loaded_with_their_figures_and_names_of_their_own(pair: tuple[Path, list[Sample]]):
    root, samples = pair
    a = bench_app.load(root / "truth", "val", [root / "boards"], ["truth"])
    b = bench_app.load(root / "truth", "val", [], ["truth", a.name])
    assert (a.name, b.name) == ("truth__2", "truth__3")
    assert a.figures[samples[0].sample_id]["iou_amodal"] == 1 and b.figures == {}
    shown = bench_app.predicted_labels(samples[0], a.predictions[samples[0].sample_id])
    assert shown is not None
    assert np.array_equal(shown > 0, crop_mask(samples[0].amodal, samples[0].crop, 256))
    with pytest.raises(UserError, match="ahp bench predict"):
        bench_app.load(root / "splits", "val", [])


def test_disagreement_is_of_pairs():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert bench_app.disagreement([encode(a)]) is None
    assert bench_app.disagreement([encode(a), encode(a)]) == 0
    assert bench_app.disagreement([encode(a), encode(b)]) == pytest.approx(2 / 3)
