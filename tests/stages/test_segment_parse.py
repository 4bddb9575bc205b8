"""Segment and parse: source masks stay, box-only humans go to a network, parsings, contracts of both registries."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.crops import around, kept_inside, within
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box, encode, encode_labels
from ahp_toolkit.core.records import Candidate, Flags, ImageRef, Neighbours, Segmented
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.parsers import PARSERS, hrnet
from ahp_toolkit.parsers.base import Body
from ahp_toolkit.runtime import stage as pipeline
from ahp_toolkit.segmenters import SEGMENTERS, deeplab, mask_rcnn, sam, source_mask
from ahp_toolkit.segmenters.base import Prompt, Segmentation
from ahp_toolkit.stages import segment as segment_stage
from ahp_toolkit.stages.parse import Parse
from ahp_toolkit.stages.parse import job as parse_job
from ahp_toolkit.stages.segment import Segment, border_pixels
from ahp_toolkit.stages.segment import job as segment_job
from ahp_toolkit.stages.train_networks import Data, How, part_ious, train
from ahp_toolkit.storage import images, parquet

SIDE = 96
NOTHING = (Flags(), Neighbours())


def person(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo with one red-and-blue ellipse on noise: pixels, mask, labels (left arm at the person's left)."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:SIDE, :SIDE]
    cx, cy = rng.integers(34, 62, 2)
    rx, ry = rng.integers(9, 13), rng.integers(16, 24)
    mask = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    labels = np.where(mask, np.where(y < cy, 13, 5), 0).astype(np.uint8)
    labels[mask & (x > cx + rx / 2) & (y >= cy)] = 14
    pixels = rng.integers(60, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    for label, colour in ((13, (230, 60, 40)), (5, (40, 60, 230)), (14, (230, 230, 40))):
        pixels[labels == label] = colour
    return pixels, mask, labels


def world(root: Path, n: int, kind: str) -> list[Candidate]:
    """``n`` candidates whose photos lie in ``root``; kind: masks, boxes, parsings."""
    out = []
    for i in range(n):
        pixels, mask, labels = person(i)
        images.write_png(root / f"{i:03d}.png", pixels)
        ref = ImageRef(f"toy/{i:03d}", "toy", f"{i:03d}.png", SIDE, SIDE, f"p{i}")
        m = encode(mask)
        out.append(
            Candidate(
                f"toy/{i:03d}#1",
                ref,
                m.box,
                None if kind == "boxes" else m,
                encode_labels(labels) if kind == "parsings" else None,
                *NOTHING,
            )
        )
    return out


def harvest(folder: Path, candidates: list[Candidate], per_part: int = 100) -> list[Path]:
    for k in range(0, len(candidates), per_part):
        parquet.write_records(folder / f"part-{k // per_part:05d}.parquet", candidates[k : k + per_part], Candidate)
    return parquet.parts(folder)


def run_one(stage: Segment | Parse, part: Path) -> pipeline.Output:
    return stage([str(part)])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def trained(toy: Path) -> str:
    """A DeepLab trained for some steps at 64 px on 40 toy people."""
    parts = harvest(toy / "train", world(toy / "photos", 40, "masks"))
    small = replace(deeplab.PRESETS["debug"], size=64, steps=32, batch=8, pretrained="no")
    data, how = Data(parts, {"toy": str(toy / "photos")}), How(small, device="cpu", quiet=True)
    made = train(SEGMENTERS, "deeplab", data, toy / "deeplab.safetensors", how)
    assert made.value > 0.7 and made.judged > 0
    return str(toy / "deeplab.safetensors")


# --- contracts ----------------------------------------------------------------------------------------------------

ASKS = [Prompt(person(i)[0][:, : SIDE - 7 * i], Box(30, 20, 60, 70)) for i in range(3)]


@pytest.mark.parametrize("name", SEGMENTERS.names())
def test_every_segmenter_keeps_the_contract(name: str) -> None:
    module = SEGMENTERS.get(name)
    assert list(inspect.signature(module.build).parameters)[:3] == ["weights", "device", "batch_size"]
    options = {"size": 64, "proposals": 20} if name == "mask_rcnn" else {}
    ready = module.build("random", device="cpu", batch_size=2, **options)
    assert ready.name.split("@")[0] == name and ready.name.split("@")[1] in ("random", "source")
    found = ready(ASKS)
    for f, a in zip(found, ASKS, strict=True):
        assert f.mask.shape == a.pixels.shape[:2] and f.mask.dtype == np.bool_ and 0 <= f.score <= 1
    again = [ready([a])[0] for a in ASKS]
    assert all((f.mask == g.mask).mean() > 0.999 for f, g in zip(found, again, strict=True))
    assert ready([]) == []


@pytest.mark.parametrize("name", PARSERS.names())
def test_every_parser_keeps_the_contract(name: str) -> None:
    module = PARSERS.get(name)
    assert list(inspect.signature(module.build).parameters)[:3] == ["weights", "device", "batch_size"]
    bodies = [Body(p, m) for p, m, _ in (person(i) for i in range(3))]
    ready = module.build("random", device="cpu", batch_size=2)
    for labels, body in zip(ready(bodies), bodies, strict=True):
        assert labels.shape == body.mask.shape and labels.dtype == np.uint8 and labels.max() < 20
        assert not labels[~body.mask].any()
    assert ready([]) == []


# --- the stages ---------------------------------------------------------------------------------------------------


def test_source_masks_stay_and_box_only_humans_are_counted_out(tmp_path: Path) -> None:
    with_mask, box_only = world(tmp_path, 3, "masks"), world(tmp_path, 5, "boxes")[3:]
    part = harvest(tmp_path / "h", [with_mask[0], box_only[0], *with_mask[1:], box_only[1]])[0]
    out = run_one(Segment("source_mask"), part)  # no roots: no photo is opened
    kept = out.tables[pipeline.MAIN]
    assert [s.candidate for s in kept] == with_mask and [s.mask for s in kept] == [c.mask for c in with_mask]
    assert {s.segmenter for s in kept} == {"source_mask@source"} and all(s.score > 0.99 for s in kept)
    assert [(d.id, d.reason) for d in out.dropped] == [(c.candidate_id, "no_mask") for c in box_only]


def test_quality_of_source_masks() -> None:
    m = np.zeros((20, 20), bool)
    m[2:12, 2:12] = True
    assert source_mask.quality(encode(m), Box(2, 2, 12, 12)) == 1.0
    assert source_mask.quality(encode(m), Box(2, 2, 12, 22)) == pytest.approx(0.5)
    m[2:12, 6:8] = False  # two pieces of 40 px each
    assert source_mask.quality(encode(m), Box(2, 2, 12, 12)) == pytest.approx(0.5)


def test_bad_photos_are_dropped_with_their_reason_and_a_missing_root_is_the_users(tmp_path: Path) -> None:
    a, b, c, d = world(tmp_path, 4, "boxes")
    (tmp_path / "001.png").unlink()
    (tmp_path / "002.png").write_bytes(b"no picture")
    d = replace(d, image=replace(d.image, path="../003.png"))
    part = harvest(tmp_path / "h", [a, b, c, d])[0]
    out = run_one(Segment("deeplab", "random", "cpu", {"toy": str(tmp_path)}), part)
    reasons = {x.id: x.reason for x in out.dropped}
    assert reasons[b.candidate_id] == "missing" and reasons[c.candidate_id] == "unreadable"
    assert reasons[d.candidate_id] == "unsafe_path"
    assert len(out.dropped) + len(out.tables[pipeline.MAIN]) == 4
    with pytest.raises(UserError, match="data root.*'toy'"):
        run_one(Segment("deeplab", "random", "cpu"), part)


def test_empty_masks_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        name = "blind@0"

        def __call__(self, prompts: list[Prompt]) -> list[Segmentation]:
            found = [np.ones(a.pixels.shape[:2], bool) for a in prompts]
            for m, a in zip(found, prompts, strict=True):
                x0, y0, x1, y1 = a.box.pixels()
                m[y0:y1, x0:x1] = False  # everything but the box
            return [Segmentation(m, 0.5) for m in found]

    monkeypatch.setattr(segment_stage, "built", lambda *a: Blind())
    part = harvest(tmp_path / "h", world(tmp_path, 3, "boxes"))[0]
    out = run_one(Segment("deeplab", None, "cpu", {"toy": str(tmp_path)}), part)
    assert {d.reason for d in out.dropped} == {"empty_mask"} and len(out.dropped) == 3


def test_a_trained_deeplab_finds_new_people_inside_their_boxes(toy: Path, trained: str) -> None:
    new = world(toy / "new", 56, "boxes")[44:]
    part = harvest(toy / "hnew", new)[0]
    out = run_one(Segment("deeplab", trained, "cpu", {"toy": str(toy / "new")}), part)
    made = out.tables[pipeline.MAIN]
    assert len(made) == len(new) and not out.dropped
    truth = [encode(person(i)[1]) for i in range(44, 56)]
    assert np.mean([s.mask.iou(t) for s, t in zip(made, truth, strict=True)]) > 0.7
    for s in made:
        box, outer = s.mask.box, Box(*map(float, s.candidate.box.pixels()))
        assert box.intersection(outer) == box.area
        assert s.segmenter.startswith("deeplab@") and len(s.segmenter) == len("deeplab@") + 12
        assert s.score > 0.5 and s.border_touch == 0


def test_the_same_bytes_with_one_and_two_workers(toy: Path, trained: str) -> None:
    harvest(toy / "h2", world(toy / "photos2", 9, "boxes"), per_part=3)
    digests = []
    for workers in (1, 2):
        stage = Segment("deeplab", trained, "cpu", {"toy": str(toy / "photos2")}, batch_size=2)
        job, items = segment_job(toy / f"seg{workers}", toy / "h2", stage)
        result = pipeline.Stage(job, items).run(workers=workers, quiet=True)
        digests.append(result.digest)
        assert result.counts["box_only"] == 9
    assert digests[0] == digests[1]


def test_parsings_of_the_source_stay_and_others_get_pseudo_labels(tmp_path: Path) -> None:
    own, without = world(tmp_path, 2, "parsings"), world(tmp_path, 5, "masks")[2:]
    harvest(tmp_path / "h", own + without)
    pipeline.Stage(*segment_job(tmp_path / "s", tmp_path / "h", Segment("source_mask"))).run(quiet=True)
    made = {}
    for parser, weights in (("source_parsing", None), ("hrnet", "random")):
        stage = Parse(parser, weights, "cpu", {"toy": str(tmp_path)})
        pipeline.Stage(*parse_job(tmp_path / parser, tmp_path / "s", stage)).run(quiet=True)
        made[parser] = list(parquet.read_records(tmp_path / parser, Segmented))
    assert [s.parser for s in made["source_parsing"]] == ["source_parsing@source"] * 2 + [""] * 3
    assert [s.parsing for s in made["source_parsing"]] == [c.parsing for c in own] + [None] * 3
    assert [s.parser for s in made["hrnet"]] == ["source_parsing@source"] * 2 + ["hrnet@random"] * 3
    for s in made["hrnet"]:
        assert s.parsing is not None
        np.testing.assert_array_equal(s.parsing.decode() > 0, s.mask.decode())


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.integers(1, 40), st.floats(1, 4))
def test_crops_stay_in_the_photo_and_pasting_stays_in_the_box(x: int, y: int, w: int, h: int, factor: float) -> None:
    box = Box(x, y + 0.5, x + w, y + h)
    crop = around(box, 40, 32, factor)
    cw, ch = int(crop.width), int(crop.height)
    assert cw >= 1 and ch >= 1 and crop == crop.clip(40, 32)
    full = kept_inside(np.ones((ch, cw), bool), crop, box, (32, 40))
    ys, xs = np.nonzero(full)
    assert all(box.x0 - 1 < i < box.x1 for i in xs) and all(box.y0 - 1 < i < box.y1 for i in ys)
    assert within(crop, crop) == Box(0, 0, crop.width, crop.height)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**30))
def test_border_pixels(h: int, w: int, seed: int) -> None:
    m = np.random.default_rng(seed).random((h, w)) < 0.5
    assert border_pixels(m) == sum(m[i, j] for i in range(h) for j in range(w) if i in (0, h - 1) or j in (0, w - 1))


# --- mirror -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**30))
def test_mirroring_swaps_sides_and_undoes_itself(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 20, (5, 7)).astype(np.uint8)
    turned = hrnet.mirrored(labels)
    np.testing.assert_array_equal(hrnet.mirrored(turned), labels)
    assert set(turned[labels[:, ::-1] == 14]) <= {15} and set(turned[labels[:, ::-1] == 19]) <= {18}
    np.testing.assert_array_equal(turned == 5, labels[:, ::-1] == 5)


class LeftIsBright(torch.nn.Module):
    """Says left arm where it is bright and right arm elsewhere, at stride 4."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = torch.nn.functional.avg_pool2d(x[:, :1], 4)
        out = torch.full((len(x), 20, *bright.shape[-2:]), -5.0)
        out[:, 14], out[:, 15] = bright[:, 0], -bright[:, 0]
        return out


