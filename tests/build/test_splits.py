"""Banks and frozen splits: whose instances occlude, how many a split gets, what it depends on and leaves out."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from ahp_toolkit.build.config import Synthesis
from ahp_toolkit.cli import main
from ahp_toolkit.core import hashing, masks
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import SPLITS, Dropped, ImageRef, Occluder, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.occlusion.place import Settings
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.report import statistics
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.runtime.stage import Result
from ahp_toolkit.sample_world import write_world
from ahp_toolkit.stages import bank, composites, synthesize
from ahp_toolkit.stages.materialize import WrittenSample
from ahp_toolkit.stages.review import Thresholds
from ahp_toolkit.stages.synthesize import OVER_SIZE, Initial
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.build_folder import Build
from tests import fake_build
from tests.build.steps import config
from tests.cli.small import data, words

CUT = Thresholds(0.05, 0.06)
MASK = masks.encode(np.ones((4, 4), np.bool_))


def occluder(source: str, i: int, area: int) -> Occluder:
    image = ImageRef(f"{source}/{i}", source, f"{i}.jpg", 4, 4, photo=f"{source}/{i // 2}" if i % 3 else "")
    return Occluder(f"{source}/{i}#1", image, "cup", MASK.box, MASK, area)


def harvested(root: Path) -> tuple[Path, list[Occluder]]:
    """A build with 4,500 occluders of two sources; two of three share their photo's key, a tenth is too small."""
    made = [
        occluder(s, i, 299 if i % 10 == 0 else 300) for s, n in (("coco", 3000), ("openimages", 1500)) for i in range(n)
    ]
    out = fake_build.make(root)
    for k in range(3):
        parquet.write_records(out / f"harvest/occluders/part-{k:05d}.parquet", made[k::3], Occluder)
    return out, made


def banks(out: Path) -> dict[str, list[Occluder]]:
    return {s: list(parquet.read_records(out / "bank" / s, Occluder)) for s in SPLITS}


def banked(out: Path, sources: tuple[str, ...], s: Synthesis) -> Result:
    c = config(out, dict.fromkeys(sources, out), synthesis=s)
    wanted = bank.Wanted(s.occluder_sources_of(c.formats, {}), s.min_occluder, s.bank_size)
    with LocalEngine(1) as engine:
        return bank.stage(out, CUT, wanted).run(engine, quiet=True)


@pytest.fixture(scope="module")
def harvest(tmp_path_factory) -> tuple[Path, list[Occluder]]:
    return harvested(tmp_path_factory.mktemp("harvest"))


def test_each_bank_has_the_size_asked_for_or_all_there_is(harvest):
    out, made = harvest
    banked(out, ("coco", "openimages"), Synthesis(bank_size=500))
    possible: dict[str, set[str]] = defaultdict(set)
    for o in made:
        if o.area >= 300 and o.image.source == "coco":
            possible[CUT.split(o.image.photo or o.image.image_id)].add(o.occluder_id)
    got = {s: {o.occluder_id for o in found} for s, found in banks(out).items()}
    assert 20 < len(possible["test"]) < len(possible["val"]) < 500 < len(possible["train"])
    assert got["val"] == possible["val"] and got["test"] == possible["test"]
    assert got["train"] < possible["train"] and abs(len(got["train"]) - 500) < 5 * 500**0.5
    parts = [str(p) for p in parquet.parts(out / "harvest/occluders")]
    share = bank.shares(parts, CUT.split, ["coco"], 300, 500)
    assert share == {"train": 500 / len(possible["train"]), "val": 1.0, "test": 1.0}


def test_a_bank_made_anew_is_read_anew(tmp_path):
    for n in (3, 5):
        parquet.write_records(tmp_path / "part-00000.parquet", [occluder("coco", i, 300) for i in range(n)], Occluder)
        assert len(bank.read_bank(str(tmp_path))) == n
        assert bank.occluder_by_id(str(tmp_path), f"coco/{n - 1}#1").area == 300


