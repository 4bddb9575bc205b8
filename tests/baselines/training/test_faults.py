"""A run's files, damaged: brought back, or told in one line; never other weights, never other predictions."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ahp_toolkit.cli.bench import runs
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.checkpoints import load_checkpoint
from baselines.data.cache import build_cache
from baselines.inference.predict import Options, predict_run
from baselines.training.runs import MODEL_FORMAT
from baselines.training.train import Training, train
from benchmark.grading.submission import Submission


def job(build: Path, out: Path, **more) -> Training:
    settings = {"width": 4, "critic_width": 4}
    base = {"steps": 12, "batch": 2, "save_every": 4, "device": "cpu", "name": "r"}
    return Training(build, "pix2pix", "mask", settings=settings, out=out, quiet=True, **{**base, **more})


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def done(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(job(build, tmp_path_factory.mktemp("done")))


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "runs" / "r"))


def weights(path: Path) -> str:
    return load_checkpoint(path, MODEL_FORMAT).digest


def test_the_tables_of_a_stopped_run_end_as_those_of_a_whole_one(build: Path, tmp_path: Path, done: Path):
    folder = train(job(build, tmp_path, stop_at=9))  # its state is of step 8, the first row of step 10
    (folder / ".state.safetensors.x.tmp").write_bytes(b"half")
    train(job(build, tmp_path))
    for name in ("losses.csv", "val.csv"):
        assert (folder / name).read_bytes() == (done / name).read_bytes()
    assert weights(folder / "last.safetensors") == weights(done / "last.safetensors") and not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("name", ["losses.csv", "val.csv", "run.json", "last.safetensors"])
def test_what_a_finished_run_lost_is_brought_back(build: Path, run: Path, done: Path, name: str):
    (run / name).write_bytes((run / name).read_bytes()[:20])
    train(job(build, run.parent.parent))
    assert weights(run / "last.safetensors") == weights(done / "last.safetensors")
    assert (run / "losses.csv").read_bytes() == (done / "losses.csv").read_bytes()
    assert (run / "val.csv").read_bytes() == (done / "val.csv").read_bytes()
    said, first = (json.loads((f / "run.json").read_text()) for f in (run, done))
    assert said == first and said["status"] == "done" and said["best"]


@pytest.mark.parametrize("name", ["best.safetensors", "state.safetensors"])
def test_a_flipped_bit_of_weights_is_told(build: Path, run: Path, name: str):
    flip(run / name)
    with pytest.raises(UserError, match=f"{name}.*damaged"):
        train(job(build, run.parent.parent))


def test_a_flipped_bit_of_the_cache_is_told(build: Path, tmp_path: Path):
    root = Path(shutil.copytree(build, tmp_path / "b"))
    cache = build_cache(root, 64, quiet=True)
    for path in (cache.human_pixels, cache.occluder_pixels):
        flip(next(path.glob("*.bin")), 0.99)
    cache = build_cache(root, 64, quiet=True)
    for read, n in ((cache.human, len(cache.humans)), (cache.occluder, len(cache.occluders))):
        with pytest.raises(UserError, match=r"crop cache is damaged.*delete .* and run again"):
            for i in range(n):
                read(i)


def test_predictions_are_known_by_content_whatever_the_clock_says(build: Path, run: Path):
    split = build / "splits" / "val"
    out, made = runs.predict_once(run, split)
    assert made and not runs.predict_once(run, split)[1]
    os.utime(out / "run.json", (0, 0))
    assert not runs.predict_once(run, split)[1]
    said = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(said | {"weights_files": ["of other weights"]}))  # newer than the weights
    assert runs.predict_once(run, split)[1]


def test_unfinished_or_damaged_predictions_are_not_scored(build: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
    from baselines.inference import predict

    split, out = build / "splits" / "val", run / "p"
    predict_run(run, split, out, options=Options(device="cpu", quiet=True))
    Submission(out)
    (part,) = out.glob("part-*.parquet")
    whole = part.read_bytes()
    flip(part)
    with pytest.raises(UserError, match="not those that run.json was written with"):
        Submission(out)
    part.write_bytes(whole)
    with monkeypatch.context() as m:
        m.setattr(predict, "_write", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            predict_run(run, split, out, options=Options(device="cpu", quiet=True))
    with pytest.raises(UserError, match="were not finished; predict again"):
        Submission(out)
