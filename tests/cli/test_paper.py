"""The paper's tables: which runs fill which rows, what they cost, nothing trained twice, the paper's figures beside."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ahp_toolkit.cli.bench import paper_commands, paper_page, paper_tables, runs
from ahp_toolkit.cli.bench.paper_tables import Setup, Table
from ahp_toolkit.core.crops import crop_mask, square_around
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Given, Prediction, Sample, Score
from ahp_toolkit.report.tables import Column
from ahp_toolkit.storage import files, parquet
from baselines.base import MODELS
from baselines.training import train as training
from benchmark.features.context import Context
from tests.baselines.training import world

TINY = {"width": 4, "critic_width": 4, "vgg": "random/8"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = world.make(tmp_path_factory.mktemp("paper"))
    mark = {"name": "val", "counts": {}, "dropped": {}, "digest": "made by hand", "key_digest": ""}
    files.write_json(made / "splits" / "val" / "stage.json", mark)
    return made


def tiny(root: Path) -> tuple[Setup, list[Table]]:
    """Two rows of Table 4 (cheap ones) and Table 5's first two; one step each."""
    setup = Setup(root, steps=1, device="cpu", settings=TINY)
    tables = [t if t.number == 4 else replace(t, task="content") for t in paper_tables.plan(setup, (4, 5))]
    return setup, [replace(t, rows=t.rows[:2]) for t in tables]


def test_the_plan_holds_every_row_with_the_papers_figures(root: Path):
    setup = Setup(root)
    tables = {t.number: t for t in paper_tables.plan(setup, (1, 2, 3, 4, 5, 6))}
    assert {n: len(t.rows) for n, t in tables.items()} == {2: 7, 3: 6, 4: 6, 5: 7, 6: 6}
    assert dict(tables[2].rows[-1].paper) == {"l1": ".1500", "IoU amodal": "84.6", "IoU invisible": "43.7"}
    assert dict(tables[3].rows[-1].paper) == {"l1": ".0519", "FID": "13.85"}
    assert dict(tables[4].rows[3].paper) == {"IoU modal": "84.0", "IoU amodal": "83.9", "IoU invisible": "40.0"}
    assert [r.paper["FID"] for r in tables[6].rows] == ["19.66", "17.85", "16.76", "17.37", "about 14.6", "13.85"]
    assert tables[5].rows[2].jobs[0].settings == {"attention_b": False, "attention_t": False}
    assert {j.task for t in tables.values() for r in t.rows for j in r.jobs} == {"mask", "content"}
    real = paper_tables.plan(replace(setup, split="test"), (2,))[0]
    assert real.rows[-1].paper["IoU amodal"] == "83.6"
    with pytest.raises(UserError, match="the paper's tables are"):
        paper_tables.plan(setup, (7,))


def test_rows_that_are_one_run_are_trained_once(root: Path):
    setup = Setup(root)
    jobs = paper_tables.unique(setup, paper_tables.plan(setup, (2, 3, 4, 5, 6)))
    # Table 4's last row is Table 2's; Table 6 has Table 3's last, and w = 1 and w = .3 of Table 5
    assert len(jobs) == 7 + 6 + 5 + 7 + 3
    fills = {tuple(rows) for _, rows in jobs}
    assert ("table 2 'Human de-occlusion'", "table 4 '6 all'") in fills
    two = replace(setup, seeds=2, fed="cascade")
    assert sorted(j.seed for j, _ in paper_tables.unique(two, paper_tables.plan(two, (3,))) if j.task == "mask") == [
        0,
        1,
    ]


def test_tables_are_filled_once_and_written_beside_the_papers(root: Path, monkeypatch: pytest.MonkeyPatch):
    setup, tables = tiny(root)
    said: list[str] = []
    made = paper_tables.fill(setup, tables, root / "paper" / "scores", Context(), said.append)
    assert len(said) == 4 and all("trained, predicted, scored" in s for s in said)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(training, "train", refuse)
    monkeypatch.setattr("baselines.inference.predict.predict_run", refuse)
    monkeypatch.setattr("benchmark.grading.score.score", refuse)
    said.clear()
    again = paper_tables.fill(setup, tables, root / "paper" / "scores", Context(), said.append)
    assert all(s.endswith("up to date") for s in said)
    assert again == made

    page = paper_page.write(root, root / "paper", [paper_page.filled(setup, t, made) for t in tables])
    html = page.read_text()
    assert "77.5" in html and "18.04" in html and "1 steps in place of the recipe" in html
    text = (root / "paper" / "table_5.md").read_text()
    assert "FID (paper)" in text and "absent: weights not found" in text
    rows = list(csv.DictReader((root / "paper" / "table_4.csv").open()))
    assert len(rows) == 2 * 3
    amodal = next(r for r in rows if r["row"] == "1 base" and r["metric"] == "iou_amodal")
    scores = made[4, "1 base"].scores[0]
    assert float(amodal["value"]) == scores["iou_amodal"].value and amodal["unit"] == "ratio"
    assert amodal["paper_value"] == "0.840" and "84.0 |" in (root / "paper" / "table_4.md").read_text()
    assert "Order: " in (root / "paper" / "table_4.md").read_text()
    assert runs.seconds_per_step(tables[0].rows[0].jobs[0])[1] == "a run"
    assert {c.known_by for c in paper_tables.costs(setup, tables)} == {"up to date"}


