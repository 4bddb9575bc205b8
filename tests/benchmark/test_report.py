"""The leaderboard's page and tables: every form, what is absent, a run alone, boards that stand apart."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Score
from ahp_toolkit.report.tables import Cell
from ahp_toolkit.storage import files, parquet
from benchmark import commands
from benchmark.boards.curves import curves
from benchmark.boards.ranking import boards_of, load_runs
from benchmark.boards.report import write_report
from benchmark.boards.tables import board_table, speed_json
from benchmark.grading.claims import SPEED
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
    assert "iou_<wbr>amodal ↑ (%)" in page
    (tex,) = out.glob("*.tex")
    assert r"\toprule" in tex.read_text() and r"\textbf{" in tex.read_text() and r"m\_2\&" in tex.read_text()
    value = json.loads((out / "leaderboard.json").read_text())
    assert [r["model"] for r in value["boards"][0]["rows"]] == ["m_2&<b>", "m_8&<b>"]
    assert {r["method"] for r in value["boards"][0]["reported"]} >= {"PCNets", "Human de-occlusion"}
    assert value["speed"][0]["parameters"] == 1e6 and "self-reported" in page
    assert "Definitions" in (out / "leaderboard.md").read_text()
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    write_report(boards, out)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}


def test_a_cell_without_a_figure_gives_the_reason(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    score(_painted(tmp_path / "with", samples, 1, masks=24), split, tmp_path / "b")
    score(submit(tmp_path / "modal", noisy(samples, 2, 1), split), split, tmp_path / "b")
    mask, content = boards_of(load_runs(tmp_path / "b")[0])
    md = {b.board: board_table(b).markdown() for b in (mask, content)}
    assert md["mask"].count("absent: no modal masks") == 2 and md["content"].count("absent: weights not found") == 3
    assert "absent" not in board_table(content, printed=True).latex()
    # the initial mask was subtracted of one method: its figure is marked, and the mark explained
    table = board_table(mask)
    place = [c.name for c in table.columns].index("iou_invisible")
    marks = {row[0].value: row[place].mark for row in table.rows}
    assert marks["with"].endswith("†") and "†" not in marks["modal"]
    assert any(n.startswith("†") for n in table.notes)


def test_a_run_alone_is_best_of_nothing(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    pages = []
    for g in (2, 8):
        score(submit(tmp_path / f"m{g}", noisy(samples, g, g), split), split, tmp_path / "b")
        write_report(tmp_path / "b", tmp_path / "r")
        pages.append((tmp_path / "r" / "leaderboard.html").read_text())
    alone, two = pages
    for part in ('class="n best"', "Greatest disagreement", "Green: best"):
        assert part not in alone and part in two
    assert all(p.count("Worst cases of each method") == 1 and "Chosen by seed" in p for p in pages)


def test_other_datasets_and_definitions_stand_apart(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    other = tmp_path / "val"
    others = make_split(other, 5, 2)
    score(submit(tmp_path / "a", noisy(samples, 2, 1), split), split, tmp_path / "b")
    score(submit(tmp_path / "c", noisy(others, 2, 1), other), other, tmp_path / "b")
    score(submit(tmp_path / "d", noisy(samples, 3, 1), split), split, tmp_path / "b")
    runs = load_runs(tmp_path / "b")[0]
    next(r for r in runs if r.model == "d").record["protocol"]["mask"] = "f" * 64
    found = boards_of(runs)
    assert sorted([r.model for r in b.runs] for b in found) == [["a"], ["c"], ["d"]]


def test_pictures_of_true_masks_stand_apart_and_what_needs_none_on_both(tmp_path) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "val"
    samples = make_split(split, 4, 2, pictures=True)
    for name, fed in (("truth", "truth"), ("cascade", "ours@1"), ("plain", "nothing"), ("outside", None)):
        folder = _painted(tmp_path / name, samples, 1)
        files.write_json(folder / "run.json", {"model": name} | ({"fed_by": fed} if fed else {}))
        score(folder, split, tmp_path / "b")
    found = {b.given: sorted(r.model for r in b.runs) for b in boards_of(load_runs(tmp_path / "b")[0])}
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


def test_tables_for_machines_hold_fractions_and_say_so(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    run = score(submit(tmp_path / "m", noisy(samples, 2, 1), split), split, tmp_path / "b").folder
    kept = {(s.metric, s.slice): s for s in parquet.read_records(run / "scores.parquet", Score)}
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
def test_a_speed_that_is_none_is_left_out(world, tmp_path, speed) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    score(submit(tmp_path / "m", noisy(samples, 2, 1), split, speed=speed), split, tmp_path / "b")
    (row,) = speed_json(load_runs(tmp_path / "b")[0])
    known = {k for k in SPEED if row[k] is not None}
    assert known == {"ms_per_person"} and row["ms_per_person"] == 20  # of the records' seconds


def test_what_has_no_interval_shows_none_and_fewer_modal_masks_their_own_n(tmp_path) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "val"
    samples = make_split(split, 1, 4)
    for g in (2, 8):
        made = [replace(p, modal=None if k < g // 2 else p.modal) for k, p in enumerate(noisy(samples, g, g))]
        score(submit(tmp_path / f"m{g}", made, split), split, tmp_path / "b")
    (board,) = boards_of(load_runs(tmp_path / "b")[0])
    table = board_table(board)
    found = {c.name: cell for c, cell in zip(table.columns, table.rows[0], strict=True) if isinstance(cell, Cell)}
    figures = [found[m.name] for m in board.metrics]
    assert all(c.low != c.low and c.high != c.high for c in figures)
    assert {m.name for m in board.metrics if found[m.name].note} == {"iou_modal", "iou_modal_global"}
    assert found["n"].shown == "4 of 4"
    assert "<polygon" not in curves(board, board.metrics[0]) and "<circle" in curves(board, board.metrics[0])
    write_report(tmp_path / "b", tmp_path / "r")
    page, md = ((tmp_path / "r" / f"leaderboard.{s}").read_text() for s in ("html", "md"))
    assert " nan" not in md.lower() and ">nan" not in page.lower()
    assert "[–" not in md and "<small>–" not in page and "3 of 4" in md and "3 of 4" in page


def test_nothing_to_report(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="run ahp bench score first"):
        write_report(tmp_path, tmp_path / "r")