@pytest.mark.parametrize(
    ("build", "asked", "found"),
    [
        (("coco", "openimages"), (), {"coco"}),
        (("openimages",), (), {"openimages"}),
        (("coco", "openimages"), ("openimages",), {"openimages"}),
        (("coco", "openimages"), ("all",), {"coco", "openimages"}),
    ],
)
def test_occluders_are_cocos_unless_others_are_asked_for(harvest, build, asked, found):
    out, _ = harvest
    r = banked(out, build, Synthesis(occluder_sources=asked))
    assert {o.image.source for some in banks(out).values() for o in some} == found
    assert {k.partition("/")[2] for k in r.counts if k.startswith("kept/")} == found and r.counts["read"] == 4500


def test_a_coco_without_masks_leaves_the_occluders_to_all_sources(tmp_path):
    write_world(tmp_path / "w", seed=0, scenes=24)
    for path in (tmp_path / "w/coco/annotations").glob("instances_*.json"):
        coco = json.loads(path.read_text())
        for a in coco["annotations"]:
            a["segmentation"] = []
        path.write_text(json.dumps(coco))
    sources = [f"--source={n}={tmp_path / 'w' / n}" for n in ("coco", "voc_sbd")]
    words_ = ("build", *sources, "--out", tmp_path / "o", "--review", "provisional", "--workers", 1, "-q")
    said = run(*words_, "--stop-after", "splits")
    assert said.count("bank: coco has no masks, those of coco, voc_sbd occlude; --occluder-source names others") == 1
    assert list(parquet.read_records(tmp_path / "o/splits/train", Sample))
    about = json.loads((tmp_path / "o/build.json").read_text())
    assert about["options"]["occluder_sources"] == ["coco", "voc_sbd"]
    assert "bank:" not in run(*words_, "--stop-after", "splits")
    run(*words_, "--occluder-source", "coco", "--stop-after", "splits")
    assert not any(banks(tmp_path / "o").values())


def keys_of(monkeypatch, tmp_path: Path, name: str, initial: str) -> list[tuple[str, str]]:
    """(digest of the key, of its code) of a split for two trainings of a network, at one path."""
    out, weights, seen = fake_build.make(tmp_path), tmp_path / "net.pt", []
    monkeypatch.setattr(synthesize, "digest_of", lambda folder: "d")
    c = SimpleNamespace(proposal_id="p", human=next(iter(Build(out).humans())))
    monkeypatch.setattr(composites, "passed", lambda *_: [c])
    for content in (b"first training", b"second training"):
        weights.write_bytes(content)
        made_by = Initial(initial, str(weights))
        if name == "composites":
            job = composites.stage(out, initial=made_by).job
        else:
            job = synthesize.stage(out, synthesize.Wanted(name, "val", 3, None, 0), Settings(), made_by, {}).job
        seen.append((job.key_digest, job.key["code"]))
    return seen


@pytest.mark.parametrize("name", ["val", "composites"])
def test_a_split_depends_on_the_initial_networks_content_and_code(monkeypatch, tmp_path, name):
    (first, code), (second, _) = keys_of(monkeypatch, tmp_path / "a", name, "centermask")
    assert first != second
    (first, plain), (second, _) = keys_of(monkeypatch, tmp_path / "b", name, "simulated")
    assert first == second and plain != code


@pytest.mark.parametrize("maker", ["simulated", "centermask"])
def test_where_a_network_runs_and_options_of_other_makers_are_no_part_of_a_splits_key(tmp_path, maker):
    weights = tmp_path / "net.pt"
    weights.write_bytes(b"net")
    key = Initial(maker, str(weights)).key()
    assert key == Initial(maker, str(weights), device="cuda").key() != Initial("simulated", iou=0.5).key()
    other = Initial(maker, iou=0.9, weights=str(weights)) if maker == "centermask" else Initial(maker, weights="other")
    assert key == other.key()


