"""``ahp build`` from the outside: what a user types, what comes out, what stands already, what goes wrong."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ahp_toolkit.cli import main
from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Human, Occluder, Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.decisions.merge import Merge
from ahp_toolkit.occlusion.place import ratio_of
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.stages.report import Report, renderer_of
from ahp_toolkit.storage import images, parquet
from tests.stages.test_harvest import coco, photo


def people(i: int) -> list[dict]:
    """Two people who stand apart and a dog."""
    x = 10 + i % 7
    return [
        {"box": (x, 20, x + 30, 100)},
        {"box": (x + 60, 10, x + 85, 90)},
        {"box": (x + 100, 60, x + 120, 90 + i % 5), "category_id": 18},
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "coco"
    return coco(root, {i: people(i) for i in range(1, 31)}, {i: photo(100 + i) for i in range(1, 31)})


def ahp(*words: object) -> str:
    """Run the command line in this process; a UserError comes out as it is."""
    result = CliRunner().invoke(main.ahp, [str(w) for w in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def build(data: Path, out: Path, *more: object) -> str:
    words = ("build", "--source", f"coco={data}", "--out", out, "--review", "provisional", "-q", "--workers", 1)
    return ahp(*words, *more)


@pytest.fixture(scope="module")
def built(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build(data, out)
    return out


def digests(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): hashing.digest_file(p) for p in sorted(out.glob("splits/**/*.parquet"))}


def samples(out: Path, split: str) -> list[Sample]:
    return list(parquet.read_records(out / "splits" / split, Sample))


def test_splits_have_the_asked_bins_and_true_ratios(built):
    val = samples(built, "val")
    humans = {h.human_id: h for h in parquet.read_records(built / "splits" / "val" / "humans", Human)}
    assert len(val) == 3 * len(humans) == 36
    assert [sum(s.bin == b for s in val) for b in range(4)] == [9, 9, 9, 9]
    edges = [(0, 0.1), (0.1, 0.2), (0.3, 0.4), (0.4, 0.5)]
    for s in val:
        low, high = edges[s.bin]
        assert low <= s.occlusion_ratio < high and s.occlusion_ratio > 0
        assert s.amodal == humans[s.human_id].mask
        assert s.provisional
        box = s.amodal.box
        assert s.crop.x0 <= box.x0 and box.x1 <= s.crop.x1 and s.crop.width == s.crop.height


def test_each_human_has_distinct_occluders(built):
    by_human: dict[str, list[str]] = {}
    for s in samples(built, "val"):
        by_human.setdefault(s.human_id, []).append(s.placements[0].occluder_id)
    assert all(len(set(ids)) == len(ids) == 3 for ids in by_human.values())


def test_no_photo_stands_in_two_splits(built):
    photos: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        records = [*samples(built, split), *parquet.read_records(built / "splits" / split / "occluders", Occluder)]
        photos[split] = {r.image.photo for r in records}
    assert not photos["train"] & photos["val"] and not photos["train"] & photos["test"]
    assert not photos["val"] & photos["test"]


def test_the_recorded_ratio_is_the_one_on_the_final_pixels(built):
    render = renderer_of(built)
    occluders = {o.occluder_id: o for o in parquet.read_records(built / "splits" / "val" / "occluders", Occluder)}
    for s in samples(built, "val")[:8]:
        pasted = render(s)
        assert encode(pasted.modal) == s.modal and encode(pasted.amodal) == s.amodal
        tight = [_tight(occluders[p.occluder_id].mask.decode()) for p in s.placements]
        assert ratio_of(pasted.amodal, tight, s.placements) == s.occlusion_ratio
        assert np.array_equal(pasted.recovered[~pasted.amodal], pasted.image[~pasted.amodal])


def _tight(mask):
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def test_the_same_command_again_computes_nothing(data, built):
    before = {p: p.stat().st_mtime_ns for p in built.rglob("*.parquet")}
    said = build(data, built)
    assert said.count("(up to date)") == 7 and str(built / "report" / "index.html") in said
    assert before == {p: p.stat().st_mtime_ns for p in built.rglob("*.parquet")}


def test_another_seed_makes_other_splits_and_nothing_else(data, built, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    said = build(data, out, "--seed", 1)
    fresh = [line.split()[0] for line in said.splitlines() if "->" in line and "up to date" not in line]
    assert fresh == ["train", "val", "test"]
    for split in ("train", "val", "test"):
        assert {s.digest for s in samples(out, split)}.isdisjoint({s.digest for s in samples(built, split)})


def test_two_workers_make_the_same_bytes(data, built, tmp_path):
    build(data, tmp_path / "two", "--workers", 2)
    assert digests(tmp_path / "two") == digests(built)


def test_peoples_decisions_replace_the_rule(data, built, tmp_path):
    from ahp_toolkit.core.records import Decision
    from ahp_toolkit.decisions import log as decisions
    from ahp_toolkit.decisions.candidates import Candidates

    human = samples(built, "val")[0].human_id
    shown = Candidates(built).mask_digests([human])[human]
    log = tmp_path / "ann.jsonl"
    decisions.append(log, Decision(human, "discard", "ann", shown, "other"))
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    build(data, out, "--decisions", log)
    kept = {h.human_id for h in parquet.read_records(out / "review", Human)}
    assert human not in kept and len(kept) == 59


def reviewed(out: Path) -> dict[str, str]:
    """The page's first table on the review: humans by what is said of them."""
    page = (out / "report" / "index.html").read_text()
    section = page[page.index('<section id="review">') :]
    rows = section[: section.index("</table>")].split("<tr>")
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    return {c[0].strip(): c[1] for c in cells if c}


