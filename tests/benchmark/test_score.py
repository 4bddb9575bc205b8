"""Scoring files: a golden leaderboard, simple rules in their places, faults named, cheating refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.core.records import Given, ImageRef, Placement, Prediction, Sample, Score
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.storage import files, images, parquet
from benchmark import commands
from benchmark.boards.ranking import boards_of, load_runs
from benchmark.grading.identity import run_id_of
from benchmark.grading.records import parse
from benchmark.grading.score import score, split_digest
from benchmark.grading.submission import Submission, validate
from benchmark.grading.truth import crop_of, sample_pairs, slices
from tests.benchmark.world import by_rule, make_split, noisy, paint, submit


@pytest.fixture(scope="module")
def world(tmp_path_factory):  # type: ignore[no-untyped-def]
    root = tmp_path_factory.mktemp("judge")
    return root, root / "splits" / "val", make_split(root / "splits" / "val", 8, 3, pictures=True)


def figures(scored, name: str = "all") -> dict[str, Score]:  # type: ignore[no-untyped-def]
    return {s.metric: s for s in scored.scores if s.slice == name}


def ids_of(split: Path) -> tuple[list[str], str]:
    pairs = sample_pairs(split)
    return [i for i, _ in pairs], split_digest(pairs)


def strip(width: int) -> np.ndarray:
    """bool [256, 256]: the first ``width`` columns of rows 0 to 99."""
    out = np.zeros((256, 256), bool)
    out[:100, :width] = True
    return out


def golden_sample(k: int) -> Sample:
    """Amodal: 40 columns; modal: the first 30, so a quarter is hidden. Two samples a human; the crop is the photo."""
    image = ImageRef(f"coco/{k}", "coco", f"{k}.jpg", 256, 256)
    return Sample(
        f"val/{k}", "val", f"h{k // 2}", image, (Placement("o", 0, 0),), k, Given(encode(strip(20)), "t"),
        encode(strip(30)), encode(strip(40)), Box(0, 0, 256, 256), 0.25, k % 2, f"{k:064d}",
    )  # fmt: skip


def test_golden_leaderboard(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Six samples worked by hand, in columns of 100 px (by its own modal mask a record without one is empty):

    sample  amodal  modal   IoU am.  IoU mod.  invisible P / G          IoU inv.  l1
    0       40      30      1        1         30..40 / 30..40          1         0
    1       30      30      3/4      1         none / 30..40            0         1/4
    2       40      20      1        2/3       20..40 / 30..40          1/2       0
    3       40      -       1        0 (none)  20..40 (given 20)        1/2       0
    4       missing         0        0         none                     0         1
    5       80      40      1/2      3/4       40..80 / 30..40          0         1
    """
    split = tmp_path / "val"
    parquet.write_records(split / "part-00000.parquet", [golden_sample(k) for k in range(6)], Sample)
    columns = {0: (40, 30), 1: (30, 30), 2: (40, 20), 3: (40, None), 5: (80, 40)}
    made = [
        Prediction(f"val/{k}", "gold", encode(strip(a)), None if m is None else encode(strip(m)))
        for k, (a, m) in columns.items()
    ]
    found = figures(score(submit(tmp_path / "gold", made, split), split, tmp_path / "boards"))
    expected = {
        "iou_amodal": (1 + 0.75 + 1 + 1 + 0 + 0.5) / 6,
        "iou_modal": (1 + 1 + 2 / 3 + 0 + 0 + 0.75) / 6,
        "iou_modal_global": (30 + 30 + 20 + 0 + 0 + 30) / (30 * 5 + 40),
        "iou_invisible": (1 + 0 + 0.5 + 0.5 + 0 + 0) / 6,
        "iou_invisible_gtvis": (1 + 0 + 1 + 1 + 0 + 0.2) / 6,
        "iou_invisible_global": (10 + 0 + 10 + 10 + 0 + 10) / (10 + 10 + 10 + 10 + 10 + 50),
        "iou_amodal_global": (40 + 30 + 40 + 40 + 0 + 40) / (40 * 5 + 80),
        "l1_mask": (0 + 0.25 + 0 + 0 + 1 + 1) / 6,
        "l1_mask_pixel": (10 + 40 + 40) * 100 / 65536 / 6,
    }
    assert {k: found[k].value for k in expected} == pytest.approx(expected)
    by_modal = {k for k in found if k.startswith("iou_modal")}
    assert {(s.n, s.n_missing) for k, s in found.items() if k not in by_modal} == {(5, 1)}
    assert {(found[k].n, found[k].n_missing) for k in by_modal} == {(4, 2)} and len(by_modal) == 2


