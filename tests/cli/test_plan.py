"""``ahp build plan``: counts, states and times before anything runs; nothing is written; it agrees with the build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ahp_toolkit.build.dry_run import Sizes
from ahp_toolkit.build.estimate import CHUNK, CHUNKS, Estimate, _json, estimate, sampled
from ahp_toolkit.build.flow import Options
from ahp_toolkit.build.plan_rates import rate
from ahp_toolkit.build.splits import Synthesis
from ahp_toolkit.cli import main
from ahp_toolkit.cli.plan import size_of, time_of
from ahp_toolkit.runtime import dry, timing
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.stages.review import SplitSizes
from ahp_toolkit.storage import files
from tests.cli.small import data, words


def run(*args: object) -> str:
    result = CliRunner().invoke(main.ahp, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def planned(args: list[str], *more: object) -> dict:
    return json.loads(run("build", "plan", *args[1:], "--json", *more))


def states(said: dict) -> dict[str, str]:
    return {s["name"]: s["state"] for s in said["steps"]}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("data") / "coco")


def test_a_plan_agrees_with_the_build_before_and_after(source, tmp_path):
    out = tmp_path / "o"
    args = words(source, out)
    before = planned(args)
    assert not out.exists()
    assert set(states(before).values()) == {"runs"} and list(states(before)) == [
        "harvest", "segment", "parse", "decide", "review", "bank", "train", "val", "test", "report",
    ]  # fmt: skip
    steps = {s["name"]: s for s in before["steps"]}
    assert steps["harvest"]["items"] == 12 and steps["harvest"]["estimated"]
    assert before["seconds"] > 0 and before["bytes"] > 0 and "EPYC" in steps["harvest"]["known_by"]

    run(*args, "-q", "--stop-after", "parse")
    there = everything(out)
    middle = planned(args)
    assert everything(out) == there
    assert [n for n, s in states(middle).items() if s == "stands"] == ["harvest", "segment", "parse"]
    assert not next(s for s in middle["steps"] if s["name"] == "review")["estimated"]

    again = {s["name"]: s for s in planned(args, "--min-area", "400")["steps"]}
    assert again["harvest"]["state"] == "runs" and "measured in" in again["harvest"]["known_by"]
    assert again["harvest"]["known_by"].count(timing.machine()) == 1

    elsewhere = words(source, tmp_path / "new")
    assert "measured in" in {s["name"]: s for s in planned(elsewhere, "--like", out)["steps"]}["parse"]["known_by"]


def test_a_plan_in_words_names_training_and_its_network(source, tmp_path):
    said = run("build", "plan", *words(source, tmp_path / "o", "--segmenter", "deeplab", "--train", "debug")[1:])
    assert "train segmenter  runs" in said and "150 steps" in said and "deeplab on device auto; worth a GPU" in said
    assert "no network runs" in run("build", "plan", *words(source, tmp_path / "o")[1:])


def test_nobody_decides_so_nobody_is_expected(source, tmp_path):
    args = ["build", "plan", "--source", f"coco={source}", "--out", str(tmp_path / "o"), "--json"]
    steps = {s["name"]: s for s in json.loads(run(*args))["steps"]}
    assert steps["train"]["items"] == 0 and steps["review"]["items"] > 0


def test_a_dry_run_stops_before_anything_is_made(tmp_path):
    dry.stop("x", tmp_path)  # outside, it does nothing
    with dry.dry_run(), pytest.raises(dry.Would, match="x"):
        dry.stop("x", tmp_path, 3)


def test_sources_are_counted_small_and_estimated_large(source, tmp_path):
    assert estimate("coco", source) == Estimate(12, 24, True)
    path = tmp_path / "large.json"
    image, person = b'{"id": 1, "file_name": "000000000001.jpg", "height": 480},', b'{"category_id": 1, "area": 2},'
    path.write_bytes(image * 300_000 + person * 300_000)
    assert path.stat().st_size > CHUNK * CHUNKS
    found = sampled(path, _json)
    assert not found.counted
    assert found.photos == pytest.approx(300_000, rel=0.03) and found.persons == pytest.approx(300_000, rel=0.03)


def test_a_fold_and_the_banks_are_counted_as_the_build_cuts_them(tmp_path):
    counts = {"candidates/coco": 1000, "preserve/coco": 1000, "occluders_other/coco": 60_000, "images/coco": 9}
    counts |= {"occluders_person/coco": 20_000, "occluders_other/lip": 5000}
    done = Result("harvest", tmp_path, counts, {}, "", False)
    roots = {"coco": tmp_path, "lip": tmp_path}

    def sizes(s: Synthesis, **cut: Any) -> Sizes:
        o = Options(tmp_path, roots, sizes=SplitSizes(**cut))
        return Sizes(o, s, {"harvest": done, "review": done})

    of = sizes(Synthesis(), val=200, test=50).of
    assert [of(n) for n in ("train", "val", "test")] == [750, 600, 150]
    assert of("bank") == 20_000 + 16_000 + 4000
    fold = sizes(Synthesis(occluder_sources=("all",)), fold=(1, 4)).of
    assert [fold(n) for n in ("train", "val", "test")] == [750, 750, 0]
    assert fold("bank") == 20_000 + 20_000


def test_a_networks_training_is_timed_by_its_own_trainings_alone(tmp_path):
    said = {"steps": 10, "seconds": 5.0, "settings": {"size": 64}, "machine": "m", "device": "cpu"}
    files.write_json(tmp_path / "weights/deeplab.timing.json", said)
    known, other = (
        rate("train segmenter", f"train segmenter {n} debug", [tmp_path], False) for n in ("deeplab", "centermask")
    )
    assert known.seconds == 0.5 and other.seconds is None and "not known" in other.known_by


def test_words_for_sizes_and_times():
    assert [time_of(s) for s in (1, 119, 121, 7300, 200_000)] == ["1 s", "119 s", "2.0 min", "2.0 h", "2.3 days"]
    assert [size_of(b) for b in (500, 2e6, 3e9, 4e12)] == ["0 kB", "2.0 MB", "3.0 GB", "4.0 TB"]