def test_the_page_says_of_the_review_what_the_build_made_of_it(data, built, tmp_path):
    from ahp_toolkit.core.records import Decision, Segmented
    from ahp_toolkit.decisions import log as decisions
    from ahp_toolkit.decisions import proposals

    first, other = list(parquet.read_records(built / "parse", Segmented))[:2]
    one, shown = first.candidate.candidate_id, first.mask.digest
    out, bob = tmp_path / "copy", tmp_path / "bob.jsonl"
    shutil.copytree(built, out)
    decisions.append(out / "decisions/ann.jsonl", Decision(one, "preserve", "ann", shown))
    decisions.append(bob, Decision(one, "discard", "bob", shown, "other"))
    build(data, out, "--merge", "unanimous", "--decisions", bob)
    said = reviewed(out)
    assert said["reviewers disagree"] == "1" and said["decided by people"] == "0"
    ahp("build", "report", "--root", out, "--decisions", bob)
    assert reviewed(out) == said
    assert "made without the decisions of bob.jsonl" in ahp("build", "report", "--root", out)
    assert reviewed(out)["preserve"] == "1"
    build(data, out, "--decisions", bob)  # the same decisions, another rule
    assert reviewed(out)["discard"] == "1"
    proposals.propose(out, [replace(first, mask=other.mask)])
    with LocalEngine(1) as engine:
        assert Report(out, 0, Merge(), (bob,)).run(engine).fresh
    assert reviewed(out)["back with a new mask"] == "1"


@pytest.mark.parametrize("fmt", ["cocoa", "kins", "ahp", "webdataset"])
def test_export(built, tmp_path, fmt):
    said = ahp("build", "export", "--root", built, "--format", fmt, "--split", "val", "--out", tmp_path / fmt)
    made = [Path(line) for line in said.split() if line.startswith("/")]
    assert made and all(p.exists() for p in made)


def test_cocoa_is_read_by_pycocotools(built, tmp_path):
    from pycocotools.coco import COCO

    ahp("build", "export", "--root", built, "--format", "cocoa", "--split", "val", "--out", tmp_path)
    read = COCO(str(tmp_path / "annotations" / "val_amodal.json"))
    assert len(read.anns) == 36
    areas = sorted(int(read.annToMask(a).sum()) for a in read.anns.values())
    assert areas == sorted(s.amodal.area for s in samples(built, "val"))


def test_materialize_writes_checked_pixels(built, tmp_path):
    ahp("build", "materialize", "--root", built, "--out", tmp_path, "--split", "test", "--workers", 1)
    wrote = sorted((tmp_path / "test").glob("*/*.png"))
    assert len(wrote) == 6 * len(samples(built, "test"))
    left = next(p for p in (tmp_path / "test").iterdir() if p.is_dir()) / ".amodal.png.01234567.tmp"
    left.write_bytes(b"of a killed run")
    ahp("build", "materialize", "--root", built, "--out", tmp_path, "--split", "test", "--workers", 1)
    assert not left.exists()
    ahp("build", "materialize", "--root", built, "--what", "crops", "--split", "val", "--workers", 1)
    crops = built / "splits" / "val" / "crops"
    assert len(list(crops.glob("*.png"))) == 5 * 36
    for sample in samples(built, "val"):
        name = file_stem(sample.sample_id)
        for what, mask in (("given", sample.given.mask), ("amodal", sample.amodal), ("modal", sample.modal)):
            written = images.read(crops / f"{name}.{what}.png")[..., 0] == 255
            assert (written == crop_mask(mask, sample.crop, 256)).all()