def test_truth_gets_every_bound(world) -> None:  # type: ignore[no-untyped-def]
    root, split, samples = world
    from benchmark.metric import METRICS

    made = by_rule(samples, "truth")
    for k, (s, p) in enumerate(zip(samples, made, strict=True)):
        rel = f"images/{file_stem(s.sample_id)}.png"
        images.write_png(root / "truth" / rel, paint(s)[0])
        made[k] = Prediction(p.sample_id, p.model, p.amodal, p.modal, rel, p.seconds)
    scored = score(submit(root / "truth", made, split), split, root / "boards")
    assert scored.problems.counts == {"true_picture": len(samples)}  # and it is said
    for s in scored.scores:
        best = METRICS.get(s.metric).best()
        if np.isfinite(s.value):
            assert s.value == pytest.approx(best, abs=1e-5), (s.metric, s.slice)


def test_simple_rules_rank_where_they_must(world) -> None:  # type: ignore[no-untyped-def]
    root, split, samples = world
    value = {
        rule: figures(score(submit(root / rule, by_rule(samples, rule), split), split, root / "rules"))
        for rule in ("truth", "given", "empty", "box", "template")
    }
    order = sorted(value, key=lambda r: -value[r]["iou_amodal"].value)
    assert order == ["truth", "template", "given", "box", "empty"]
    assert value["empty"]["iou_amodal"].value == 0 and value["empty"]["l1_mask"].value == 1
    assert value["given"]["iou_invisible"].value == 0
    (board,) = boards_of(load_runs(root / "rules")[0])
    assert [r.model for r in board.runs] == order
    # given and empty both find nothing hidden: a tie, and it shows
    places = {board.runs[k].model: s for k, s in board.places["iou_invisible"].items()}
    assert places["given"].rank == places["empty"].rank and (places["given"].tied or places["empty"].tied)