def test_flip_averaging_of_a_side_blind_network_cancels_out() -> None:
    planes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    planes[..., :16] = 255
    p = hrnet.flip_average(LeftIsBright(), planes)
    torch.testing.assert_close(p[:, 14], p[:, 15])  # it never knew sides, so it must not claim to
    torch.testing.assert_close(p.sum(1), torch.ones(1, 32, 32))


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_training_resumes_repeats_and_its_name_is_the_digest(toy: Path, tmp_path: Path) -> None:
    parts = harvest(toy / "hparse", world(toy / "photos3", 6, "parsings"))
    roots = {"toy": str(toy / "photos3")}
    small = replace(hrnet_settings(), steps=4, save_every=2)
    data, how = Data(parts, roots), How(small, device="cpu", quiet=True)
    once = train(PARSERS, "hrnet", data, tmp_path / "a.safetensors", how)
    assert train(PARSERS, "hrnet", data, tmp_path / "a.safetensors", how) == once  # finished: nothing to do
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        calls = iter([None, None, None])

        def stops(*a: object) -> torch.Tensor:
            if next(calls, "stop") == "stop":
                raise KeyboardInterrupt
            return loss(*a)

        loss = hrnet.part_loss
        patch.setattr(hrnet, "part_loss", stops)
        train(PARSERS, "hrnet", data, tmp_path / "b.safetensors", how)
    assert not (tmp_path / "b.safetensors").exists()
    resumed = train(PARSERS, "hrnet", data, tmp_path / "b.safetensors", how)
    assert (resumed.name, resumed.value) == (once.name, once.value)
    assert hrnet.build(str(tmp_path / "b.safetensors"), device="cpu").name == once.name
    name = ".b.safetensors"
    for left in (f"{name}.partial", f"{name}.01234567.tmp", f".{name}.partial.01234567.tmp"):  # killed as it ended
        (tmp_path / left).write_bytes(b"left")
    assert train(PARSERS, "hrnet", data, tmp_path / "b.safetensors", how) == resumed
    assert sorted(p.name for p in tmp_path.iterdir() if ".timing." not in p.name) == ["a.safetensors", "b.safetensors"]


