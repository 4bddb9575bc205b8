"""Submissions made to cheat, to crash or to drown the judge: each gets one line, and none an unearned rank."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import crop_image, crop_labels, crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.core.records import Prediction, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.storage import files, images
from benchmark import commands
from benchmark.boards.ranking import boards_of, load_runs
from benchmark.boards.report import write_report
from benchmark.grading import bootstrap
from benchmark.grading.pictures import picture_of, pixels_digest
from benchmark.grading.records import mask_of
from benchmark.grading.score import score
from benchmark.grading.submission import Submission
from benchmark.grading.truth import picture_path
from tests.benchmark.world import by_rule, make_split, noisy, paint, submit

ROOT = Path(__file__).parents[2]
World = tuple[Path, list[Sample]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    split = tmp_path / "build" / "splits" / "val"
    samples = make_split(split, 4, 2, pictures=True)
    files.write_json(tmp_path / "build" / "build.json", {})
    return split, samples


def painted(folder: Path, samples: list[Sample], which: int = 1) -> Path:
    """A submission of the occluded (1) or the true (0) pictures."""
    made = []
    for s in samples:
        images.write_png(folder / f"{file_stem(s.sample_id)}.png", paint(s)[which])
        made.append(Prediction(s.sample_id, "m", None, None, f"{file_stem(s.sample_id)}.png"))
    return submit(folder, made)


def figures(scored: Any) -> dict[str, Any]:
    return {s.metric: s for s in scored.scores if s.slice == "all"}


# --- B1: the root of a submission is the submission ----------------------------------------------------------------


def test_a_single_file_names_no_picture(world: World, tmp_path: Path) -> None:
    """A JSON in the build folder that names the truth's own pictures."""
    split, samples = world
    build = split.parent.parent
    rows = [{"sample_id": s.sample_id, "image": str(picture_path(split, s.sample_id, "recovered").relative_to(build)),
             "amodal": mask} for s in samples for mask in [rle(by_rule([s], "given")[0])]]  # fmt: skip
    (build / "mine.json").write_text(json.dumps(rows))
    scored = score(build / "mine.json", split, tmp_path / "b")
    assert scored.problems.counts == {"bad_path": 8} and figures(scored)["l1_image"].n == 0


def rle(p: Prediction) -> dict[str, Any]:
    assert p.amodal is not None
    return {"size": [256, 256], "counts": p.amodal.counts.decode()}


@pytest.mark.parametrize("where", [".", "splits", "splits/val", "splits/val/crops", "splits/val/crops/mine"])
def test_a_folder_around_or_in_the_truth_is_refused(world: World, tmp_path: Path, where: str) -> None:
    split, samples = world
    folder = split.parent.parent / where
    painted(folder, samples)
    link = tmp_path / "link"
    link.symlink_to(folder)
    for path in (folder, link):
        with pytest.raises(UserError, match="of its own|holds .* of a build"):
            score(path, split, tmp_path / "b")


@pytest.mark.parametrize("how", ["symlink", "folder", "hard"])
def test_links_to_the_truth_are_no_pictures(world: World, tmp_path: Path, how: str) -> None:
    split, samples = world
    folder = painted(tmp_path / "m", samples)
    victim, truth = samples[0], picture_path(split, samples[0].sample_id, "recovered")
    path = folder / f"{file_stem(victim.sample_id)}.png"
    path.unlink()
    if how == "folder":
        (folder / "pictures").symlink_to(truth.parent)
        made = [Prediction(s.sample_id, "m", None, None, f"{file_stem(s.sample_id)}.png") for s in samples]
        made[0] = Prediction(victim.sample_id, "m", None, None, f"pictures/{truth.name}")
        submit(folder, made)
    else:
        (os.link if how == "hard" else os.symlink)(truth, path)
    scored = score(folder, split, tmp_path / "b")
    assert [p.sample_id for p in scored.problems] == [victim.sample_id] and figures(scored)["l1_image"].n_missing == 1


def test_a_copy_of_the_truth_is_named_and_marked(world: World, tmp_path: Path) -> None:
    split, samples = world
    folder = painted(tmp_path / "m", samples, 0)
    Image.open(folder / f"{file_stem(samples[0].sample_id)}.png").save(folder / "again.png", compress_level=1)
    assert score(folder, split, tmp_path / "b").problems.counts == {"true_picture": 8}
    write_report(tmp_path / "b", tmp_path / "r")
    assert "8 of its pictures equal the true ones" in (tmp_path / "r" / "leaderboard.html").read_text()


