"""No network that a build trains is shown people of its val or test photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import photo_hash
from ahp_toolkit.nets import checkpoints
from ahp_toolkit.nets.recipe import photo_of
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.segmenters import SEGMENTERS, deeplab
from ahp_toolkit.stages import train_networks, training
from ahp_toolkit.stages.review import SplitSizes, Thresholds
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.held_out import HeldOut
from tests.stages.test_segment_parse import harvest, world


def test_the_range_is_the_folds_or_what_val_and_test_cannot_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "count_records", lambda folder: 1_000_000)
    assert training.held_out(tmp_path, SplitSizes()) == HeldOut(0.0, pytest.approx(0.0706))
    assert training.held_out(tmp_path, SplitSizes(fold=(2, 5))) == HeldOut(0.2, 0.4)
    assert training.held_out(tmp_path, SplitSizes(3000, 500)) == HeldOut(0.0, 0.5)
    assert training.held_out(tmp_path, SplitSizes(0, 0)) == HeldOut(0.0, 0.0)


def test_people_of_photos_for_val_and_test_are_left_out_and_the_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = world(tmp_path / "photos", 24, "masks")
    harvest(tmp_path / "harvest", people)
    files.write_json(tmp_path / "harvest" / "stage.json", {})
    shown: list[str] = []
    samples = train_networks.Samples
    monkeypatch.setattr(
        train_networks, "Samples", lambda humans, *a: shown.extend(map(photo_of, humans)) or samples(humans, *a)
    )
    tiny = replace(deeplab.PRESETS["debug"], size=32, steps=2, batch=2, pretrained="no")
    monkeypatch.setitem(deeplab.PRESETS, "debug", tiny)
    out = tmp_path / "weights" / "deeplab.safetensors"
    roots = {"toy": str(tmp_path / "photos")}
    step = training.Training(SEGMENTERS, "deeplab", tmp_path, roots, "debug", "cpu", SplitSizes())
    assert not step.up_to_date() and step.total == 2 and step.path == out
    with LocalEngine(1) as engine:
        assert step.run(engine, quiet=True).fresh
    assert step.up_to_date() and not replace(step, seed=1).up_to_date()
    kept = [p for p in map(photo_of, people) if photo_hash(p) < training.MOST]
    assert kept and shown and not set(shown) & set(kept)
    meta = checkpoints.load_checkpoint(out, deeplab.KIND).meta
    assert meta["held_out"] == [0.0, training.MOST] and meta["left_out"] == len(kept)

    training.check_initial("deeplab", out, Thresholds(0.2, 0.3))
    training.check_initial("simulated", None, Thresholds(0.4, 0.6))
    for cut in (Thresholds(0.4, 0.6), Thresholds(0.8, 0.8, 0.6)):
        with pytest.raises(UserError, match="trained on people of val or test"):
            training.check_initial("deeplab", str(out), cut)
    said = checkpoints.load_checkpoint(out, deeplab.KIND)
    checkpoints.save_checkpoint(out, deeplab.KIND, checkpoints.Checkpoint(said.arch, said.state, {}))
    with pytest.raises(UserError, match="does not say which photos"):
        training.check_initial("deeplab", out, Thresholds(0.1, 0.2))


def test_too_few_people_beside_the_kept_ones_is_one_line(tmp_path: Path) -> None:
    parts = harvest(tmp_path / "h", world(tmp_path / "photos", 6, "masks"))
    with pytest.raises(UserError, match="kept for val and test"):
        data = train_networks.Data(parts, {}, HeldOut(0.0, 1.0))
        train_networks.train(
            SEGMENTERS, "deeplab", data, tmp_path / "a.safetensors", train_networks.How(device="cpu", quiet=True)
        )
