"""What a coarse answer is at 256 px: nothing is hidden that the model did not add."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from torch import Tensor, nn

from ahp_toolkit.core.crops import SIDE
from baselines.base import Batch, Result
from baselines.data.samples import collate, to_batch
from baselines.inference import cascade
from baselines.inference.cascade import beside_initial, paint, resized_image, resized_mask
from baselines.training.judge import Judge
from baselines.training.recipes import RECIPES
from baselines.training.runs import Loaded


def blob(seed: int) -> Tensor:
    """A wavy shape, float 0/1 [1, 1, 256, 256]."""
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    return torch.from_numpy((cv2.GaussianBlur(noise, (0, 0), 12) > 0.01).astype(np.float32))[None, None]


def seen_at(mask: Tensor, size: int) -> Tensor:
    """What a model of that size is shown: every crop pixel's centre."""
    step = SIDE // size
    return mask[:, :, step // 2 :: step, step // 2 :: step].contiguous()


@settings(max_examples=25, deadline=None)
@drawn_from(seed=st.integers(0, 10**6), size=st.sampled_from([32, 64, 128, 256]))
def test_who_adds_nothing_hides_nothing(seed: int, size: int) -> None:
    given = blob(seed)
    seen = seen_at(given, size)
    assert torch.equal(beside_initial(seen, seen, given), given)


@pytest.mark.parametrize("size", [64, 128])
def test_what_is_added_and_left_out_is_found_again(size: int) -> None:
    given = torch.zeros(1, 1, SIDE, SIDE)
    given[:, :, 66:190, 66:130] = 1  # an edge between the coarse pixels
    seen, step = seen_at(given, size), SIDE // size
    answer = seen.clone()
    answer[:, :, 100 // step : 160 // step, 130 // step : 160 // step] = 1
    answer[:, :, 180 // step :, :] = 0
    found = beside_initial(answer, seen, given)
    added, left = found * (1 - given), given * (1 - found)
    ys, xs = added[0, 0].nonzero(as_tuple=True)
    assert abs(int(ys.min()) - 100) <= step and abs(int(ys.max()) - 159) <= step
    assert int(xs.min()) == 130 and abs(int(xs.max()) - 159) <= step  # no gap between what is seen and what is added
    assert 0.8 < float(added.sum()) / (60 * 30) < 1.2
    assert 0.5 < float(left.sum()) / (10 * 64) < 1.5 and int(left[0, 0].nonzero()[:, 0].min()) > 170


@pytest.mark.parametrize("edge", range(124, 133))
def test_a_soft_outline_is_found_between_the_coarse_pixels(edge: int) -> None:
    truth = torch.zeros(1, 1, SIDE, SIDE)
    truth[..., :edge] = 1
    nothing = torch.zeros_like(truth)
    found = beside_initial(F.avg_pool2d(truth, 4), nothing[..., ::4, ::4], nothing)
    assert abs(int(found[0, 0, 0].sum()) - edge) <= 1 and torch.equal(found, found[:, :, :1].expand_as(found))


def test_at_full_size_the_answer_is_the_models_cut_at_a_half() -> None:
    given, answer = blob(1), blob(2)
    assert torch.equal(beside_initial(answer * 0.2 + 0.4, given, given), answer)


def test_a_refined_modal_mask_keeps_the_initial_masks_sharpness(monkeypatch: pytest.MonkeyPatch) -> None:
    given, true = blob(3), seen_at(blob(4), 64)
    seen = seen_at(given, 64)
    batch = Batch(torch.zeros(1, 3, 64, 64), seen)
    for said in (seen, torch.maximum(seen, true)):
        monkeypatch.setattr(cascade, "answer", lambda *_, s=said: (Result(seen.clone(), s), 0.0))
        made = cascade.complete_masks(None, batch, given)  # type: ignore[arg-type]
        assert made.own_modal and torch.equal(made.modal, given) and (made.amodal >= made.modal).all()
    assert made.invisible.any() and not torch.equal(made.amodal, given)


class Painter(nn.Module):
    """Answers with these pictures, whatever it is shown."""

    def __init__(self, pictures: Tensor) -> None:
        super().__init__()
        self.pictures = pictures

    def predict(self, batch: Batch) -> Result:
        return Result(batch.modal, batch.amodal, image=self.pictures[: len(batch.image)])


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_perfect_painter_pays_for_the_enlargement_alone(size: int) -> None:
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE, 3)) * 400
    true = torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), 6).clip(-60, 60)).permute(2, 0, 1)[None].float() / 127.5
    amodal, cover = blob(5), blob(6)
    hole = amodal * cover
    image = torch.where(cover > 0, torch.ones(()), true)  # the occluder is white, the person is not
    small = F.interpolate(true, (size, size), mode="area")
    model = Loaded(Painter(small), "perfect", "content", {"size": size}, "0" * 64, {})  # type: ignore[arg-type]
    masks = (resized_mask(m, size) for m in (amodal * (1 - cover), amodal * (1 - cover), amodal))
    pixels = ((image + 1) * 127.5).round().to(torch.uint8)
    made, _ = paint(model, Batch(resized_image(image, size), *masks), pixels, hole)
    enlarged = ((resized_image(small, SIDE) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(made.permute(0, 3, 1, 2), torch.where(hole > 0, enlarged, pixels))
    assert hole.sum() > 1000 and int(made.permute(0, 3, 1, 2)[(hole > 0).expand(-1, 3, -1, -1)].max()) < 200


def test_training_judges_what_is_shown(build: Path) -> None:
    judge = Judge(build, "content", RECIPES["debug"], Fabric(accelerator="cpu", devices=1))
    judge.batch = len(judge.items)
    true = to_batch(*collate(judge.items), "cpu")
    net = Painter(torch.where(true.invisible > 0, true.need("target"), -true.need("target")))
    found = judge(net)  # type: ignore[arg-type]
    assert found.values["l1_invisible"] == 0 and found.values["l1_image"] < 1e-3  # the occluder's rim is soft
    assert found.picture is not None
    shown, target = np.split(found.picture.astype(np.int64), 4, axis=1)[2:]
    assert abs(shown - target).mean() < 1