# --- B2: the truth of content is part of the dataset's identity ----------------------------------------------------


def test_overwritten_crops_are_noticed_and_other_ones_are_another_dataset(world: World, tmp_path: Path) -> None:
    split, samples = world
    folder = painted(tmp_path / "m", samples)
    first = figures(score(folder, split, tmp_path / "b"))
    listed = split / "crops" / "digests.json"
    known = files.read_json(listed)
    for s in samples:  # the truth becomes the submission's own pictures
        images.write_png(picture_path(split, s.sample_id, "recovered"), paint(s)[1])
    with pytest.raises(UserError, match="its pixels are not those of digests.json"):
        score(folder, split, tmp_path / "b")
    files.write_json(listed, {name: pixels_digest(paint(s)[1]) for name, s in zip(sorted(known), samples, strict=True)})
    again = figures(score(folder, split, tmp_path / "c"))
    assert again["l1_image"].value == 0
    assert again["l1_image"].dataset_digest != first["l1_image"].dataset_digest
    listed.unlink()
    with pytest.raises(UserError, match=r"no digests.json; run ahp build materialize"):
        score(folder, split, tmp_path / "d")


# --- B3: what the score depends on is written down -----------------------------------------------------------------


def test_the_function_of_the_guide_gives_our_crops() -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "benchmark" / "SUBMIT.md").read_text(), re.S)[0]
    space: dict[str, Any] = {}
    exec(code, space)
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (301, 417, 3), dtype=np.uint8)
    mask = rng.random((301, 417)) < 0.5
    for _ in range(60):
        side, x0, y0 = (int(v) for v in (rng.integers(2, 700), rng.integers(-150, 350), rng.integers(-150, 250)))
        box = Box(x0, y0, x0 + side, y0 + side)
        if x0 + side <= 0 or y0 + side <= 0:
            continue
        assert np.array_equal(space["crop"](photo, box), crop_image(photo, box, 256))
        assert np.array_equal(space["crop"](mask, box), crop_mask(encode(mask), box, 256))
        assert np.array_equal(space["crop"](mask, box), crop_labels(mask, box, 256))


# --- B4: ranks -----------------------------------------------------------------------------------------------------


def test_ranks_follow_the_printed_rule_and_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = tmp_path / "val"
    samples = make_split(split, 30, 1)
    folders = [submit(tmp_path / f"m{k}", noisy(samples, 3 + k % 3, k), split) for k in range(8)]
    ranks = []
    for seed in range(2):
        monkeypatch.setattr(bootstrap, "seed_of", lambda *keys, s=seed: hashing.seed_of(*keys, s))
        for folder in folders:
            score(folder, split, tmp_path / f"b{seed}")
        (board,) = boards_of(load_runs(tmp_path / f"b{seed}")[0])
        ranks.append({m: [s.rank for _, s in sorted(k.items())] for m, k in board.places.items()})
    assert ranks[0] == ranks[1]
    assert len({tuple(r) for r in ranks[0].values()}) > 1 and any(len(set(r)) < 8 for r in ranks[0].values())
    for metric, found in board.places.items():  # the rule, computed again
        order = sorted(found, key=lambda k: (found[k].rank, k))
        values = [board.runs[k].scores[metric, "all"].value for k in order]
        shares = [board.runs[k].shares[metric] for k in order]
        leader, expected = 0, [1]
        for place in range(1, len(order)):
            gap = abs(values[place] - values[leader])
            reach = 2.045 * np.sqrt(((shares[place] - shares[leader]) ** 2).sum())  # t of 29 degrees of freedom
            leader = leader if gap <= reach else place
            expected.append(expected[leader] if leader < place else place + 1)
        assert [found[k].rank for k in order] == expected


def test_the_paired_interval_is_the_limit_of_the_paired_bootstrap(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200), rng.random(200) * 0.5 + 0.3
    rows = [np.stack([v, np.ones(200)], 1) for v in (a, b)]
    shares = [bootstrap._ratio_shares(r, np.arange(200)) for r in rows]
    one, two = (bootstrap.Estimate(v.mean(), 0, 0, s) for v, s in zip((a, b), shares, strict=True))
    _, low, high = bootstrap.difference(one, two)
    drawn = rng.integers(0, 200, (20_000, 200))
    assert np.percentile((a - b)[drawn].mean(1), [2.5, 97.5]) == pytest.approx([low, high], abs=0.003)


