"""``ahp build --dry-run``: states, counts and times before anything runs; nothing is written; the build agrees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ahp_toolkit.build.dry_run import Line, text, time_of
from ahp_toolkit.cli import main
from tests.cli.small import data, words


def run(*args: object) -> str:
    result = CliRunner().invoke(main.ahp, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def planned(args: list[str], *more: object) -> dict[str, dict]:
    return {x["name"]: x for x in json.loads(run(*args, "--dry-run", "--json", *more))["stages"]}


def states(lines: dict[str, dict]) -> dict[str, str]:
    return {name: x["state"] for name, x in lines.items()}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("data") / "coco")


def test_a_dry_run_agrees_with_the_build_before_in_the_middle_and_after(source, tmp_path):
    out = tmp_path / "o"
    args = words(source, out)
    before = planned(args)
    assert not out.exists()
    assert list(states(before)) == [
        "harvest", "segment", "parse", "decide", "review", "bank", "train", "val", "test", "report",
    ]  # fmt: skip
    assert set(states(before).values()) == {"to make"} and before["harvest"]["seconds"] is None

    run(*args, "-q", "--stop-after", "parse")
    there = everything(out)
    middle = planned(args)
    assert everything(out) == there
    assert [n for n, s in states(middle).items() if s == "up to date"] == ["harvest", "segment", "parse"]
    assert middle["harvest"]["items"] == 12

    again = planned(args, "--min-area", "400")
    assert set(states(again).values()) == {"to make"}
    assert (
        again["harvest"]["items"] == 12
        and again["harvest"]["seconds"] is not None
        and again["review"]["seconds"] is None
    )

    run(*args, "-q")
    there = everything(out)
    assert set(states(planned(args)).values()) == {"up to date"} and everything(out) == there
    assert states(planned(args, "--rebuild", "parse"))["segment"] == "up to date"
    assert states(planned(args, "--rebuild", "parse"))["parse"] == "to make"
    seed = planned(args, "--seed", "3")
    assert [n for n, s in states(seed).items() if s == "to make"] == ["train", "val", "test", "report"]
    assert seed["train"]["seconds"] is not None


def test_a_rebuilt_stage_is_made_again_to_the_same_bytes(source, tmp_path):
    args = words(source, tmp_path / "o", "-q", "--stop-after", "parse")
    run(*args)
    before = {p: p.read_bytes() for p in (tmp_path / "o").rglob("*.parquet")}
    lines = [line for line in run(*args, "--rebuild", "harvest").splitlines() if not line.startswith(" ")]
    assert "(up to date)" not in lines[0] and all("(up to date)" in line for line in lines[1:])
    assert before == {p: p.read_bytes() for p in (tmp_path / "o").rglob("*.parquet")}


def test_a_dry_run_names_the_trainings(source, tmp_path):
    lines = planned(words(source, tmp_path / "o", "--segmenter", "deeplab", "--train", "debug"))
    assert list(lines)[:3] == ["harvest", "train segmenter", "segment"]


def test_the_text_sums_what_is_known():
    lines = [Line("harvest", "up to date", 12), Line("segment", "to make", 24, 8.0), Line("report", "to make")]
    found = list(text(lines, 2))
    assert "4 s" in found[2] and found[-2].startswith("at least 4 s on 2 workers") and found[-1].endswith(": report")
    assert list(text(lines[:1], 2))[-1].startswith("all stages are up to date")
    assert [time_of(s) for s in (1, 119, 121, 7300, 200_000)] == ["1 s", "119 s", "2.0 min", "2.0 h", "2.3 days"]