def hrnet_settings():  # type: ignore[no-untyped-def]
    return replace(hrnet.PRESETS["debug"], size=32, batch=2, pretrained="no")


def test_wrong_checkpoints_are_one_clear_line(tmp_path: Path, trained: str) -> None:
    cut, text, other = tmp_path / "cut.safetensors", tmp_path / "text.pt", tmp_path / "other.pt"
    cut.write_bytes(Path(trained).read_bytes()[:5000])
    text.write_text("no checkpoint")
    torch.save({"a": torch.zeros(1)}, other)
    for build in (deeplab.build, hrnet.build, mask_rcnn.build):
        for path in (cut, text, other, tmp_path / "none.safetensors", tmp_path):
            with pytest.raises(UserError, match="expected") as e:
                build(str(path), device="cpu")
            assert "\n" not in str(e.value) and str(path) in str(e.value)
    with pytest.raises(UserError, match="ahp-parser-1.*ahp-segmenter-2"):
        hrnet.build(trained, device="cpu")
    for build, way in ((deeplab.build, "ahp build segmenter"), (hrnet.build, "ahp build parser")):
        with pytest.raises(UserError, match=way):
            build(None, device="cpu")
    said = checkpoints.load_checkpoint(Path(trained), deeplab.KIND)
    short = replace(said, state={k: v for k, v in said.state.items() if "decoder" not in k})
    checkpoints.save_checkpoint(other, deeplab.KIND, short)
    with pytest.raises(UserError, match="do not fit"):
        deeplab.build(str(other), device="cpu")


