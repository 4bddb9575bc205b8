"""CenterMask: the mask head's known answers, targets and samples, training on toy people, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.nets.recipe import by_photo
from ahp_toolkit.runtime import stage
from ahp_toolkit.segmenters import SEGMENTERS, centermask
from ahp_toolkit.segmenters.base import Prompt, prompt_of
from ahp_toolkit.segmenters.centermask import PRESETS, PeopleCut, people_loss
from ahp_toolkit.stages.segment import Segment
from ahp_toolkit.stages.train_networks import Data, How, train
from tests.stages.test_segment_parse import Detector, harvest, person, run_one, world

TINY = centermask.Arch("ese_vovnet19b_slim_dw", 64, 64)


def tiny() -> centermask.CenterMask:
    with devices.seeded(0):
        return centermask.net_of(TINY)[0]


@pytest.mark.parametrize(("side", "level"), [(800, 5), (799, 5), (600, 5), (500, 4), (400, 3), (50, 3), (0, 3)])
def test_boxes_are_pooled_from_the_level_of_their_share(side: int, level: int) -> None:
    area = torch.tensor([800.0**2])
    assert centermask.levels_of(torch.tensor([[0.0, 0.0, side, side]]), area).tolist() == [level]


def test_a_box_is_a_share_of_the_crop_and_not_of_the_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = tiny().eval(), []
    box = torch.tensor([[1.0, 1.0, 19.0, 60.0]])  # nearly all of a tall crop, a quarter of its canvas
    found = {"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.int64)}
    monkeypatch.setattr(net, "_found", lambda *_: [found])
    levels = centermask.levels_of
    monkeypatch.setattr(centermask, "levels_of", lambda *given: seen.append(levels(*given).item()) or levels(*given))
    ready = centermask.Ready(net, "centermask@x", torch.device("cpu"), 8, TINY.size, "fp32")
    for width in (20, 64):
        ready([Prompt(np.zeros((64, width, 3), np.uint8), Box(1, 1, 19, 60))])
    assert seen == [5, 4]


def test_what_the_crop_does_not_fill_is_the_mean_colour() -> None:
    net = tiny().eval()
    tall = torch.rand(3, 64, 20, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor(tensors.MEAN).view(3, 1, 1)
    filled = torch.cat([tall, mean.expand(3, 64, 44)], 2)
    torch.testing.assert_close(net._canvas(tall), net._canvas(filled))
    assert not net._canvas(tall)[:, :, 20:].any()
    numbers = torch.zeros(2, 8, 8, dtype=torch.uint8)
    numbers[1, 5:], numbers[1, :, 3:] = centermask.OUTSIDE, centermask.OUTSIDE
    assert centermask.sizes_of(numbers) == [(8, 8), (5, 3)]
    assert len(centermask.targets_of(numbers)[1]["boxes"]) == 0


def test_spatial_attention_by_hand() -> None:
    layer = centermask.SpatialAttention()
    torch.nn.init.zeros_(layer.conv.weight)
    layer.conv.weight.data[0, :, 1, 1] = torch.tensor([2.0, -1.0])  # twice the maximum less the mean, at the cell
    layer.conv.bias.data.fill_(0.5)  # type: ignore[union-attr]
    x = torch.tensor([[1.0, 3.0], [-2.0, 0.0]]).view(1, 2, 1, 2)  # channels of the two cells: (1, -2) and (3, 0)
    gate = torch.tensor([2 * 1 - (-0.5) + 0.5, 2 * 3 - 1.5 + 0.5]).sigmoid()
    torch.testing.assert_close(layer(x), x * gate)


def test_shapes_of_pyramid_head_and_answer() -> None:
    net = tiny().eval()
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = net.fcos.backbone(pictures)
        found = net(list(pictures))
    assert [tuple(m.shape) for m in maps.values()] == [(2, 64, s, s) for s in (8, 4, 2, 1, 1)]
    assert net.mask(torch.rand(3, 64, 14, 14)).shape == (3, 1, 28, 28)
    assert net.mask_iou(torch.rand(3, 64, 14, 14), torch.rand(3, 1, 28, 28)).shape == (3,)
    for f in found:
        n = len(f["boxes"])
        assert f["masks"].shape == (n, 1, 64, 64) and f["scores"].shape == f["labels"].shape == (n,)
        assert n <= centermask.PROPOSALS and ((f["masks"] >= 0) & (f["masks"] <= 1)).all()


def test_the_iou_of_a_mask_counts_the_person_outside_its_box_too() -> None:
    logits, here = torch.full((3, 4, 4), -1.0), torch.zeros(3, 4, 4)
    logits[:, :2], here[:2, 1:3] = 1.0, 1.0  # 8 cells made, 8 wanted, 4 of both; nothing wanted of the third
    found = centermask.mask_ious(logits, here, torch.tensor([8.0, 20.0, 5.0]))
    torch.testing.assert_close(found, torch.tensor([4 / 12, 4 / 24, 0.0]))
    said = torch.tensor([0.5, 0.5, 0.9])
    expected = 0.5 * ((0.5 - 4 / 12) ** 2 + (0.5 - 4 / 24) ** 2) / 2  # what touches nobody teaches nothing
    torch.testing.assert_close(centermask.iou_loss(said, found), torch.tensor(expected))
    assert centermask.iou_loss(said, torch.zeros(3)) == 0


def test_a_mask_scores_its_boxs_score_times_its_iou(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny().eval()
    boxes = torch.tensor([[4.0, 4, 30, 60], [20, 8, 60, 50]])
    found = {"boxes": boxes, "scores": torch.tensor([0.9, 0.5]), "labels": torch.ones(2, dtype=torch.int64)}
    monkeypatch.setattr(net, "_found", lambda *_: [found])
    for said, score in ((0.6, 0.54), (1.4, 0.9), (-0.2, 0.0)):
        monkeypatch.setattr(net.mask_iou, "forward", lambda pooled, masks, v=said: torch.tensor([v, 0.5]))
        with torch.no_grad():
            scores = net([torch.rand(3, 64, 64)])[0]["scores"]
        torch.testing.assert_close(scores, torch.tensor([score, 0.25]))


def test_the_published_width_has_the_published_head() -> None:
    with torch.device("meta"):
        linear = [m for m in centermask.MaskIoUHead(256).modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(256 * 49, 1024), (1024, 1024), (1024, 1)]


def test_targets_are_boxes_and_masks_of_the_numbered_people() -> None:
    plane = torch.zeros(2, 8, 8, dtype=torch.uint8)
    plane[0, 1:4, 2:7], plane[0, 5:8, 0:2] = 1, 3
    both, nobody = centermask.targets_of(plane)
    assert both["boxes"].tolist() == [[2, 1, 7, 4], [0, 5, 2, 8]] and both["labels"].tolist() == [1, 1]
    assert both["masks"].sum((1, 2)).tolist() == [15, 6]
    assert nobody["boxes"].shape == (0, 4) and nobody["masks"].shape == (0, 8, 8)


def test_a_batch_with_nobody_in_it_has_a_loss_with_gradients() -> None:
    net = tiny().train()
    value = people_loss(net, torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 64, 64))
    value.backward()
    heads = [*net.mask.parameters(), *net.mask_iou.parameters()]
    assert torch.isfinite(value) and all(p.grad is not None for p in heads)


def test_every_parameter_learns() -> None:
    net = tiny().train()
    target = torch.zeros(2, 64, 64, dtype=torch.uint8)
    target[:, 20:44, 16:40] = 1
    pictures = torch.randint(0, 255, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    people_loss(net, pictures, target).backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # boxes larger than the picture's half, and cells of the coarse levels, are not in this batch
    assert not [n for n in dead if n.startswith(("mask", "fcos.backbone.encoder"))], dead


def test_samples_lie_as_the_asks_do_and_number_the_neighbours(tmp_path: Path) -> None:
    (one,) = world(tmp_path, 1, "masks")
    other = replace(one, candidate_id="toy/000#2", mask=encode(np.eye(96, dtype=bool)), box=Box(0, 0, 96, 96))
    cut = PeopleCut(centermask.Arch(TINY.encoder, 128, 64), by_photo([one, other]))
    photo, mask, _ = person(0)
    planes, numbers = cut(photo, one, np.random.default_rng(0))
    assert planes.shape == (128, 128, 3) and planes.dtype == np.uint8
    assert set(np.unique(numbers)) <= {0, 1, 2, centermask.OUTSIDE} and {1, 2} <= set(np.unique(numbers))
    alone = PeopleCut(cut.arch, {})(photo, one, np.random.default_rng(0))[1]
    np.testing.assert_array_equal(alone == 1, numbers == 1)  # the person asked for is never covered
    np.testing.assert_array_equal(alone == centermask.OUTSIDE, numbers == centermask.OUTSIDE)
    prompt, _ = prompt_of(photo, one.box)
    scale = 128 / max(prompt.pixels.shape[:2])
    assert (alone == 1).sum() == pytest.approx(mask.sum() * scale**2, rel=0.5)  # 2.4 to 3.6 times the box
    flipped = [cut(photo, one, np.random.default_rng(s))[1] for s in range(8)]
    assert any((f[:, ::-1] == 1).sum() == (f == 1).sum() for f in flipped)


def test_people_of_another_file_of_the_photo_are_not_drawn_in_this_ones_frame(tmp_path: Path) -> None:
    (one,) = world(tmp_path, 1, "masks")
    mask = encode(np.eye(96, dtype=bool))
    crop = replace(one, candidate_id="lip/7#1", image=replace(one.image, image_id="lip/7"), mask=mask)
    people = by_photo([replace(p, image=replace(p.image, photo="coco/7")) for p in (one, crop)])
    (alike,) = people.values()
    cut = PeopleCut(centermask.Arch(TINY.encoder, 128, 64), people)
    photo = person(0)[0]
    numbers = cut(photo, alike[0], np.random.default_rng(0))[1]
    alone = PeopleCut(cut.arch, {})(photo, alike[0], np.random.default_rng(0))[1]
    np.testing.assert_array_equal(numbers, alone)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CenterMask trained for some steps at 64 px on 40 toy people."""
    toy = tmp_path_factory.mktemp("toy")
    parts = harvest(toy / "train", world(toy / "photos", 40, "masks"))
    small = replace(PRESETS["debug"], size=64, steps=60, batch=8, lr=2e-3, pretrained="no")
    data, how = Data(parts, {"toy": str(toy / "photos")}), How(small, device="cpu", quiet=True)
    made = train(SEGMENTERS, "centermask", data, toy / "c.safetensors", how)
    assert made.name.startswith("centermask@") and made.value > 0.5, made
    again = train(SEGMENTERS, "centermask", data, toy / "c.safetensors", how)
    assert again == made  # finished: nothing to do
    return toy / "c.safetensors"


