"""What takes no address says so in one line, and never makes a folder of its name."""

from __future__ import annotations

import sys

import pytest

from ahp_toolkit.cli import main
from annotation.session.build_check import REVIEWED

REVIEWS = ("", " status", " triage", " export --decisions w.csv", " import w.csv", " resegment", " compose")


@pytest.mark.parametrize(
    ("words", "option", "way"),
    [
        ("build --source coco=. --out s3://b/x --work s3://b/w", "--work", "copy from or to"),
        ("demo --out s3://b/x", "--out", "copy from or to"),
        *(
            (f"review{c} --root s3://b/x", "--root", "--work DIR, review DIR, and run that command again")
            for c in REVIEWS
        ),
        ("review export --png s3://b/m --root .", "--png", "copy from or to"),
        ("build segmenter --root s3://b/x", "--root", "fetch the build first"),
        ("build parser --root s3://b/x", "--root", "fetch the build first"),
        ("bench report --out s3://b/r --boards .", "--out", "copy from or to"),
        ("bench open --root s3://b/x --run .", "--root", "fetch the build first"),
        ("bench paper --root s3://b/x", "--root", "fetch the build first"),
        ("predict x.jpg --out s3://b/x", "--out", "copy from or to"),
    ],
)
def test_an_address_is_refused_where_only_folders_of_this_machine_go(tmp_path, monkeypatch, capsys, words, option, way):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["ahp", *words.split()])
    code = main._run()
    said = capsys.readouterr().err.strip()
    assert code == 2, said
    assert f"{option} s3://b/" in said and "takes a local" in said and way in said
    assert ("aws s3 sync" in said) != (way in REVIEWED._way)
    assert "\n" not in said and "internal" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["x.jpg"]


def test_a_report_on_boards_in_a_store_asks_where_to_write(s3, monkeypatch, capsys):
    _, bucket, root = s3
    bucket.put(f"{root.removeprefix('s3://ahp/')}/run/score.json", b"{}")
    monkeypatch.setattr(sys, "argv", ["ahp", "bench", "report", "--boards", root])
    assert main._run() == 2
    assert f"--boards {root}: is in an object store: expected --out" in capsys.readouterr().err