def test_a_photo_that_changed_since_is_not_passed_off_as_the_same(data, built, tmp_path):
    moved = tmp_path / "coco"
    shutil.copytree(data, moved)
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    about = json.loads((out / "build.json").read_text())
    (out / "build.json").write_text(json.dumps(about | {"roots": {"coco": str(moved)}}))
    victim = samples(out, "test")[0]
    path = moved / victim.image.path
    path.write_bytes((moved / samples(out, "train")[0].image.path).read_bytes())
    said = ahp("build", "materialize", "--root", out, "--out", tmp_path / "m", "--split", "test", "--workers", 1)
    every, written = len(samples(out, "test")), len(list((tmp_path / "m" / "test").iterdir()))
    assert written < every and f"{every} samples -> {written} written" in said
    assert str(tmp_path / "m" / "test") in said.splitlines() and ".written" not in said
    marks = list((tmp_path / "m").glob(".test.written/dropped.parquet"))
    dropped = parquet.read_table(marks[0]).to_pylist()
    assert victim.sample_id in {d["id"] for d in dropped} and {d["reason"] for d in dropped} == {"image_changed"}


def test_scenes_by_file_and_by_a_places365_checkpoint(data, built, tmp_path):
    import torch
    import torchvision

    torch.manual_seed(0)
    state = {f"module.{k}": v for k, v in torchvision.models.resnet18(num_classes=365).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet18_places365.pth.tar")
    (tmp_path / "names.txt").write_text("".join(f"/s/scene{i} {i}\n" for i in range(365)))
    (tmp_path / "scenes.csv").write_text("image_id,scene\ncoco/000000000007,beach\n")
    by_net = tmp_path / "net"
    shutil.copytree(built, by_net)
    build(data, by_net, "--places365", tmp_path / "resnet18_places365.pth.tar", tmp_path / "names.txt")
    assert all(h.scene.startswith("scene") for h in parquet.read_records(by_net / "review", Human))
    by_file = tmp_path / "file"
    shutil.copytree(built, by_file)
    build(data, by_file, "--scenes", tmp_path / "scenes.csv")
    found = {h.image.image_id for h in parquet.read_records(by_file / "review", Human) if h.scene == "beach"}
    assert found == {"coco/000000000007"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build"], "expected --source FORMAT=PATH"),
        (["build", "--source", "cocoo=."], "did you mean coco?"),
        (["build", "--source", "coco"], "expected [NAME:]FORMAT=PATH"),
        (["build", "--source", "coco=/nowhere/at/all"], "/nowhere/at/all is none"),
        (["build", "--source", "coco=.", "--out", "o", "--density", "val=0.5-0.1"], "expected 0 <= low < high <= 1"),
        (["build", "export", "--root", "/nowhere", "--format", "cocoa"], "expected a build folder"),
        (["build", "export", "--root", "BUILT", "--format", "coca"], "did you mean cocoa?"),
        (["build", "materialize", "--root", "/nowhere"], "expected a build folder"),
    ],
)
def test_a_users_mistake_is_one_line(built, words, said):
    words = [str(built) if w == "BUILT" else w for w in words]
    with pytest.raises(UserError) as e:
        ahp(*words)
    assert said in str(e.value) and "\n" not in str(e.value)


def test_a_folder_that_is_no_dataset_and_a_cut_json(tmp_path, data, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty"):
        build(tmp_path / "empty", tmp_path / "o1")
    cut = tmp_path / "cut"
    shutil.copytree(data, cut)
    path = cut / "annotations" / "instances_train2017.json"
    path.write_bytes(path.read_bytes()[:-500])
    monkeypatch.setattr("sys.argv", ["ahp", "build", "--source", f"coco={cut}", "--out", str(tmp_path / "o2")])
    with pytest.raises(SystemExit) as e:
        main.main()
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert e.value.code == 2 and said.startswith("ahp: ") and "instances_train2017.json" in said