def test_same_files_same_bytes_and_any_form(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    folder = submit(tmp_path / "m", noisy(samples, 4, 1), split)
    one, two = (score(folder, split, tmp_path / n).folder for n in ("a", "b"))
    for name in ("scores.parquet", "samples.parquet", "shares.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    # the same as COCO-style JSON, in another order, with counts as text
    rows = [
        {
            "sample_id": p.sample_id,
            **{k: {"size": [256, 256], "counts": getattr(p, k).counts.decode()} for k in ("amodal", "modal")},
        }
        for p in reversed(noisy(samples, 4, 1))
    ]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    three = score(tmp_path / "m.json", split, tmp_path / "c")
    assert {k: s.value for k, s in figures(three).items()} == {
        k: s.value for k, s in figures(score(folder, split, tmp_path / "d")).items()
    }


def test_outsider_with_pandas_and_pycocotools(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import pandas as pd

    _, split, samples = world
    rows = []
    for s in samples:
        rle = coco.encode(np.asfortranarray(crop_of(s, "amodal"), dtype=np.uint8))
        rows.append({"sample_id": s.sample_id, "amodal": {"size": rle["size"], "counts": rle["counts"].decode()}})
    pd.DataFrame(rows).to_json(tmp_path / "mine.json", orient="records")
    (tmp_path / "mine").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "mine" / "predictions.parquet")
    for path in (tmp_path / "mine.json", tmp_path / "mine"):
        found = figures(score(path, split, tmp_path / "boards"))
        assert found["iou_amodal"].value == 1 and found["iou_amodal"].n_missing == 0


def test_slices_cover_every_sample(world) -> None:  # type: ignore[no-untyped-def]
    from benchmark.grading.truth import facts_of

    found = slices([facts_of(s) for s in world[2]])
    for kind in ("bin/", "ratio/", "source/", "aspect/"):
        assert np.array_equal(
            sum(m.astype(int) for n, m in found.items() if n.startswith(kind)), np.ones(len(world[2]))
        )


def test_intervals_are_by_human() -> None:
    from benchmark.grading.bootstrap import estimates
    from benchmark.metric import METRICS, mean_rows

    metric = METRICS.get("iou_amodal")()
    values = np.repeat(np.random.default_rng(0).random(40), 3)
    every = {"all": np.ones(120, bool)}
    measured = {"m": (metric, mean_rows(values))}
    by_human = estimates(measured, np.repeat(np.arange(40), 3), every, "d")["m"]["all"]
    by_sample = estimates(measured, np.arange(120), every, "d")["m"]["all"]
    wide, narrow = by_human.high - by_human.low, by_sample.high - by_sample.low
    assert wide == pytest.approx(narrow * np.sqrt(3), rel=0.15)
    assert wide == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.15)


def test_one_human_has_no_interval() -> None:
    from benchmark.grading.bootstrap import estimates, tied
    from benchmark.metric import METRICS, mean_rows

    values, groups = np.array([0.2, 0.9, 0.5, 0.4]), np.array([0, 0, 1, 2])
    members = {"all": np.ones(4, bool), "one": groups == 0, "two": groups > 0}
    for name in ("iou_amodal", "psnr"):
        metric = METRICS.get(name)()
        found = estimates({"m": (metric, mean_rows(values))}, groups, members, "d")["m"]
        assert np.isnan([found["one"].low, found["one"].high]).all() and np.isfinite(found["one"].value)
        assert all(found[n].low < found[n].high for n in ("all", "two"))
        assert tied(found["one"], found["two"])


# --- cheating and faults -------------------------------------------------------------------------------------------


def test_other_ids_are_named_and_not_scored(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    made = by_rule(samples, "truth")
    extra = [Prediction(f"easy/{k}", "m", made[0].amodal) for k in range(5)]
    scored = score(submit(tmp_path / "m", [*extra, *made[1:]], split), split, tmp_path / "b")
    assert sum(p.kind == "foreign" for p in scored.problems) == 5
    assert figures(scored)["iou_amodal"].value == pytest.approx((len(samples) - 1) / len(samples))
    with pytest.raises(UserError, match="not one of its 5 records .* such as val/0000#0, the first one's is easy/0"):
        score(submit(tmp_path / "f", extra, split), split, tmp_path / "b")


def test_the_second_of_two_records_does_not_count(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    scored = score(
        submit(tmp_path / "m", by_rule(samples, "empty") + by_rule(samples, "truth"), split), split, tmp_path / "b"
    )
    assert figures(scored)["iou_amodal"].value == 0
    assert sum(p.kind == "duplicate" for p in scored.problems) == len(samples)


def test_masks_larger_than_the_crop_score_as_empty(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    made = by_rule(samples, "truth")
    made[0] = Prediction(made[0].sample_id, "m", encode(np.ones((512, 512), bool)))
    scored = score(submit(tmp_path / "m", made, split), split, tmp_path / "b")
    assert [p.kind for p in scored.problems] == ["wrong_size"]
    assert figures(scored)["iou_amodal"].n_missing == 1


@pytest.mark.parametrize("modal", [{"size": [128, 128], "counts": "PPPP4"}, {"size": [256, 256], "counts": "###"}, 5])
def test_a_modal_mask_at_fault_is_no_absent_one(world, tmp_path, modal) -> None:  # type: ignore[no-untyped-def]
    """The given mask stands in for a modal mask that is absent, never for one that is broken."""
    _, split, samples = world
    rle = [{"size": [256, 256], "counts": p.amodal.counts.decode()} for p in by_rule(samples, "truth")]
    rows = [{"sample_id": s.sample_id, "amodal": m} for s, m in zip(samples, rle, strict=True)]
    (tmp_path / "absent.json").write_text(json.dumps(rows))
    rows[0]["modal"] = modal
    (tmp_path / "broken.json").write_text(json.dumps(rows))
    absent, broken = (score(tmp_path / f"{n}.json", split, tmp_path / "b") for n in ("absent", "broken"))
    assert not absent.problems and figures(absent)["iou_amodal"].value == 1
    assert len(broken.problems) == 1
    found, n = figures(broken), len(samples)
    assert found["iou_amodal"].value == pytest.approx((n - 1) / n)
    assert found["iou_invisible"].value < figures(absent)["iou_invisible"].value
    others = [s for k, s in found.items() if not k.startswith("iou_modal")]
    assert {(s.n, s.n_missing) for s in others} == {(n - 1, 1)}
    assert found["iou_modal"].value == 0 and (found["iou_modal"].n, found["iou_modal"].n_missing) == (0, n)


def _painted(folder: Path, samples: list[Sample], which: int, masks: int = 0) -> Path:
    """A submission without run.json: the true (0) or occluded (1) picture of every sample, masks of the first few."""
    rows = []
    for k, (s, p) in enumerate(zip(samples, by_rule(samples, "truth"), strict=True)):
        images.write_png(folder / "images" / f"{k}.png", paint(s)[which])
        mask = {"amodal": {"size": [256, 256], "counts": p.amodal.counts.decode()}} if k < masks else {}
        rows.append({"sample_id": s.sample_id, "image": f"images/{k}.png", **mask})
    (folder / "predictions.json").write_text(json.dumps(rows))
    return folder


def test_runs_are_told_by_their_folders_name_and_their_pictures(tmp_path) -> None:  # type: ignore[no-untyped-def]
    samples = make_split(tmp_path / "val", 3, 1, pictures=True)
    split, boards = tmp_path / "val", tmp_path / "b"
    names = [
        score(_painted(tmp_path / n, samples, k), split, boards).folder.name for k, n in enumerate(("n.v1", "n.v2"))
    ]
    assert [n.rpartition("-")[0] for n in names] == ["n.v1", "n.v2"]
    first = names[0]
    assert score(tmp_path / "n.v1", split, boards).folder.name == first  # its own row again
    assert run_id_of(Submission(tmp_path / "n.v1"), *ids_of(split)) == first
    with LocalEngine(2) as engine:
        assert score(tmp_path / "n.v1", split, boards, engine=engine).folder.name == first
    other = score(_painted(tmp_path / "other" / "n.v1", samples, 1), split, boards).folder.name  # the same records
    assert other != first and other.startswith("n.v1-")
    assert sorted(p.parent.name for p in boards.glob("*/score.json")) == sorted([*names, other])


def test_a_run_id_does_not_hang_on_what_can_be_scored(tmp_path) -> None:  # type: ignore[no-untyped-def]
    samples = make_split(tmp_path / "val", 3, 1)
    folder = _painted(tmp_path / "m", samples, 0, masks=3)
    (folder / "images" / "1.png").write_bytes(b"no picture")
    (folder / "images" / "2.png").unlink()
    before = score(folder, tmp_path / "val", tmp_path / "b")
    assert set(before.absent) >= {"content"}
    make_split(tmp_path / "val", 3, 1, pictures=True)
    after = score(folder, tmp_path / "val", tmp_path / "b")
    assert after.folder == before.folder and "l1_image" in figures(after)
    assert run_id_of(Submission(folder), *ids_of(tmp_path / "val")) == after.folder.name


def test_what_is_missing_is_named_for_each_board(tmp_path) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "val"
    samples = make_split(split, 4, 2, pictures=True)
    folder, ids = _painted(tmp_path / "m", samples, 0, masks=5), [s.sample_id for s in samples]
    about = files.read_json(score(folder, split, tmp_path / "b").folder / "score.json")
    assert about["missing"] == {"mask": 3, "content": 0}
    assert about["missing_list"] == {"mask": sorted(ids[5:]), "content": []}
    rows = json.loads((folder / "predictions.json").read_text())
    (folder / "predictions.json").write_text(json.dumps(rows[1:]))
    found = validate(Submission(folder), ids, split_digest(sample_pairs(split)))
    assert {p.kind for p in found} == {"missing"}
    said = [(p.sample_id, p.detail) for p in found]
    record = [(ids[0], f"no record; scores as {s} board") for s in ("empty on the mask", "black on the content")]
    mask = [(i, "no amodal mask; scores as empty on the mask board") for i in ids[5:]]
    assert said == [record[0], *mask, record[1]]


@pytest.mark.parametrize("counts", ["", "###", "zzzz", [-5, 65541], [10, 20], None, 7, "é"])
def test_broken_rle_is_named(world, tmp_path, counts) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    rows = [
        {"sample_id": s.sample_id, "amodal": {"size": [256, 256], "counts": p.amodal.counts.decode()}}
        for s, p in zip(samples, by_rule(samples, "truth"), strict=True)
    ]
    rows[0]["amodal"]["counts"] = counts
    (tmp_path / "m.json").write_text(json.dumps(rows))
    scored = score(tmp_path / "m.json", split, tmp_path / "b")
    assert len(scored.problems) == 1 and figures(scored)["iou_amodal"].n_missing == 1


def test_the_wrong_split_is_refused(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    folder = submit(tmp_path / "m", by_rule(samples, "truth"), None, dataset_digest="0" * 64)
    with pytest.raises(UserError, match=r"run\.json was made on dataset 000000000000"):
        score(folder, split, tmp_path / "b")


@pytest.mark.parametrize("command", ["score", "validate"])
@pytest.mark.parametrize(
    ("level", "said"), [("humans", "other records .*such as .*/val"), ("..", "found none; give ROOT")]
)
def test_another_level_of_the_splits_folder_is_refused_in_one_line(tmp_path, command, level, said) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "splits" / "val"
    samples = make_split(split, 2, 1)
    parquet.write_records(split / "humans" / "part-00000.parquet", [samples[0].image], ImageRef)
    folder = submit(tmp_path / "m", by_rule(samples, "truth"), split)
    args = [str(folder), "--split", str(split / level)] + (["--out", str(tmp_path / "b")] if command == "score" else [])
    result = CliRunner().invoke(getattr(commands, command), args)
    assert isinstance(result.exception, UserError)
    assert re.search(f"expected .*{said}", str(result.exception)) and "\n" not in str(result.exception)


def _bad_picture(kind: str, path: Path) -> None:
    grey = np.full((256, 256, 3), 90, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "nan":
        np.save(path.with_suffix(".npy"), np.full((256, 256, 3), np.nan))
        path.with_suffix(".npy").rename(path)
    elif kind == "size":
        images.write_png(path, grey[:128])
    elif kind == "alpha":
        images.write_png(path, np.dstack([grey, grey[..., 0]]))
    elif kind == "sixteen":
        Image.fromarray(np.full((256, 256), 900, np.uint16)).save(path)
    elif kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint8)
        images.write_png(path, noise)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "jpeg":
        images.write_jpeg(path, grey)


@pytest.mark.parametrize("kind", ["nan", "size", "alpha", "sixteen", "cut", "jpeg", "none", "outside", "link"])
def test_bad_pictures_score_as_black(world, tmp_path, kind: str) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    made = []
    for s in samples:
        rel = f"images/{file_stem(s.sample_id)}.png"
        images.write_png(tmp_path / "m" / rel, paint(s)[0])
        made.append(Prediction(s.sample_id, "m", None, None, rel))
    victim = tmp_path / "m" / str(made[0].image)
    victim.unlink()
    if kind == "outside":  # the truth itself, by a path out of the folder
        made[0] = Prediction(made[0].sample_id, "m", None, None, f"../../{split}/crops/x.recovered.png")
    elif kind == "link":
        victim.symlink_to(split / "crops" / f"{file_stem(samples[0].sample_id)}.recovered.png")
    else:
        _bad_picture(kind, victim)
    scored = score(submit(tmp_path / "m", made, split), split, tmp_path / "b")
    assert [p.sample_id for p in scored.problems if p.kind != "true_picture"] == [samples[0].sample_id]
    found = figures(scored)
    assert found["l1_image"].n_missing == 1 and found["l1_image"].value > 0
    assert scored.absent["fid"].startswith("weights not found: give --inception") and "fid" not in found


def test_changed_truth_is_noticed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    split = tmp_path / "val"
    samples = make_split(split, 2, 1, pictures=True)
    names = sorted((split / "crops").glob("*.png"))
    made = []
    for s in samples:
        rel = f"{file_stem(s.sample_id)}.png"
        images.write_png(tmp_path / "m" / rel, paint(s)[0])
        made.append(Prediction(s.sample_id, "m", None, None, rel))
    folder = submit(tmp_path / "m", made, split)
    score(folder, split, tmp_path / "b")
    images.write_png(next(p for p in names if "recovered" in p.name), np.zeros((256, 256, 3), np.uint8))
    with pytest.raises(UserError, match="true picture"):
        score(folder, split, tmp_path / "b")


def test_validate_says_it_line_by_line(world, tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, split, samples = world
    made = by_rule(samples, "truth")
    made[2] = Prediction(made[2].sample_id, "m", encode(np.ones((300, 300), bool)))
    made[3] = Prediction(made[3].sample_id, "m", made[3].amodal, None, "../escape.png")
    made[4] = Prediction("nobody", "m", made[4].amodal)
    folder = submit(tmp_path / "m", [*made, made[0]], split)
    ids = [i for i, _ in sample_pairs(split)]
    found = validate(Submission(folder), ids, split_digest(sample_pairs(split)))
    # one record names a picture: the submission plays on the content board, and every other one is missing there
    content = [p for p in found if p.kind == "missing" and "content board" in p.detail]
    assert [p.sample_id for p in content] == [i for k, i in enumerate(ids) if k != 3]
    kinds = sorted(p.kind for p in found if p not in content)
    assert kinds == ["bad_path", "duplicate", "foreign", "missing", "wrong_size"]
    result = CliRunner().invoke(commands.validate, [str(folder), "--split", str(split)])
    assert result.exit_code == 1
    assert "predictions.parquet record 3: wrong_size" in result.output and "[300, 300]" in result.output
    fine = submit(tmp_path / "fine", by_rule(samples, "truth"), split)
    assert CliRunner().invoke(commands.validate, [str(fine), "--split", str(split)]).exit_code == 0


@pytest.mark.parametrize("text", ["", "{", "3", '{"predictions": 4}', "[NaN]", "[[[[1]]]]"])
def test_json_that_is_no_submission(world, tmp_path, text: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError):
        score(tmp_path / "m.json", world[1], tmp_path / "b")


def test_the_judge_imports_no_model() -> None:
    import subprocess
    import sys

    code = "import sys, benchmark.grading.score, benchmark.boards.report, benchmark.commands\n"
    code += "print([m for m in sys.modules if m.startswith(('baselines', 'torch', 'fiftyone'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mask_that_is_no_object_is_a_bad_one_and_a_folder_has_its_own_name(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rows = [{"sample_id": str(i), "amodal": m} for i, m in enumerate((True, [], "x", {"size": [3, 3], "counts": "9"}))]
    (tmp_path / "net" / "sub").mkdir(parents=True)
    (tmp_path / "net" / "predictions.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path / "net" / "sub")
    submission = Submission(Path(".."))
    kinds = [p.kind for where, row in submission.rows() for p in parse(where, row, submission.root).problems]
    assert kinds == ["bad_mask"] * 3 + ["wrong_size"] and submission.model == "net"
