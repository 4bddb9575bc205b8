"""Commands on a Ray cluster from end to end: every file is the local engine's, but for what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray")

from ahp_toolkit.core.records import Prediction
from ahp_toolkit.runtime import ray_start
from ahp_toolkit.runtime.engine_options import EngineSettings, make_engine
from ahp_toolkit.runtime.engines import ONE_THREAD
from ahp_toolkit.sample_world import write_world
from ahp_toolkit.storage import parquet
from tests.build.test_build import ahp
from tests.runtime.ray import digests

WORKERS = {"local": 1, "ray": 2}


def on(engine: str) -> tuple[object, ...]:
    return "--engine", engine, "--workers", WORKERS[engine]


@pytest.fixture(scope="module", autouse=True)
def joined(cluster) -> Iterator[None]:
    """The commands of this process find Ray at work, and start no other cluster."""
    settings = EngineSettings(2, "ray", ray_address=cluster.address)
    with pytest.MonkeyPatch.context() as patch, make_engine(settings) as engine:
        patch.setattr(ray_start, "_private", lambda: ray_start.PATIENT | ONE_THREAD)
        assert engine._ray.is_initialized()
        yield


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> dict[str, Path]:
    """The sample world, built by each engine, with the crops of val."""
    top = tmp_path_factory.mktemp("engines")
    write_world(top / "world", seed=0, scenes=24)
    made = {engine: top / engine for engine in digests.ENGINES}
    for engine, out in made.items():
        ahp(*digests.words(digests.in_world(top / "world"), out, engine, WORKERS[engine]))
        ahp("build", "materialize", "--root", out, "--split", "val", "--what", "crops", *on(engine))
    return made


def test_every_table_and_file_of_a_build_is_the_same(builds):
    assert digests.differing(builds["local"], builds["ray"]) == []
    found = {(r.stage, r.split): r for r in digests.tables(builds["local"], builds["ray"])}
    assert all(r.local == r.ray for r in found.values())
    for stage in ("harvest", "segment", "parse", "review"):
        assert found[stage, ""].rows and (stage, "dropped") in found
    for split in ("train", "val", "test"):
        assert found["splits", split].rows and found["splits", f"{split}/humans"].rows
    assert any(name.startswith("splits/val/crops/") for name in digests.contents(builds["ray"]))
    assert "**no**" not in digests.markdown("world", builds["local"], builds["ray"])


def test_a_difference_is_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "stage.json").write_text(name)
        (tmp_path / name / "x" / "timing.json").write_text(name)
    (tmp_path / "b" / "more").touch()
    assert digests.differing(tmp_path / "a", tmp_path / "b") == ["more", "x/stage.json"]


@pytest.mark.parametrize(("model", "task"), [("pcnets", "mask"), ("pix2pix", "content")])
def test_predictions_and_scores_are_the_same(builds, model, task, tmp_path):
    tiny = [w for pair in ("train.steps=1", "size=64", "width=8", "vgg=random/8") for w in ("--set", pair)]
    run = ahp("bench", "train", model, "--task", task, "--root", builds["local"], *tiny, "-q").split()[-1]
    said, boards, split = {}, {}, builds["local"] / "splits" / "val"
    for engine in digests.ENGINES:
        to, to_boards = tmp_path / engine, tmp_path / f"boards-{engine}"
        ahp("bench", "predict", run, "--split", "val", "--out", to, *on(engine), "-q")
        said[engine] = [replace(p, seconds=None) for p in parquet.read_records(to, Prediction)]
        ahp("bench", "score", tmp_path / "local", "--split", split, "--out", to_boards, *on(engine))
        boards[engine] = digests.contents(to_boards)
    assert said["local"] and said["local"] == said["ray"]
    pictures = [{p.name: p.read_bytes() for p in (tmp_path / e).rglob("*.png")} for e in digests.ENGINES]
    assert pictures[0] == pictures[1] and bool(pictures[0]) == (task == "content")
    assert boards["local"] and boards["local"] == boards["ray"]