def _score(metric: str, value: float, n: int = 8) -> Score:
    return Score("any", "m", metric, "all", value, "ratio", True, value - 0.01, value + 0.01, n, 8 - n, "r", "d" * 64)


def _cells(seeds: tuple[tuple[float, int], ...]) -> paper_page.Filled:
    """Table 2's last row alone, with (value, n) of iou_amodal of each seed."""
    setup = Setup(Path("x"), seeds=len(seeds))
    table = replace(paper_tables.plan(setup, (2,))[0], rows=paper_tables.plan(setup, (2,))[0].rows[-1:])
    scores = tuple({m: _score(m, v, n) for m, _ in table.columns} for v, n in seeds)
    folders = tuple(Path(f"r{k}") for k in range(len(seeds)))
    return paper_page.filled(setup, table, {(2, table.rows[0].name): paper_tables.Measured(scores, folders)})


def _shown(table: paper_page.Filled) -> str:
    return table.table.markdown().splitlines()[2].split(" | ")[3]


def test_cells_say_what_they_hold():
    one, two = _cells(((0.846, 7),)), _cells(((0.846, 8), (0.85, 6)))
    assert _shown(one) == "84.6 [83.6, 85.6, 7 of 8]" and "In brackets: 95 % interval" in one.table.notes[0]
    assert _shown(two) == "84.8 ± 0.3 [6 to 8 of 8]"
    assert "Mean ± standard deviation over 2 seeds" in two.table.notes[0] and "interval" not in two.table.notes[0]
    whole = _cells(((0.846, 8), (0.85, 8)))
    assert _shown(whole) == "84.8 ± 0.3"
    amodal = [r for r in whole.records if r["metric"] == "iou_amodal"]
    assert [(r["value"], r["paper_value"], r["unit"]) for r in amodal] == [(v, "0.846", "ratio") for v in (0.846, 0.85)]


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6])
def test_of_the_test_split_tables_4_to_6_say_that_the_paper_has_none(number: int):
    for split in ("val", "test"):
        setup = Setup(Path("x"), split=split)
        (table,) = paper_tables.plan(setup, (number,))
        found = {m: _score(m, 0.5) for m, _ in table.columns}
        made = {(number, r.name): paper_tables.Measured((found,), (Path("r"),)) for r in table.rows}
        page = paper_page.filled(setup, table, made)
        assert any("synthesized validation images alone" in n for n in page.table.notes) == (
            split == "test" and number > 3
        )
        if number == 6:  # the text's "about" stands in tables, the CSV has a number
            assert "about 14.6" in page.table.rows[4]
            assert next(r["paper_value"] for r in page.records if r["row"] == table.rows[4].name) == "14.6"


def test_a_damaged_score_is_scored_anew(root: Path):
    _, tables = tiny(root)
    job, split, boards = tables[0].rows[0].jobs[0], root / "splits" / "val", root / "again"
    predictions, _ = runs.predict_once(runs.train_once(job)[0], split, device="cpu")
    folder, _ = runs.score_once(predictions, split, boards, Context())
    wanted = runs.scores_of(folder)
    for name in ("scores.parquet", "score.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
        assert runs.score_once(predictions, split, boards, Context()) == (folder, True)
        assert runs.scores_of(folder) == wanted


def test_a_step_is_measured_once_and_the_measuring_leaves_no_run(root: Path, tmp_path: Path):
    job = replace(Setup(root, steps=50, settings={"width": 4}).job("pcnets", "mask", {}, 0), device="cpu")
    pace, source = runs.seconds_per_step(job, tmp_path)
    assert pace is not None and pace > 0 and source == "measured"
    assert not (tmp_path / "runs").exists()
    assert runs.seconds_per_step(job, tmp_path) == (pace, "measured")
    assert runs.finished(job) is None and runs.steps_done(job) == 0


def test_a_dry_run_says_what_and_how_long(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "_measured", lambda job, timing: 0.5)
    call = ["--root", str(root), "--tables", "1,4", "--recipe", "small", "--dry-run", "--device", "cpu"]
    said = CliRunner().invoke(paper_commands.paper, call)
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0].startswith("table 1:") and len(lines) == 8
    assert "10000 steps x 0.50 s = 83 min (measured)" in said.output
    assert lines[-1].startswith("6 runs to train on cpu, 8.3 h of training")
    with pytest.raises(UserError, match="expected numbers"):
        CliRunner().invoke(paper_commands.paper, ["--root", str(root), "--tables", "x"], catch_exceptions=False)