def test_a_trained_one_finds_new_people_in_the_stage(trained: Path, tmp_path: Path) -> None:
    part = harvest(tmp_path / "h", world(tmp_path / "new", 50, "boxes")[40:])[0]
    out = run_one(Segment("centermask", str(trained), "cpu", {"toy": str(tmp_path / "new")}), part)
    made = {s.candidate.candidate_id: s for s in out.tables[stage.MAIN]}
    truth = {f"toy/{i:03d}#1": encode(person(i)[1]) for i in range(40, 50)}
    assert np.mean([made[k].mask.iou(t) if k in made else 0.0 for k, t in truth.items()]) > 0.5
    for s in made.values():
        assert s.segmenter.startswith("centermask@") and len(s.segmenter) == len("centermask@") + 12
        assert 0 < s.score <= 1


def test_of_two_people_the_one_whose_box_is_asked_is_taken() -> None:
    ready = centermask.Ready(Detector(), "centermask@x", torch.device("cpu"), 8, 128, "fp32")
    pixels = np.zeros((128, 128, 3), np.uint8)
    for box in (Box(22, 20, 60, 78), Box(70, 10, 90, 60)):
        (found,) = ready([Prompt(pixels, box)])
        assert encode(found.mask).iou(encode(_filled(box))) > 0.95 and found.score > 0.7
    (nobody,) = ready([Prompt(pixels, Box(0, 100, 20, 120))])
    assert not nobody.mask.any() and nobody.score == 0.0


