"""Prediction: folders that a judge can read, the cascade, and people in a photograph that nobody has annotated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from torch import Tensor

from ahp_toolkit.core import images, store
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Dropped, Prediction, Sample
from baselines import commands
from baselines import complete as completing
from baselines.cascade import Masks
from baselines.complete import Completer, complete
from baselines.data import EvalData
from baselines.predict import predict_run
from baselines.runs import split_digest
from baselines.train import Training, train
from benchmark.tables import SPEED

from .world import H, W, drawn


@pytest.fixture(scope="module")
def trained(build: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mask run and a content run, hardly trained."""
    out = tmp_path_factory.mktemp("runs")
    small = {"width": 4, "critic_width": 4, "vgg": "random/8"}
    mask = Training(build, "human_deocclusion", "mask", settings={**small, "templates": 4, "clusters": 4}, steps=2,
                    batch=4, out=out, quiet=True, device="cpu")  # fmt: skip
    content = replace(mask, task="content", model="pix2pix", settings={"width": 4, "critic_width": 4})
    return train(mask), train(content)


def read(folder: Path) -> list[Prediction]:
    return list(store.read_records(folder, Prediction))


def test_a_mask_run_answers_every_sample(build: Path, trained: tuple[Path, Path], tmp_path: Path):
    split = build / "splits" / "val"
    folder = predict_run(trained[0], split, tmp_path / "p", device="cpu", batch=4, quiet=True)
    found, samples = read(folder), list(store.read_records(split, Sample))
    assert [p.sample_id for p in found] == [s.sample_id for s in samples]
    for p in found:
        assert p.amodal is not None and p.modal is not None and p.image is None
        assert (p.amodal.height, p.amodal.width) == (256, 256) and p.seconds is not None and p.seconds > 0
        assert not (p.modal.decode() & ~p.amodal.decode()).any()
    said = json.loads((folder / "run.json").read_text())
    assert said["dataset_digest"] == split_digest(split) and said["model"] == "human_deocclusion"
    assert said["fed_by"] == "nothing" and set(SPEED) <= set(said["speed"]) and min(said["speed"][n] for n in SPEED) > 0
    assert said["perceptual"] == "random/8"
    again = predict_run(trained[0], split, tmp_path / "q", device="cpu", batch=4, quiet=True)
    assert [(p.amodal, p.modal) for p in read(again)] == [(p.amodal, p.modal) for p in found]


@pytest.mark.parametrize("cascade", [False, True])
def test_a_content_run_paints_only_the_invisible(
    build: Path, trained: tuple[Path, Path], tmp_path: Path, cascade: bool
):
    split = build / "splits" / "val"
    feeder = trained[0] if cascade else None
    folder = predict_run(trained[1], split, tmp_path, feeder, device="cpu", quiet=True)
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
    store.write_json(copy / "build.json", {"roots": {"coco": str(copy / "data")}, "options": {}})
    lost = next(iter(store.read_records(copy / "splits" / "val", Sample)))
    (copy / "data" / lost.image.path).unlink()
    folder = predict_run(trained[0], copy / "splits" / "val", tmp_path / "p", device="cpu", quiet=True)
    missed = list(store.read_records(folder / "dropped.parquet", Dropped))
    assert {d.reason for d in missed} == {"image_missing"} and lost.sample_id in {d.id for d in missed}
    assert len(read(folder)) + len(missed) == 6
    with pytest.raises(UserError, match="expected a split of a build"):
        predict_run(trained[0], tmp_path, tmp_path / "q", device="cpu")


def test_a_person_in_any_photo_is_completed(trained: tuple[Path, Path]):
    photo, labels = drawn(77)
    seen = labels > 0
    seen[50:60] = False
    done = complete(photo, mask=seen, mask_run=trained[0], content_run=trained[1], device="cpu")
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
    done = complete(photo, mask=seen, mask_run=trained[0], content_run=trained[1], device="cpu")
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
    assert "4 of 12 people have no parsing" in said.output
    for bad in ("width", "train.stepps=3"):
        assert isinstance(run(commands.train, [*train_call, "--set", bad]).exception, UserError)
