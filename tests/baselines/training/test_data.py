"""The loader: the same at any worker count, flips that swap sides, exact ratios, and nothing of val or test."""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Given, Occluder, Sample
from ahp_toolkit.occlusion.densities import PRESETS
from ahp_toolkit.occlusion.paste import Pasted
from ahp_toolkit.storage import parquet
from baselines.data.cache import build_cache
from baselines.data.initial import initial_iou
from baselines.data.samples import Draw, EvalData, TrainData, check_leakage, collate, planes_of, to_batch, worker_init
from baselines.training.record import Training, options


@pytest.fixture(scope="module")
def cache(build: Path):
    return build_cache(build, 112, quiet=True)


def draw(size: int = 64, **more) -> Draw:
    return Draw(PRESETS["train"], size, **more)


def read(data: TrainData, workers: int) -> torch.Tensor:
    context = multiprocessing.get_context("forkserver") if workers else None
    loader = DataLoader(
        data, batch_size=4, sampler=range(16), num_workers=workers, collate_fn=collate,
        worker_init_fn=worker_init, multiprocessing_context=context,
    )  # fmt: skip
    return torch.cat([planes for planes, _ in loader])


def test_the_loader_is_the_same_at_any_worker_count(cache):
    data = TrainData(cache, draw())
    alone = read(data, 0)
    assert alone.shape == (16, 8, 64, 64) and alone.dtype == torch.uint8
    assert torch.equal(alone, read(data, 1)) and torch.equal(alone, read(data, 2))
    assert not torch.equal(alone, read(TrainData(cache, draw(seed=1)), 0))


def test_an_epoch_shows_everybody_once_and_occludes_anew(cache):
    data, count = TrainData(cache, draw()), len(cache.humans)
    for epoch in range(2):
        assert sorted(data.person(epoch * count + i) for i in range(count)) == list(range(count))
    same = [i for i in range(2 * count) if data.person(i) == 0]
    assert not np.array_equal(data.draw(same[0]).planes, data.draw(same[1]).planes)


def test_ratios_lie_in_the_density_and_masks_fit_together(cache):
    data = TrainData(cache, draw(128))
    drawn = [data.draw(i) for i in range(60)]
    assert all(d.bin is not None and PRESETS["train"].bin_of(d.ratio) == d.bin for d in drawn)
    assert min(np.bincount([d.bin for d in drawn])) > 8
    for d in drawn:
        bits = d.planes[6]
        amodal, modal = bits & 1 > 0, bits & 2 > 0
        assert (amodal | ~modal).all() and amodal.any()
        assert abs(1 - modal.sum() / amodal.sum() - d.ratio) < 0.04
        visible = np.broadcast_to(modal, (3, 128, 128))
        assert np.array_equal(d.planes[:3][visible], d.planes[3:6][visible])
        border = np.concatenate([amodal[0], amodal[-1], amodal[:, 0], amodal[:, -1]])
        assert not border.any(), "the crop holds the whole person"


def placement(mask: np.ndarray) -> tuple[float, float, float]:
    """Longer side of a mask's tight box, and its centre's offsets from the crop's, in sides of the crop."""
    ys, xs = mask.nonzero()
    low, high = np.array([xs.min(), ys.min()]), np.array([xs.max(), ys.max()]) + 1
    x, y = (low + high) / 2 / len(mask) - 0.5
    return float((high - low).max() / len(mask)), float(x), float(y)


def test_silhouettes_lie_where_the_training_crops_put_people(cache):
    seeds = range(10)
    shown = torch.cat([TrainData(cache, draw(128, seed=s)).silhouettes(99, 128) for s in seeds]).numpy()
    drawn = [TrainData(cache, draw(128, seed=s)).draw(i).planes[6] & 1 > 0 for s in seeds for i in range(12)]
    ours, theirs = (np.array([placement(m) for m in masks]) for masks in (shown, drawn))
    assert len(ours) == len(theirs) == 120
    for found in (ours, theirs):
        assert (found[:, 0] > 1 / 1.5 - 0.02).all() and (found[:, 0] < 1 / 1.15 + 0.02).all()
    assert (abs(ours.mean(0) - theirs.mean(0)) < 0.03).all()
    assert (theirs.std(0) > 0.03).all() and (abs(ours.std(0) / theirs.std(0) - 1) < 0.3).all()