def test_unknown_devices_and_precisions() -> None:
    with pytest.raises(UserError, match="device 'tpux'"):
        devices.pick_device("tpux")
    with pytest.raises(UserError, match="precision"):
        devices.compute_dtype(torch.device("cpu"), "fp8")
    assert devices.compute_dtype(torch.device("cpu")) == torch.float32


def test_digest_depends_on_names_shapes_and_bytes_only() -> None:
    a, b = torch.arange(6.0), torch.ones(2, 2)
    assert checkpoints.state_digest({"a": a, "b": b}) == checkpoints.state_digest({"b": b.t(), "a": a.clone()})
    changed = [{"a": a, "c": b}, {"a": a.reshape(2, 3), "b": b}, {"a": a + 1, "b": b}, {"a": a.double(), "b": b}]
    assert len({checkpoints.state_digest(s) for s in [{"a": a, "b": b}, *changed]}) == 5


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 70))
def test_padding(h: int, w: int) -> None:
    x = torch.ones(1, 1, h, w)
    y = tensors.pad_to_multiple(x, 32)
    assert y.shape[-2] % 32 == 0 and y.shape[-1] % 32 == 0 and y.sum() == h * w and y[0, 0, :h, :w].all()


def test_part_ious_leave_out_background_and_absent_parts() -> None:
    table = np.zeros((20, 20), np.int64)
    table[5, 5], table[5, 13], table[13, 13] = 6, 2, 8
    np.testing.assert_allclose(part_ious(table), [6 / 8, 8 / 10])


