"""The leaderboard's page and tables: every form, what is absent, a run alone, boards that stand apart."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Score
from ahp_toolkit.storage import files, parquet
from benchmark import commands
from benchmark.boards.charts import curves
from benchmark.boards.ranking import boards_of, load_runs
from benchmark.boards.report import _absent, write_report
from benchmark.boards.tables import SPEED, cells, scored_of, speed_rows
from benchmark.grading.score import score
from tests.benchmark.test_score import _painted
from tests.benchmark.world import make_split, noisy, submit


@pytest.fixture(scope="module")
def world(tmp_path_factory):  # type: ignore[no-untyped-def]
    root = tmp_path_factory.mktemp("judge")
    return root, root / "splits" / "val", make_split(root / "splits" / "val", 8, 3, pictures=True)


def test_report_writes_every_form(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    names = []
    for g in (2, 8):
        folder = submit(
            tmp_path / f"m_{g}&<b>", noisy(samples, g, g), split, speed={"parameters": 1e6, "device": "cpu"}
        )
        names.append(str(folder))
    boards = tmp_path / "boards"
    result = CliRunner().invoke(commands.score, [*names, "--split", str(split), "--out", str(boards)])
    assert result.exit_code == 0 and "iou_invisible_gtvis" in result.output and "24 of 24" in result.output
    assert CliRunner().invoke(commands.report, ["--boards", str(boards)]).exit_code == 0
    out = boards / "report"
    page = (out / "leaderboard.html").read_text()
    assert "m_2&amp;&lt;b&gt;" in page and "<b>m_" not in page.replace("&lt;", "")
    assert "http://" not in page.replace("http://www.w3.org", "") and "<svg" in page and "data:image/jpeg" in page
    assert "Zhou et al., CVPR 2021, table 2" in page and str(tmp_path) not in page
    assert "iou_<wbr>amodal %\xa0↑" in page and "max-height" not in page
    (tex,) = out.glob("*.tex")
    assert r"\toprule" in tex.read_text() and r"\textbf{" in tex.read_text() and r"m\_2\&" in tex.read_text()
    value = json.loads((out / "leaderboard.json").read_text())
    assert [r["model"] for r in value["boards"][0]["rows"]] == ["m_2&<b>", "m_8&<b>"]
    assert {r["method"] for r in value["boards"][0]["reported"]} >= {"PCNets", "Human de-occlusion"}
    assert value["speed"][0]["parameters"] == "1"
    assert "Definitions" in (out / "leaderboard.md").read_text()
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    write_report(boards, out)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}


def test_a_metric_that_some_methods_lack_names_them(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    for name, g in (("with", 2), ("without", 8)):
        score(submit(tmp_path / name, noisy(samples, g, g), split), split, tmp_path / "b")
    (run,) = (tmp_path / "b").glob("without*/score.json")
    about = files.read_json(run)
    about["absent"] |= {"iou_modal": "no modal masks", "psnr": "of another board"}
    files.write_json(run, about)
    (board,) = boards_of(load_runs(tmp_path / "b"))
    assert _absent(board)["iou_modal"] == "not for without: no modal masks" and "psnr" not in _absent(board)
    board.metrics = [m for m in board.metrics if m.name != "iou_modal"]
    assert _absent(board)["iou_modal"] == "no modal masks"


def test_a_run_alone_is_best_of_nothing(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    pages = []
    for g in (2, 8):
        score(submit(tmp_path / f"m{g}", noisy(samples, g, g), split), split, tmp_path / "b")
        write_report(tmp_path / "b", tmp_path / "r")
        pages.append((tmp_path / "r" / "leaderboard.html").read_text())
    alone, two = pages
    for said in ('class="p1"', "Greatest disagreement", "Green: best"):
        assert said not in alone and said in two
    assert all(p.count("Worst cases of each method") == 1 and "Chosen by seed" in p for p in pages)
    assert "run above" not in two + (tmp_path / "r" / "leaderboard.md").read_text()


def test_other_datasets_and_definitions_stand_apart(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    other = tmp_path / "val"
    others = make_split(other, 5, 2)
    score(submit(tmp_path / "a", noisy(samples, 2, 1), split), split, tmp_path / "b")
    score(submit(tmp_path / "c", noisy(others, 2, 1), other), other, tmp_path / "b")
    run = score(submit(tmp_path / "d", noisy(samples, 3, 1), split), split, tmp_path / "b").folder
    about = files.read_json(run / "score.json")
    about["protocol"]["mask"] = "f" * 64
    files.write_json(run / "score.json", about)
    found = boards_of(load_runs(tmp_path / "b"))
    assert sorted([r.model for r in b.runs] for b in found) == [["a"], ["c"], ["d"]]


def test_pictures_of_true_masks_stand_apart_and_what_needs_none_on_both(tmp_path) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "val"
    samples = make_split(split, 4, 2, pictures=True)
    for name, fed in (("truth", "truth"), ("cascade", "ours@1"), ("plain", "nothing"), ("outside", None)):
        folder = _painted(tmp_path / name, samples, 1)
        files.write_json(folder / "run.json", {"model": name} | ({"fed_by": fed} if fed else {}))
        score(folder, split, tmp_path / "b")
    found = {b.given: sorted(r.model for r in b.runs) for b in boards_of(load_runs(tmp_path / "b"))}
    assert found == {
        "initial mask given": ["cascade", "outside", "plain"],
        "true masks given": ["plain", "truth"],
    }
    made = write_report(tmp_path / "b", tmp_path / "r")
    assert len({p.name for p in made}) == len(made) == 7
    page, md = ((tmp_path / "r" / f"leaderboard.{form}").read_text() for form in ("html", "md"))
    assert all("Content board, split val, true masks given" in text for text in (page, md))
    said = json.loads((tmp_path / "r" / "leaderboard.json").read_text())["boards"]
    assert [b["given"] for b in said] == ["initial mask given", "true masks given"]


def test_a_score_of_an_unknown_metric_ends_no_report(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    run = score(submit(tmp_path / "m", noisy(samples, 2, 1), split), split, tmp_path / "b").folder
    kept = list(parquet.read_records(run / "scores.parquet", Score))
    other = [replace(s, metric="iou_of_others") for s in kept if s.metric == "iou_amodal"]
    parquet.write_records(run / "scores.parquet", [*kept, *other], Score)
    write_report(tmp_path / "b", tmp_path / "r")
    (table,) = (tmp_path / "r").glob("*.csv")
    assert "iou_of_others" in table.read_text() and "iou_of_others" not in (tmp_path / "r/leaderboard.md").read_text()


def test_tables_for_machines_hold_fractions_and_say_so(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    run = score(submit(tmp_path / "m", noisy(samples, 2, 1), split), split, tmp_path / "b").folder
    kept = {(s.metric, s.slice): s for s in parquet.read_records(run / "scores.parquet", Score)}
    old = [replace(s, unit="%" if s.metric.startswith("iou") else s.unit) for s in kept.values()]
    parquet.write_records(run / "scores.parquet", old, Score)  # as boards were written before
    write_report(tmp_path / "b", tmp_path / "r")
    (table,) = (tmp_path / "r").glob("*.csv")
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == len(kept) and "%" not in {r["unit"] for r in rows}
    for r in rows:
        s = kept[r["metric"], r["slice"]]
        assert float(r["value"]) == s.value and r["unit"] == s.unit
    (row,) = json.loads((tmp_path / "r" / "leaderboard.json").read_text())["boards"][0]["rows"]
    amodal = row["metrics"]["iou_amodal"]
    assert (amodal["value"], amodal["unit"]) == (kept["iou_amodal", "all"].value, "ratio")
    assert f"{100 * amodal['value']:.1f}" in (tmp_path / "r" / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    "speed", [5, "fast", [1], None, {"ms_per_person": {"a": 1}}, {"flops": 10**400}, {"parameters": True}], ids=str
)
def test_a_speed_that_is_none_is_a_dash(world, tmp_path, speed) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    score(submit(tmp_path / "m", noisy(samples, 2, 1), split, speed=speed), split, tmp_path / "b")
    (row,) = speed_rows(load_runs(tmp_path / "b"))
    shown = {k: row[k] for k in SPEED}
    timed = isinstance(speed, dict) and "ms_per_person" in speed
    assert shown == dict.fromkeys(SPEED, "–") | ({} if timed else {"ms_per_person": "20"})  # of the records' seconds


def test_what_has_no_interval_shows_none_and_fewer_modal_masks_their_own_n(tmp_path) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "val"
    samples = make_split(split, 1, 4)
    for g in (2, 8):
        made = [replace(p, modal=None if k < g // 2 else p.modal) for k, p in enumerate(noisy(samples, g, g))]
        score(submit(tmp_path / f"m{g}", made, split), split, tmp_path / "b")
    (board,) = boards_of(load_runs(tmp_path / "b"))
    found = dict(zip((m.name for m in board.metrics), cells(board, 0), strict=True))
    assert {(c.low, c.high) for c in found.values()} == {("", "")}
    assert {n for n, c in found.items() if c.few} == {"iou_modal", "iou_modal_global"}
    assert scored_of(board, board.runs[0]) == "4 of 4"
    assert "<polygon" not in curves(board, board.metrics[0]) and "<circle" in curves(board, board.metrics[0])
    write_report(tmp_path / "b", tmp_path / "r")
    page, md = ((tmp_path / "r" / f"leaderboard.{s}").read_text() for s in ("html", "md"))
    assert "nan" not in md.lower() and "nan" not in page.split("<script>")[0].lower()
    assert "[–" not in md and "<small>–" not in page and "3 of 4" in md and "3 of 4" in page


def test_nothing_to_report(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="run ahp bench score first"):
        write_report(tmp_path, tmp_path / "r")