def _filled(box: Box) -> np.ndarray:
    out = np.zeros((128, 128), bool)
    x0, y0, x1, y1 = box.pixels()
    out[y0:y1, x0:x1] = True
    return out


def test_saved_is_loaded_and_wrong_files_are_one_line(trained: Path, tmp_path: Path) -> None:
    said = checkpoints.load_checkpoint(trained, centermask.KIND)
    ready = centermask.build(str(trained), device="cpu", batch_size=2)
    assert ready.name == checkpoints.short_name("centermask", said.digest)
    checkpoints.save_checkpoint(tmp_path / "copy.safetensors", centermask.KIND, said)
    twin = centermask.build(str(tmp_path / "copy.safetensors"), device="cpu", batch_size=2)
    prompts = [prompt_of(person(i)[0], encode(person(i)[1]).box)[0] for i in range(44, 47)]
    for f, g in zip(ready(prompts), twin(prompts), strict=True):
        np.testing.assert_array_equal(f.mask, g.mask)
        assert f.score == g.score
    (tmp_path / "cut.safetensors").write_bytes(trained.read_bytes()[:4000])
    for path in (tmp_path / "cut.safetensors", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError, match="expected") as e:
            centermask.build(str(path), device="cpu")
        assert "\n" not in str(e.value)
    checkpoints.save_checkpoint(tmp_path / "old.safetensors", "ahp-centermask-1", said)
    with pytest.raises(UserError, match="a checkpoint ahp-centermask-2, got 'ahp-centermask-1'") as e:
        centermask.build(str(tmp_path / "old.safetensors"), device="cpu")
    assert "\n" not in str(e.value)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(UserError, match="--name centermask"):
        centermask.build(None, device="cpu")
    with pytest.raises(UserError, match="a VoVNet of timm, got 'resnet18'"):
        centermask.build("random", device="cpu", encoder="resnet18")
    with pytest.raises(UserError, match="multiples of 32"):
        centermask.Arch(size=100)