def test_expected_iou() -> None:
    assert deeplab.expected_iou(np.array([[1.0, 1.0, 0.0]], np.float32)) == 1.0
    assert deeplab.expected_iou(np.array([[0.8, 0.6, 0.2]], np.float32)) == pytest.approx(1.4 / 2.2, abs=1e-4)
    assert deeplab.expected_iou(np.zeros((2, 2), np.float32)) == 0.0


# --- published networks -------------------------------------------------------------------------------------------


class Detector(torch.nn.Module):
    """Answers as torchvision does: a dog on the spot, the person asked for, and a surer person elsewhere."""

    def forward(self, pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        out = []
        for p in pictures:
            boxes = torch.tensor([[20.0, 20, 60, 80], [22, 20, 60, 78], [70, 10, 90, 60]])
            masks = torch.zeros(3, 1, *p.shape[-2:])
            for m, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
                m[0, y0:y1, x0:x1] = 0.9
            scores = torch.tensor([0.99, 0.8, 0.95])
            out.append({"boxes": boxes, "labels": torch.tensor([18, 1, 1]), "masks": masks, "scores": scores})
        return out


def test_mask_rcnn_takes_the_person_that_matches_the_box() -> None:
    ready = mask_rcnn.InstanceSegmenter(Detector(), "mask_rcnn@x", torch.device("cpu"), 2, 100, "fp32")
    pixels = np.zeros((200, 160, 3), np.uint8)  # half size on the canvas
    asked, nobody = ready([Prompt(pixels, Box(40, 40, 120, 160)), Prompt(pixels, Box(0, 150, 30, 200))])
    want = np.zeros((200, 160), bool)
    want[40:156, 44:120] = True
    assert (asked.mask & want).sum() / (asked.mask | want).sum() > 0.95 and 0.7 < asked.score < 0.8
    assert not nobody.mask.any() and nobody.score == 0.0


def test_mask_rcnn_weights_from_a_file_and_none_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = mask_rcnn.build("random", device="cpu", size=64).net.state_dict()
    torch.save(state, tmp_path / "m.pth")
    ready = mask_rcnn.build(str(tmp_path / "m.pth"), device="cpu", size=64)
    assert ready.name == checkpoints.short_name("mask_rcnn", checkpoints.state_digest(state))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match="--segmenter-weights"):
        mask_rcnn.build(None, device="cpu")


def test_sam_from_a_folder(tmp_path: Path) -> None:
    tiny = sam.build("random", device="cpu")
    tiny.net.save_pretrained(tmp_path / "sam")
    tiny._processor.save_pretrained(tmp_path / "sam")
    ready = sam.build(str(tmp_path / "sam"), device="cpu", batch_size=2)
    assert ready.name.startswith("sam@") and ready.name != tiny.name
    for f, g in zip(ready(ASKS), tiny(ASKS), strict=True):
        np.testing.assert_array_equal(f.mask, g.mask)
    with pytest.raises(UserError, match="sam: .* cannot be loaded"):
        sam.build(str(tmp_path), device="cpu")