# --- B5: what input unfolds to -------------------------------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def head(side: int = 256, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)


DATA, END = (b"IDAT", zlib.compress(bytes(256 * (1 + 256 * 3)))), (b"IEND", b"")


def test_pictures_are_judged_by_what_is_decoded() -> None:
    assert picture_of(png(head(), (b"tEXt", b"a\0b"), DATA, END), "x").shape == (256, 256, 3)
    one = (b"IDAT", zlib.compress(bytes(4)))
    for chunks in (
        (head(), head(1), one, END), (head(1), head(), DATA, END), ((b"tEXt", b"a\0b"), head(), DATA, END),
        (head(14_000), DATA, END), (head(depth=16), DATA, END), (head(colour=6), DATA, END), (head(1), one, END),
        (head(), (b"tRNS", b"\0" * 6), DATA, END), (head(), DATA), (head(), one, END), (DATA, head(), END),
        (head(), (b"acTL", b"\0" * 8), DATA, END), ((b"IHDR", head()[1] + b"\0" * 9), DATA, END),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^x?.+"):
            picture_of(png(*chunks), "x")
    broken = bytearray(png(head(), DATA, END))
    broken[-20] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        picture_of(bytes(broken), "x")


def heavy(kind: str, folder: Path) -> Path:
    """A file of at most 20 MB that unfolds to much more."""
    size = 20_000_000
    path = folder / ("predictions.parquet" if kind.startswith("table") else "predictions.json")
    texts = {
        "lists": lambda: b"[" + b"[]," * (size // 3) + b"[]]",
        "objects": lambda: b"[" + b"{}," * (size // 3) + b"{}]",
        "deep": lambda: b"[" * (size // 2) + b"]" * (size // 2),
        "inside": lambda: b'[{"sample_id":"a","amodal":{"size":' + b"[" + b"[]," * (size // 3) + b"[]]}}]",
        "nested": lambda: b'[{"amodal":[' + b'{"":{}},' * (size // 8) + b"{}]}]",
        "keys": lambda: b"{" + b",".join(b'"%x":{}' % k for k in range(size // 12)) + b',"predictions":[]}',
        "id": lambda: b'[{"sample_id":"' + b"x" * size + b'"}]',
    }
    if kind in texts:
        path.write_bytes(texts[kind]())
    elif kind == "table of one value":
        names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 10_000_000]))
        pq.write_table(pa.table({"sample_id": names}), path, compression="zstd", store_schema=False)
    elif kind == "table of one list":
        counts = pa.ListArray.from_arrays([0, 40_000_000], pa.array(np.zeros(40_000_000, np.int64)))
        mask = pa.StructArray.from_arrays([counts, counts], ["size", "counts"])
        pq.write_table(pa.table({"sample_id": ["a"], "amodal": mask}), path, compression="zstd")
    return path


KINDS = ("lists", "objects", "deep", "inside", "nested", "keys", "id", "table of one value", "table of one list")


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_takes_more_than_a_gigabyte(world: World, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    assert heavy(kind, folder).stat().st_size <= 20_000_100
    code = f"""
import resource, sys
from benchmark.commands import validate
try:
    validate(["{folder}", "--split", "{world[0]}"])
except ValueError as e:
    assert len(str(e)) < 3000, len(str(e))
    print("refused", e)
mine = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]  # getrusage counts the process before exec
kib = max(int(mine), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
assert kib < 1_000_000, kib
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout


@pytest.mark.parametrize("name", ["predictions.json", "predictions.parquet", "run.json", "x.png"])
def test_a_pipe_is_never_waited_for(world: World, tmp_path: Path, name: str) -> None:
    split, samples = world
    folder = painted(tmp_path / "m", samples)
    rows = [{"sample_id": samples[0].sample_id, "image": "x.png"}]
    (folder / "predictions.parquet").unlink()
    if not name.startswith("predictions"):
        (folder / "predictions.json").write_text(json.dumps(rows))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    if name == "x.png":
        assert score(folder, split, tmp_path / "b").problems.counts == {"bad_picture": 1}
        return
    with pytest.raises(UserError, match="plain file"):
        score(folder, split, tmp_path / "b")


def test_long_paths_and_sizes_give_short_lines(world: World, tmp_path: Path) -> None:
    split, samples = world
    rows: list[dict[str, Any]] = [{"sample_id": s.sample_id, "image": "a/" * 3_000_000} for s in samples[:2]]
    rows += [{"sample_id": samples[2].sample_id, "amodal": {"size": [1] * 2_000_000, "counts": "1"}}]
    rows += [{"sample_id": s.sample_id, "image": i} for s, i in zip(samples[3:], ("\0", ["x"]), strict=False)]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "predictions.json").write_text(json.dumps(rows))
    scored = score(tmp_path / "m", split, tmp_path / "b")
    assert scored.problems.counts == {"bad_mask": 1, "bad_path": 4}
    assert all(len(str(p)) < 600 for p in scored.problems)


# --- B6: scores stay as they were scored ---------------------------------------------------------------------------


def test_one_bad_submission_ends_no_scoring(world: World, tmp_path: Path) -> None:
    split, samples = world
    good, bad = submit(tmp_path / "good", by_rule(samples, "given"), split), tmp_path / "bad"
    bad.mkdir()
    (bad / "predictions.json").write_text("{")
    call = [str(bad), str(good), "--split", str(split), "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(commands.score, call)
    assert isinstance(done.exception, UserError) and "1 of 2 submissions" in str(done.exception)
    assert [r.model for r in load_runs(tmp_path / "b")[0]] == ["good"]


@pytest.mark.parametrize("how", ["cut", "figures", "score.json", "foreign", "pipe"])
def test_changed_and_foreign_scores_are_left_out_and_named(world: World, tmp_path: Path, how: str) -> None:
    split, samples = world
    boards = tmp_path / "b"
    score(submit(tmp_path / "honest", by_rule(samples, "given"), split), split, boards)
    run = score(submit(tmp_path / "other", noisy(samples, 4, 1), split), split, boards).folder
    if how == "cut":
        (run / "samples.parquet").write_bytes((run / "samples.parquet").read_bytes()[:-9])
    elif how == "figures":
        (run / "scores.parquet").write_bytes(next(boards.glob("honest-*/scores.parquet")).read_bytes())
    elif how == "score.json":
        files.write_json(run / "score.json", files.read_json(run / "score.json") | {"model": "best"})
    elif how == "foreign":
        shutil.copytree(run, boards / "winner-00000000")
    else:
        (run / "score.json").unlink()
        os.mkfifo(run / "score.json")
    runs, left_out = load_runs(boards)
    assert len(left_out) == 1 and len(runs) == (2 if how == "foreign" else 1)
    done = CliRunner().invoke(commands.report, ["--boards", str(boards)])
    assert done.exit_code == 0 and "left out" in done.output
    page = (boards / "report" / "leaderboard.html").read_text()
    assert "Left out: " + next(iter(left_out)) in page


def test_a_submission_changed_after_scoring_is_marked(world: World, tmp_path: Path) -> None:
    split, samples = world
    one, two = submit(tmp_path / "one", by_rule(samples, "given"), split), painted(tmp_path / "two", samples)
    for folder in (one, two):
        score(folder, split, tmp_path / "b")
    assert not any(r.marks for r in load_runs(tmp_path / "b")[0])
    submit(one, by_rule(samples, "truth"), split)
    images.write_png(next(two.glob("*.png")), paint(samples[0])[0])
    assert [r.marks for r in load_runs(tmp_path / "b")[0]] == [["changed after it was scored"]] * 2
    write_report(tmp_path / "b", tmp_path / "r")
    shutil.rmtree(one)
    assert load_runs(tmp_path / "b")[0][0].marks == []  # moved away is not changed


# --- B7: claims ----------------------------------------------------------------------------------------------------


def test_claims_are_cut_bounded_and_marked(world: World, tmp_path: Path) -> None:
    split, samples = world
    speed = {"parameters": 1e6, "flops": "fast", "ms_per_person": 1e300, "people_per_second": 1e12,
             "peak_memory_mb": -5, "device": "H200 (verified)\x1b[2J" * 50}  # fmt: skip
    folder = submit(tmp_path / "m", by_rule(samples, "given"), split)
    run = {"model": "人" * 200, "recipe": "x" * 60_000, "device": "\x1b]0;owned\x07", "task": ["mask"], "speed": speed,
           "aids": ["a=1", {"b": 2}], "in_paper": False, "unknown": "y" * 100}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    scored = score(folder, split, tmp_path / "b")
    assert scored.problems.counts["bad_claim"] == 5 and len(scored.folder.name.encode()) < 120
    record = (scored.folder / "score.json").read_text()
    assert len(record) < 30_000 and "NaN" not in record and "Infinity" not in record and "\x1b" not in record
    claims = json.loads(record)["run"]
    assert (
        claims["speed"].keys() == {"parameters", "device"}
        and len(claims["recipe"]) == 80
        and len(claims["model"]) == 80
    )
    write_report(tmp_path / "b", tmp_path / "r")
    page = (tmp_path / "r" / "leaderboard.html").read_text()
    assert "x" * 81 not in page and "with aids: a=1; not in the paper (self-reported)" in page
    assert "self-reported" in page.partition('id="speed"')[2] and "1e+12" not in page
    board = json.loads((tmp_path / "r" / "leaderboard.json").read_text(), parse_constant=pytest.fail)
    assert board["speed"][0]["self_reported"]


# --- B8, B9: tables and numbers ------------------------------------------------------------------------------------


def table(samples: list[Sample], **columns: Any) -> pa.Table:
    masks = [rle(p) for p in by_rule(samples, "given")]
    return pa.table({"sample_id": [s.sample_id for s in samples], "amodal": masks} | columns)


def test_quirks_of_parquet(world: World, tmp_path: Path) -> None:
    split, samples = world
    plain = table(samples)
    views = plain.set_column(0, "sample_id", plain["sample_id"].cast(pa.string_view()))
    strange = pa.array([2**62] * len(samples), pa.timestamp("us", "Mars/Olympus"))
    category = plain.set_column(0, "sample_id", plain["sample_id"].dictionary_encode())
    good = {"views": views, "category": category, "unused": plain.append_column("at", strange),
            "nulls": plain.append_column("image", pa.nulls(len(samples)))}  # fmt: skip
    for name, made in good.items():
        pq.write_table(made, tmp_path / f"{name}.parquet")
        assert figures(score(tmp_path / f"{name}.parquet", split, tmp_path / "b"))["iou_amodal"].n == len(samples), name
    bad = {"twice": plain.append_column("amodal", plain["amodal"]), "times": plain.append_column("seconds", strange),
           "text": plain.set_column(1, "amodal", pa.array(["x"] * len(samples))),
           "none": plain.set_column(1, "amodal", pa.array([{"a": 1}] * len(samples))),
           "ids": plain.set_column(0, "sample_id", strange)}  # fmt: skip
    for name, made in bad.items():
        pq.write_table(made, tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match="expected .* column"):
            score(tmp_path / f"{name}.parquet", split, tmp_path / "b")


def test_a_key_that_is_missing_is_named_with_those_found(world: World, tmp_path: Path) -> None:
    split, samples = world
    rows = [{"image_id": 7, "category_id": 1, "segmentation": rle(p), "score": 1.0} for p in by_rule(samples, "given")]
    (tmp_path / "coco.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"expected the key sample_id .* such as val/0000#0.*image_id, category_id"):
        score(tmp_path / "coco.json", split, tmp_path / "b")
    (tmp_path / "coco.json").write_text(json.dumps([{"sample_id": "7.png", "amodal": rows[0]["segmentation"]}]))
    with pytest.raises(UserError, match=r"such as val/0000#0, the first one's is 7.png"):
        score(tmp_path / "coco.json", split, tmp_path / "b")
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": rows}))
    with pytest.raises(UserError, match="under the key predictions, found the keys images, annotations"):
        Submission(tmp_path / "coco.json")


@pytest.mark.parametrize("value", [
    {"size": [256.5, 256], "counts": [65536]}, {"size": [256, 256], "counts": [100.7, 65435.3]},
    {"size": [256, 256], "counts": [True, 65535]}, {"size": ["256x", 256], "counts": [65536]},
    {"size": [256, 256, 3], "counts": [65536]}, {"size": [256, 256], "counts": [float("nan")]}, {"counts": [65536]},
    {"size": [256, 256], "counts": [0] * 300_000 + [65536]}, {"size": [256, 256]},
])  # fmt: skip
def test_no_number_is_rounded(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".{5,300}") as e:
        mask_of(value)
    assert len(str(e.value)) < 300