def run(*args: object) -> str:
    result = CliRunner().invoke(main.ahp, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[list[str], Path]:
    """The words of a build of 24 photos with two people each, and its folder."""
    folder = tmp_path_factory.mktemp("small")
    args = words(data(folder / "coco", 24), folder / "o", "-q", "--stop-after", "splits")
    said = run(*args)
    assert "replaces" not in said and json.loads((folder / "o/build.json").read_text())["options"][
        "occluder_sources"
    ] == ["coco"]
    return args, folder / "o"


def ids(out: Path, table: str, cls: type, column: str) -> set[str]:
    return {getattr(r, column) for r in parquet.read_records(out / table, cls)}


def test_people_beyond_the_size_are_dropped_with_a_reason(built, tmp_path):
    args, out = built
    copy = tmp_path / "o"
    shutil.copytree(out, copy)
    args = [str(copy) if a == str(out) else a for a in args]
    said = run(*args, "--val-humans", 7)
    lines = said.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("val "))
    assert "8 people -> 21 samples" in lines[at] and "dropped: 1 beyond_the_size" in lines[at + 1]
    over = [d for d in parquet.read_records(copy / "splits/val/dropped.parquet", Dropped) if d.reason == OVER_SIZE]
    used = ids(copy, "splits/val", Sample, "human_id")
    assert len(over) == 1 and over[0].id not in used and len(used) == 7 and over[0].source == "coco"
    made = statistics.tables(Build(copy))
    row = made["splits"].set_index("split").loc["val"]
    assert row["humans"] == 8 and row["samples"] == 21
    assert made["drops"].query("stage == 'splits/val' and reason == @OVER_SIZE")["count"].tolist() == [1]

    run(*args, "--val-humans", 7, "--fold", "1/2")  # a fold's people are all of its photos'
    people = {h.human_id for h in Build(copy).humans("val") if h.verdict == "preserve"}
    assert len(people) > 14 and ids(copy, "splits/val", Sample, "human_id") == people


def test_a_frozen_split_that_gives_way_is_told_and_its_copy_stays(built, tmp_path):
    args, out = built
    copy = tmp_path / "o"
    shutil.copytree(out, copy)
    args = [str(copy) if a == str(out) else a for a in args]
    assert "replaces" not in run(*args)
    shutil.copytree(copy / "splits/val", copy / "splits/val_1")
    before = {p.name: hashing.digest_file(p) for p in (copy / "splits/val_1").rglob("*.parquet")}
    was = ids(copy, "splits/val", Sample, "human_id")
    told = [line for line in run(*args, "--val-humans", 4).splitlines() if "replaces" in line]
    assert len(told) == 2  # test begins where val ends
    stayed = len(ids(copy, "splits/val", Sample, "human_id"))
    assert told[0].startswith(f"val: replaces the val of before, {stayed} of its {len(was)} humans stayed;")
    assert before == {p.name: hashing.digest_file(p) for p in (copy / "splits/val_1").rglob("*.parquet")}
    kept = copy / "splits/val_1"
    render = Renderer(json.loads((copy / "build.json").read_text())["roots"], kept)
    assert all(render(s).image.any() for s in parquet.read_records(kept, Sample))
    part = next((copy / "splits/val/occluders").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-9])
    assert "replaces" not in run(*args, "--val-humans", 4)  # mended: the same split again


def test_a_frozen_split_stays_while_its_photos_are_away_and_crops_of_the_same_split_stay(built, tmp_path):
    args, out = built
    copy, data_ = tmp_path / "o", tmp_path / "coco"
    shutil.copytree(out, copy)
    shutil.copytree(out.parent / "coco", data_)
    args = [str(copy) if a == str(out) else a.replace(str(out.parent / "coco"), str(data_)) for a in args]
    run(*args)
    materialize = ("build", "materialize", "--root", copy, "--what", "crops", "--split", "val", "--workers", 1)
    run(*materialize)
    crops = sorted(p.name for p in (copy / "splits/val/crops").iterdir())
    before = {p.name: hashing.digest_file(p) for p in (copy / "splits/val").rglob("part-*.parquet")}
    (data_ / "train2017").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"coco: none of \d+ photos .*/coco/train2017/.*data root"):
        run(*args, "--seed", 1)
    assert before == {p.name: hashing.digest_file(p) for p in (copy / "splits/val").rglob("part-*.parquet")}
    assert crops == sorted(p.name for p in (copy / "splits/val/crops").iterdir())
    (tmp_path / "away").rename(data_ / "train2017")
    said = json.loads((copy / "splits/val/stage.json").read_text())
    said.pop("check")
    (copy / "splits/val/stage.json").write_bytes(files.sealed(said | {"key_digest": "of another version"}))
    assert "replaces" not in run(*args)  # made anew, to the same bytes
    assert crops == sorted(p.name for p in (copy / "splits/val/crops").iterdir())