def test_a_changed_split_is_predicted_anew_and_other_seeds_are_other_runs(root: Path):
    job = Setup(root, steps=1, device="cpu", settings=TINY).job(paper_tables.OURS, "mask", {"templates": 0}, 0)
    assert runs.finished(replace(job, seed=9)) is None
    run, _ = runs.train_once(job)
    split = root / "splits" / "val"
    out, first = runs.predict_once(run, split, device="cpu")
    assert (first, runs.predict_once(run, split, device="cpu")[1]) == (True, False)
    said = files.read_json(out / "run.json")
    files.write_json(out / "run.json", said | {"dataset_digest": "another"})
    assert runs.predict_once(run, split, device="cpu")[1]
    assert json.loads((out / "run.json").read_text())["dataset_digest"] == said["dataset_digest"]


def test_other_initial_masks_and_crops_are_predicted_again(root: Path, tmp_path: Path):
    build = Path(shutil.copytree(root, tmp_path / "b", ignore=shutil.ignore_patterns("runs", "paper", "again")))
    run, _ = runs.train_once(replace(Setup(build).job("initial", "mask", {}, 0), device="cpu"))
    split = build / "splits" / "val"
    samples = list(parquet.read_records(split, Sample))
    smaller = [replace(s, given=Given(s.modal, "another")) for s in samples]
    moved = [replace(s, crop=square_around(s.amodal.box, 1.9)) for s in smaller]
    for now in (samples, smaller, moved):
        parquet.write_records(split / "part-00000.parquet", now, Sample)
        out, new = runs.predict_once(run, split, device="cpu")
        made = {p.sample_id: p.amodal for p in parquet.read_records(out, Prediction)}
        assert new and made == {s.sample_id: encode(crop_mask(s.given.mask, s.crop, 256)) for s in now}
        assert not runs.predict_once(run, split, device="cpu")[1]


def test_a_run_of_an_earlier_version_of_its_model_is_no_row(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = replace(Setup(root, steps=1, settings={"width": 4}).job("pcnets", "mask", {}, 0), device="cpu", out=tmp_path)
    run, _ = runs.train_once(job)
    assert runs.finished(job) == run and runs.seconds_per_step(job)[1] == "a run"
    monkeypatch.setattr(MODELS.get("pcnets"), "VERSION", 99)
    assert runs.finished(job) is None and runs.steps_done(job) == 0
    assert runs.seconds_per_step(job) == (None, "not known")
    other, new = runs.train_once(job)
    assert new and other != run and runs.finished(job) == other


@pytest.mark.parametrize("other", [{"ema": 0.5}, {"iou": 0.95}, {"accumulate": 2}, {"init": "weights"}], ids=str)
def test_a_run_with_other_training_options_is_no_row(root: Path, tmp_path: Path, other: dict[str, object]):
    job = replace(Setup(root, steps=1, device="cpu", settings={"width": 4}).job("pcnets", "mask", {}, 0), out=tmp_path)
    if "init" in other:
        other = {"init": runs.train_once(replace(job, out=tmp_path / "first"))[0]}
    theirs = replace(job, **other)  # type: ignore[arg-type]
    run, _ = runs.train_once(theirs)
    assert runs.finished(theirs) == run
    assert runs.finished(job) is None and runs.steps_done(job) == 0


def test_a_figure_that_is_none_for_one_seed_is_shown_as_none() -> None:
    found = tuple(
        {"fid": Score("content", "m", "fid", "all", v, "", False, v, v, 4, 0, "r", "d")} for v in (float("nan"), 3.0)
    )
    cell = paper_page._cell(Column("fid"), paper_tables.Measured(found, ()), "fid")
    assert cell.shown == "– ± –"
