"""Prediction: folders that a judge can read, the cascade, and people in a photograph that nobody has annotated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Dropped, Prediction, Sample
from ahp_toolkit.storage import files, images, parquet
from baselines import commands, complete
from baselines.data.samples import EvalData
from baselines.inference import complete as completing
from baselines.inference.cascade import Masks
from baselines.inference.complete import Completer
from baselines.inference.predict import Options, predict_run
from baselines.training.runs import split_digest
from baselines.training.train import Training, train
from benchmark.grading.claims import SPEED
from tests.baselines.training.world import H, W, drawn


@pytest.fixture(scope="module")
def trained(build: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mask run and a content run, hardly trained."""
    out = tmp_path_factory.mktemp("runs")
    small = {"width": 4, "critic_width": 4, "vgg": "random/8", "templates": 4, "clusters": 4}
    # a network of two steps has half a mind on anything: it is to find somebody
    mask = Training(build, "human_deocclusion", "mask", settings={**small, "threshold": 0.1}, steps=2, batch=4, out=out,
                    quiet=True, device="cpu")  # fmt: skip
    content = replace(mask, task="content", model="pix2pix", settings={"width": 4, "critic_width": 4})
    return train(mask), train(content)


def read(folder: Path) -> list[Prediction]:
    return list(parquet.read_records(folder, Prediction))


def test_a_network_that_finds_nobody_is_one_line(trained: tuple[Path, Path]):
    completer = Completer(*trained, device="cpu")
    completer.mask.net.settings = replace(completer.mask.net.settings, threshold=0.999)
    with pytest.raises(UserError, match="found nobody"):
        completer(drawn(0)[0], mask=drawn(0)[1] > 0)


def test_a_mask_run_answers_every_sample(build: Path, trained: tuple[Path, Path], tmp_path: Path):
    split = build / "splits" / "val"
    folder = predict_run(trained[0], split, tmp_path / "p", options=Options(device="cpu", batch=4, quiet=True))
    found, samples = read(folder), list(parquet.read_records(split, Sample))
    assert [p.sample_id for p in found] == [s.sample_id for s in samples]
    for p in found:
        assert p.amodal is not None and p.modal is not None and p.image is None
        assert (p.amodal.height, p.amodal.width) == (256, 256) and p.seconds is not None and p.seconds > 0
        assert not (p.modal.decode() & ~p.amodal.decode()).any()
    said = json.loads((folder / "run.json").read_text())
    assert said["dataset_digest"] == split_digest(split) and said["model"] == "human_deocclusion"
    assert said["fed_by"] == "nothing" and set(SPEED) <= set(said["speed"]) and min(said["speed"][n] for n in SPEED) > 0
    assert said["perceptual"] == "random/8"
    again = predict_run(trained[0], split, tmp_path / "q", options=Options(device="cpu", batch=4, quiet=True))
    assert [(p.amodal, p.modal) for p in read(again)] == [(p.amodal, p.modal) for p in found]


@pytest.mark.parametrize("cascade", [False, True])
def test_a_content_run_paints_only_the_invisible(
    build: Path, trained: tuple[Path, Path], tmp_path: Path, cascade: bool
):
    split = build / "splits" / "val"
    feeder = trained[0] if cascade else None
    folder = predict_run(trained[1], split, tmp_path, feeder, options=Options(device="cpu", quiet=True))
    data = EvalData(build, "val", 256)
    for p, sample in zip(read(folder), data.samples, strict=True):
        planes, _ = data.planes(sample)
        assert p.image is not None and (p.amodal is not None) == cascade
        pixels = images.read(folder / p.image)
        if cascade:
            assert p.amodal is not None and p.modal is not None
            hole = p.amodal.decode() & ~p.modal.decode()
        else:
            hole = (planes[6] & 3) == 1
        assert np.array_equal(pixels[~hole], planes[:3].transpose(1, 2, 0)[~hole])
    said = json.loads((folder / "run.json").read_text())
    assert said["fed_by"].startswith("human_deocclusion@") if cascade else said["fed_by"] == "truth"


def test_a_sample_without_its_photo_is_a_named_miss(build: Path, trained: tuple[Path, Path], tmp_path: Path):
    import shutil

    copy = Path(shutil.copytree(build, tmp_path / "build", ignore=shutil.ignore_patterns("cache", "runs")))
    files.write_json(copy / "build.json", {"roots": {"coco": str(copy / "data")}, "options": {}})
    lost = next(iter(parquet.read_records(copy / "splits" / "val", Sample)))
    (copy / "data" / lost.image.path).unlink()
    folder = predict_run(trained[0], copy / "splits" / "val", tmp_path / "p", options=Options(device="cpu", quiet=True))
    missed = list(parquet.read_records(folder / "dropped.parquet", Dropped))
    assert {d.reason for d in missed} == {"image_missing"} and lost.sample_id in {d.id for d in missed}
    assert len(read(folder)) + len(missed) == 6
    with pytest.raises(UserError, match="expected a split of a build"):
        predict_run(trained[0], tmp_path, tmp_path / "q", options=Options(device="cpu"))