def test_silhouettes_hang_on_the_seed_alone_and_are_mirrored_as_often_as_not(cache):
    data = TrainData(cache, draw())
    masks = data.silhouettes(99, 64)
    data[5]  # what was drawn before does not matter
    assert torch.equal(masks, data.silhouettes(99, 64)) and masks.dtype == torch.bool
    assert not torch.equal(masks, TrainData(cache, draw(seed=1)).silhouettes(99, 64))
    assert len(data.silhouettes(5, 64)) == 4 and torch.equal(data.silhouettes(5, 64), masks[::3])
    straight = TrainData(cache, draw(flip=False)).silhouettes(99, 64)
    flipped = [torch.equal(a, b.flip(1)) and not torch.equal(a, b) for a, b in zip(masks, straight, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(masks, straight, strict=True)]
    assert all(a or b for a, b in zip(flipped, same, strict=True)) and 2 <= sum(flipped) <= 10


def test_a_flip_swaps_left_and_right():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    whole = rng.random((8, 8)) < 0.7
    hidden, given = rng.random((8, 8)) < 0.3, rng.random((8, 8)) < 0.5
    labels = rng.integers(0, 20, (8, 8)).astype(np.uint8)
    straight, mirrored = (
        planes_of(Pasted(image, image, whole, hidden), image, given, labels, f) for f in (False, True)
    )
    assert np.array_equal(mirrored[:7], straight[:7, :, ::-1])
    swap = {14: 15, 15: 14, 16: 17, 17: 16, 18: 19, 19: 18}
    expected = np.vectorize(lambda v: swap.get(v, v))(labels[:, ::-1])
    assert np.array_equal(mirrored[7], expected)
    batch = to_batch(torch.from_numpy(straight)[None], torch.tensor([True]), "cpu")
    assert np.array_equal(batch.need("modal")[0, 0].numpy() > 0, whole & ~hidden)
    assert np.array_equal(batch.given[0, 0].numpy() > 0, given)
    assert torch.equal(batch.need("target"), batch.image) and float(batch.image.min()) >= -1


def test_frozen_samples_show_their_own_masks(build: Path):
    data = EvalData(build, "val", 256)
    assert len(data) == 6
    for sample, (planes, parsed) in zip(data.samples, data, strict=False):
        bits = planes[6].numpy()
        ratio = 1 - (bits & 2 > 0).sum() / (bits & 1 > 0).sum()
        assert abs(ratio - sample.occlusion_ratio) < 0.03
        assert parsed == (data.parsings[sample.human_id] is not None)
        hidden = (bits & 3) == 1
        same = (planes[:3] == planes[3:6]).all(0).numpy()
        assert same[~hidden].mean() > 0.97 > same[hidden].mean()  # resizing mixes the pixels at the border
    assert len(EvalData(build, "val", 64, 4)) == 4


def test_a_cache_is_built_once_and_opened_again(build: Path, cache):
    again = build_cache(build, 112, quiet=True)
    assert again.digest == cache.digest and again.humans == cache.humans
    shutil.rmtree(again.human_pixels)
    once_more = build_cache(build, 112, quiet=True)
    assert np.array_equal(once_more.human(3)[0], cache.human(3)[0])


@pytest.mark.parametrize("kind", ["id", "photo"])
def test_val_in_training_is_an_error(build: Path, cache, tmp_path: Path, kind: str):
    check_leakage(build, cache)
    copy = shutil.copytree(build / "splits", tmp_path / "splits").parent
    leaked = next(iter(parquet.read_records(build / "bank" / "train", Occluder)))
    if kind == "photo":
        leaked = Occluder("coco/another#1", leaked.image, "cup", leaked.box, leaked.mask, leaked.area)
    parquet.write_records(copy / "bank" / "val" / "part-00000.parquet", [leaked], Occluder)
    with pytest.raises(UserError, match="is in the training data" if kind == "id" else "one photograph"):
        check_leakage(copy, cache)


def test_positions_decide_not_order(cache):
    data = TrainData(cache, draw())
    forward = [data[i][0] for i in range(6)]
    for i, planes in zip(itertools.chain(range(5, -1, -1)), reversed(forward), strict=True):
        assert torch.equal(data[i][0], planes)


@pytest.mark.parametrize("shrunk", [False, True])
def test_initial_masks_are_as_good_as_the_frozen_ones(build: Path, tmp_path: Path, shrunk: bool):
    assert initial_iou(build) == (0.8, "build")
    root = shutil.copytree(build, tmp_path / "b")
    part = root / "splits" / "train" / "part-00000.parquet"
    rows = []
    for s in parquet.read_records(part, Sample):
        mask = s.modal.decode()
        if shrunk:
            mask[::2] = False
        rows.append(replace(s, given=Given(encode(mask), "centermask@0")))
    parquet.write_records(part, rows, Sample)
    found, source = initial_iou(root)
    assert source == "measured" and (0.4 < found < 0.6 if shrunk else found == 1)
    job = Training(root, "pix2pix", "mask")
    assert options(job)["iou"] == found and options(replace(job, iou=0.7))["iou"] == 0.7