def test_pictures_of_a_missing_photo_go_and_damaged_ones_are_written_again(built, tmp_path):
    _, out = built
    copy, root, to = tmp_path / "o", tmp_path / "coco", tmp_path / "m"
    shutil.copytree(out, copy)
    shutil.copytree(out.parent / "coco", root)
    said = (copy / "build.json").read_text()
    (copy / "build.json").write_text(said.replace(str(out.parent / "coco"), str(root)))
    args = ("build", "materialize", "--root", copy, "--out", to, "--split", "val", "--workers", 1)
    run(*args)
    every = {p.relative_to(to) for p in to.rglob("*.png")}
    (root / "train2017").rename(tmp_path / "away")
    next(to.rglob("occluded.png")).unlink()
    with pytest.raises(UserError, match=r"coco: none of \d+ photos .*/coco/train2017/.*data root"):
        run(*args)
    assert len(every) - 1 == len(list(to.rglob("*.png")))
    (tmp_path / "away").rename(root / "train2017")
    samples = list(parquet.read_records(copy / "splits/val", Sample))
    gone = root / samples[0].image.path
    data_ = gone.read_bytes()
    gone.unlink()
    occluders = parquet.read_records(copy / "splits/val/occluders", Occluder)
    hidden_by = {o.occluder_id for o in occluders if root / o.image.path == gone}
    lost = {
        file_stem(s.sample_id)
        for s in samples
        if root / s.image.path == gone or s.placements[0].occluder_id in hidden_by
    }
    names = {file_stem(s.sample_id) for s in samples} - lost
    (to / "val" / min(names) / "given.png").unlink()
    for _ in range(2):
        said = run(*args)
        assert f"{len(samples)} samples -> {len(names)} written" in said and f"{len(lost)} image_missing" in said
        assert {p.relative_to(to) for p in to.rglob("*.png")} == {p for p in every if p.parts[1] in names}
        assert {w.name for w in parquet.read_records(to / ".val.written", WrittenSample)} == names
    gone.write_bytes(data_)
    run(*args)
    assert every == {p.relative_to(to) for p in to.rglob("*.png")}


def test_pictures_of_a_former_split_whose_photo_is_away_go(built, tmp_path):
    """They are no pictures of the split that stands: it may hide other pixels."""
    _, out = built
    copy, root, to = tmp_path / "o", tmp_path / "coco", tmp_path / "m"
    shutil.copytree(out, copy)
    shutil.copytree(out.parent / "coco", root)
    text = (copy / "build.json").read_text()
    (copy / "build.json").write_text(text.replace(str(out.parent / "coco"), str(root)))
    args = ("build", "materialize", "--root", copy, "--out", to, "--split", "val", "--workers", 1)
    run(*args)
    said = files.read_sealed(copy / "splits/val/stage.json")
    (copy / "splits/val/stage.json").write_bytes(files.sealed(said | {"digest": "another"}))
    sample = next(iter(parquet.read_records(copy / "splits/val", Sample)))
    (root / sample.image.path).unlink()
    assert "image_missing" in run(*args)
    assert not (to / "val" / file_stem(sample.sample_id)).exists()


def test_materialized_pictures_of_a_former_split_go_and_a_users_files_stay(built, tmp_path):
    _, out = built
    copy, to = tmp_path / "o", tmp_path / "m"
    shutil.copytree(out, copy)
    args = ("build", "materialize", "--root", copy, "--out", to, "--split", "val", "--workers", 1)
    run(*args)
    first = {p.name for p in (to / "val").iterdir()}
    (to / "val/mine.txt").write_text("mine")
    note = to / "val" / min(first) / "mine.txt"
    note.write_text("mine")
    part = parquet.parts(copy / "splits/val")[0]
    kept = list(parquet.read_records(part, Sample))[3:]
    parquet.write_records(part, kept, Sample)
    said = json.loads((copy / "splits/val/stage.json").read_text())
    said.pop("check")
    (copy / "splits/val/stage.json").write_bytes(files.sealed(said | {"digest": "another"}))
    run(*args)
    left = {p.name for p in (to / "val").iterdir() if p.is_dir() and p != note.parent}
    now = {file_stem(s.sample_id) for s in parquet.read_records(copy / "splits/val", Sample)}
    assert left == now - {note.parent.name} and len(first - now) == 3
    assert note.exists() and (to / "val/mine.txt").exists()