def test_what_stands_is_not_lost_to_a_wrong_word_or_another_build(
    build: Path, trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    split = build / "splits" / "val"
    folder = predict_run(trained[0], split, tmp_path / "p", options=Options(device="cpu", quiet=True))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(UserError, match="expected a precision of fp32, bf16, auto, got 'fp8'"):
        predict_run(trained[0], split, folder, options=Options(device="cpu", precision="fp8", quiet=True))
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"} == before
    other = tmp_path / "other"
    run = shutil.copytree(trained[0], other / "runs" / "r", ignore=shutil.ignore_patterns("predictions"))
    shutil.copy(build / "build.json", other / "build.json")
    call = [str(run), "--split", str(split), "--device", "cpu", "-q"]
    said = CliRunner().invoke(commands.predict, call)
    assert isinstance(said.exception, UserError) and "is of another build than r; say with --out" in str(said.exception)
    assert not (run / "predictions").exists()
    for inside, name in ((run.parent, "r"), (run, "."), (run, "../r")):
        monkeypatch.chdir(inside)
        said = CliRunner().invoke(commands.predict, [name, *call[1:]])
        assert isinstance(said.exception, UserError) and "is of another build than r; say" in str(said.exception)
    assert not (run / "predictions").exists()
    (other / "splits").mkdir()
    (other / "splits" / "val").symlink_to(split)  # its own, on another disk
    assert not commands._of_another_build(other, other / "splits" / "val")
    assert CliRunner().invoke(commands.predict, [*call, "--out", str(tmp_path / "to")]).exit_code == 0


def test_a_person_in_any_photo_is_completed(trained: tuple[Path, Path]):
    photo, labels = drawn(77)
    seen = labels > 0
    seen[50:60] = False
    done = complete(photo, seen, mask_run=trained[0], content_run=trained[1], device="cpu")
    assert done.amodal.shape == (H, W) and not (done.modal & ~done.amodal).any()
    assert np.array_equal(done.recovered[~done.invisible], photo[~done.invisible])
    assert done.cutout.shape[2] == 4 and (done.cutout[..., 3] > 0).sum() == done.amodal.sum()
    assert done.side_by_side.shape == (256, 768, 3)
    completer = Completer(*trained, device="cpu", segmenter="source_mask")
    for given, line in (
        ({}, "a box or a mask"),
        ({"mask": np.zeros((H, W), np.bool_)}, "mask is empty"),
        ({"mask": np.ones((4, 4), np.bool_)}, "the photo's size"),
        ({"box": Box(500, 500, 600, 600)}, "holds nothing of the photo"),
        ({"box": Box(10, 10, 90, 90)}, "found nobody in it"),
    ):
        with pytest.raises(UserError, match=line):
            completer(photo, **given)


def test_a_photo_keeps_its_pixels_where_nothing_is_hidden(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = 11
    photo = cv2.resize(drawn(5)[0], (W * scale, H * scale), interpolation=cv2.INTER_LINEAR)
    seen = cv2.resize((drawn(5)[1] > 0).astype(np.uint8), (W * scale, H * scale), interpolation=cv2.INTER_LINEAR) > 0

    def nothing(model: object, batch: object, given: Tensor, precision: str = "fp32") -> Masks:
        return Masks(given, given, None, None, False, 0.0)

    monkeypatch.setattr(completing, "complete_masks", nothing)
    done = complete(photo, seen, mask_run=trained[0], content_run=trained[1], device="cpu")
    assert np.array_equal(done.recovered, photo) and np.array_equal(done.amodal, seen)


def test_the_commands(build: Path, trained: tuple[Path, Path], tmp_path: Path):
    run = CliRunner().invoke
    split = str(build / "splits" / "val")
    said = run(commands.predict, [str(trained[0]), "--split", split, "--device", "cpu", "-q"])
    assert said.exit_code == 0, said.output
    assert (trained[0] / "predictions" / "val" / "run.json").exists() and "6 predictions, 0 missed" in said.output
    folder = tmp_path / "photos"
    for k in range(2):
        images.write_png(folder / f"p{k}.png", drawn(k)[0])
        two = np.where(drawn(k)[1] > 0, np.uint8(1 + k), np.uint8(0))
        images.write_png(tmp_path / "masks" / f"p{k}.png", two)
    (folder / "broken.jpg").write_bytes(b"no picture")
    both = ["--mask-run", str(trained[0]), "--content-run", str(trained[1]), "--device", "cpu"]
    call = [str(folder), "--mask", str(tmp_path / "masks"), "--out", str(tmp_path / "out"), *both]
    said = run(commands.predict_photo, call)
    assert said.exit_code == 0, said.output
    names = {p.name for p in (tmp_path / "out" / "p1").iterdir()}
    assert names == {
        f"{n}.png" for n in ("given", "modal", "amodal", "invisible", "recovered", "cutout", "side_by_side")
    }
    assert "broken.jpg: left out" in said.output
    train_call = ["pix2pix", "--task", "mask", "--root", str(build), "--out", str(tmp_path), "--set", "width=4",
                  "--set", "train.steps=1", "--set", "train.batch=2", "--device", "cpu", "-q"]  # fmt: skip
    said = run(commands.train, train_call)
    assert said.exit_code == 0, said.output
    assert "no parsing" not in said.output  # it uses none
    for bad in ("width", "train.stepps=3"):
        assert isinstance(run(commands.train, [*train_call, "--set", bad]).exception, UserError)


ATTENTION = {"attention_b": False, "attention_t": True}


@pytest.mark.parametrize(
    ("task", "settings", "line"),
    [
        ("mask", {"parsing": True}, "4 of 12 people have no parsing: they trained the mask terms only"),
        ("mask", {"parsing": False}, ""),
        ("mask", {}, ""),
        ("content", ATTENTION, "4 of 12 people have no parsing: no body parts guided the attention on them"),
        ("content", dict.fromkeys(ATTENTION, False), ""),
        ("content", {}, ""),
    ],
)
def test_parsings_are_missed_where_they_are_used(task: str, settings: dict, line: str):
    said = {"people": 12, "people_with_parsing": 8, "task": task, "settings": settings}
    assert commands._parsing_note(said) == line
    assert commands._parsing_note({**said, "people_with_parsing": 12}) == ""


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A completer without networks: it writes a word, and finds nobody in a box that lies off the photo."""
    asked: list[tuple] = []

    class Written:
        def write(self, folder: Path) -> None:
            folder.mkdir(parents=True)  # two people in one folder would be an error
            (folder / "done").touch()

    class Fake:
        def __init__(self, **_: object) -> None: ...

        def load_segmenter(self) -> None: ...

        def __call__(self, photo, box=None, mask=None) -> Written:
            asked.append((box, mask))
            if box is not None and box.x0 >= W:
                raise UserError("it holds nothing of the photo")
            return Written()

    monkeypatch.setattr("baselines.inference.complete.Completer", Fake)
    return asked


def predicted(photos: Path, out: Path, *more: str):
    call = [str(photos), "--out", str(out), "--mask-run", str(photos), "--content-run", str(photos), *more]
    return CliRunner().invoke(commands.predict_photo, call)


def photos_of(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(images.encode(drawn(1)[0], path.suffix))
    return folder


def written(out: Path) -> set[str]:
    return {str(p.parent.relative_to(out)) for p in out.rglob("done")}


def test_boxes_of_no_photo_are_told(nobody: list[tuple], tmp_path: Path):
    folder, file = photos_of(tmp_path / "photos", "a.png"), tmp_path / "boxes.json"
    file.write_text(json.dumps({"a.png": [[10, 10, 50, 50]], "zz.png": [[10, 10, 50, 50]]}))
    said = predicted(folder, tmp_path / "out", "--boxes-file", str(file))
    assert said.exit_code == 0 and "zz.png: left out: no photo of this name" in said.output
    left = json.loads((tmp_path / "out" / "left_out.json").read_text())
    assert left == [{"photo": "zz.png", "person": "zz.png", "reason": "no photo of this name"}]
    said = predicted(folder / "a.png", tmp_path / "one", "--boxes-file", str(file))  # a file for all, used for one
    assert said.exit_code == 0 and "1 completed, 0 left out" in said.output


def test_every_person_has_a_folder_of_their_own(nobody: list[tuple], tmp_path: Path):
    names = ("a.jpg", "a.png", "a-0.jpg", "a.jpg.png", "b.png", "c.png", "C.jpg", "d.png")
    folder = photos_of(tmp_path / "photos", *names)
    file = tmp_path / "boxes.json"
    two = [[10, 10, 50, 50], [60, 10, 90, 50]]
    file.write_text(json.dumps({n: two if n in ("a.jpg", "d.png") else two[:1] for n in names}))
    said = predicted(folder, tmp_path / "out", "--boxes-file", str(file))
    assert said.exit_code == 0, said.output
    assert written(tmp_path / "out") == {
        "a.jpg/0", "a.jpg/1", "a.png", "a-0", "a.jpg.png", "b", "c.png", "C.jpg", "d/0", "d/1",
    }  # fmt: skip
    assert "10 completed, 0 left out" in said.output
    assert json.loads((tmp_path / "out" / "left_out.json").read_text()) == []


@pytest.mark.parametrize("bad", [[500, 0, 600, 50], [1, 2, 3], [50, 10, 10, 50], [0, 0, float("nan"), 9], "text", None])
def test_a_bad_box_is_left_out_alone(nobody: list[tuple], tmp_path: Path, bad: object):
    folder, out = photos_of(tmp_path / "photos", "a.png", "b.png"), tmp_path / "out"
    (folder / "c.png").write_bytes(b"no picture")
    file = tmp_path / "boxes.json"
    good = [10, 10, 50, 50]
    file.write_text(json.dumps({"a.png": [good, bad, good], "b.png": [good], "c.png": [good]}))
    said = predicted(folder, out, "--boxes-file", str(file))
    assert said.exit_code == 0, said.output
    assert written(out) == {"a/0", "a/2", "b"} and "3 completed, 2 left out" in said.output
    left = json.loads((out / "left_out.json").read_text())
    assert [(x["photo"], x["person"]) for x in left] == [("a.png", "a/1"), ("c.png", "c")]
    file.write_text(json.dumps({"a.png": [bad]}))
    said = predicted(folder, tmp_path / "none", "--boxes-file", str(file))
    assert isinstance(said.exception, UserError) and "nobody was completed, 3 left out" in str(said.exception)
    file.write_text("[1]")
    assert "expected JSON such as" in str(predicted(folder, out, "--boxes-file", str(file)).exception)
    assert "expected photos in it" in str(predicted(tmp_path / "none", out).exception)
    assert "X0 < X1" in str(predicted(folder, out, "--box", "9,9,1,1").exception)


def test_a_soft_mask_is_one_person_and_labels_are_several(nobody: list[tuple], tmp_path: Path):
    import cv2

    folder, file = photos_of(tmp_path / "photos", "a.png"), tmp_path / "mask.png"
    person = np.zeros((H, W), np.uint8)
    person[20:80, 30:90] = 255

    def found(labels: np.ndarray) -> list[np.ndarray] | str:
        images.write_png(file, labels.astype(np.uint8))
        nobody.clear()
        said = predicted(folder, tmp_path / f"out{np.random.default_rng().integers(1 << 60)}", "--mask", str(file))
        return [mask for _, mask in nobody] if said.exception is None else str(said.exception)

    for soft in (cv2.GaussianBlur(person, (0, 0), 3), cv2.GaussianBlur(person, (3, 3), 0)):
        assert len(np.unique(soft)) > 4
        one = found(soft)
        assert len(one) == 1 and np.array_equal(one[0], soft >= 128)
    three = np.zeros((H, W), np.uint8)
    for value, x in ((1, 10), (2, 40), (200, 70)):
        three[20:80, x : x + 20] = value
    three[5, 5:9] = 7  # a person of four pixels
    assert [int(m.sum()) for m in found(three)] == [1200, 1200, 4, 1200]
    assert len(found((person > 0) * 1)) == len(found(person)) == 1
    three[three > 0] += 80
    assert "as of smoothed edges; save it without smoothing" in found(cv2.GaussianBlur(three, (0, 0), 3))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_photo_is_taken_as_viewers_show_it(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
):
    seen: list[np.ndarray] = []
    monkeypatch.setattr(completing.Completer, "_looked", lambda _, photo, mask: seen.append(photo) or 1 / 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((60, 100, 3), np.uint8)
    stored[:20] = 255
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    shown = {1: stored, 3: stored[::-1, ::-1], 6: np.rot90(stored, -1)}[orientation]
    mask = np.zeros(shown.shape[:2], np.uint8)
    mask[10:30, 10:30] = 1
    images.write_png(tmp_path / "m.png", mask)
    runs_ = ("--mask-run", str(trained[0]), "--content-run", str(trained[1]), "--device", "cpu")
    call = [str(tmp_path / "a.png"), *runs_, "--out", str(tmp_path / "o"), "--mask", str(tmp_path / "m.png")]
    assert isinstance(CliRunner().invoke(commands.predict_photo, call).exception, ZeroDivisionError)
    assert np.array_equal(seen[0], shown)
    images.write_png(tmp_path / "m.png", np.ones((9, 7), np.uint8))
    found = CliRunner().invoke(commands.predict_photo, call).exception
    wide = f"{shown.shape[1]}x{shown.shape[0]}"
    assert f"size as viewers show it, {wide} px, got 7x9 px" in str(found)
