"""The metric contract over the registry, and every metric against somebody else's implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from benchmark.features.counts import areas, pair_areas
from benchmark.features.inception import Extractor
from benchmark.metric import METRICS, MaskBatch, MaskExample, PictureBatch
from tests.benchmark.networks import backbone, ready

NAMES = METRICS.names()
MASKS = [n for n in NAMES if METRICS.get(n).board == "mask"]


def masks(seed: int, n: int = 6, side: int = 40) -> MaskBatch:
    rng = np.random.default_rng(seed)
    true_amodal = rng.random((n, side, side)) < 0.5
    true_amodal[1] = False
    true_amodal[2] = True
    true_amodal[3] = False
    true_amodal[3, 7, 9] = True
    amodal = true_amodal ^ (rng.random(true_amodal.shape) < 0.2)
    amodal[0] = False
    modal = amodal & (rng.random(true_amodal.shape) < 0.7)
    return MaskBatch(amodal, modal, true_amodal, true_amodal & (rng.random(true_amodal.shape) < 0.7))


def pictures(seed: int, n: int = 6, side: int = 64) -> PictureBatch:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    images = np.clip(truth.astype(int) + rng.integers(-60, 60, truth.shape), 0, 255).astype(np.uint8)
    invisible = rng.random((n, side, side)) < 0.3
    invisible[0] = False
    return PictureBatch(images, truth, invisible)


def batch_of(name: str, seed: int):  # type: ignore[no-untyped-def]
    return masks(seed) if name in MASKS else pictures(seed)


def perfect(batch):  # type: ignore[no-untyped-def]
    if isinstance(batch, MaskBatch):
        return MaskBatch(batch.true_amodal, batch.true_modal, batch.true_amodal, batch.true_modal)
    return PictureBatch(batch.truth, batch.truth, batch.invisible)


@pytest.mark.parametrize("name", NAMES)
def test_states_its_facts(name: str) -> None:
    cls = METRICS.get(name)
    assert cls.name == name and cls.board in ("mask", "content")
    assert cls.bounds[0] < cls.bounds[1] and len(cls.definition) > 40 and "  " not in cls.definition
    assert METRICS.get(name).examples


@pytest.mark.parametrize("name", NAMES)
def test_examples_hold(name: str) -> None:
    for example in METRICS.get(name).examples:
        metric = ready(name)
        metric.update(example.batch())
        assert metric.compute() == pytest.approx(example.value, abs=1e-6)
        if isinstance(example, MaskExample):
            assert example.batch().amodal.shape == example.batch().true_modal.shape


@pytest.mark.parametrize("name", NAMES)
def test_perfect_is_the_bound(name: str) -> None:
    metric = ready(name)
    metric.update(perfect(batch_of(name, 3)))
    if name == "kid":
        assert metric.compute() <= metric.best()
    else:
        assert metric.compute() == pytest.approx(metric.best(), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_merge_order_and_bounds(name: str) -> None:
    first, second = batch_of(name, 1), batch_of(name, 2)
    whole, half, other = (ready(name) for _ in range(3))
    whole.update(first)
    whole.update(second)
    half.update(second)
    other.update(first)
    half.merge(other)
    assert half.compute() == pytest.approx(whole.compute(), rel=1e-9, abs=1e-12)
    assert whole.bounds[0] <= whole.compute() <= whole.bounds[1]
    assert len(whole.rows) == len(whole.each(whole.rows)) == 12


def coco_iou(p: np.ndarray, g: np.ndarray) -> float:
    if not p.any() and not g.any():
        return 1.0
    p, g = (coco.encode(np.asfortranarray(m, dtype=np.uint8)) for m in (p, g))
    return float(coco.iou([p], [g], [0])[0, 0])


@pytest.mark.parametrize("seed", range(3))
def test_iou_against_pycocotools(seed: int) -> None:
    b = masks(seed)
    for name, p, g in (
        ("iou_amodal", b.amodal, b.true_amodal),
        ("iou_modal", b.modal, b.true_modal),
        ("iou_invisible", b.amodal & ~b.modal, b.true_amodal & ~b.true_modal),
        ("iou_invisible_gtvis", b.amodal & ~b.true_modal, b.true_amodal & ~b.true_modal),
    ):
        metric = METRICS.get(name)()
        metric.update(b)
        expected = [coco_iou(x, y) for x, y in zip(p, g, strict=True)]
        assert metric.each(metric.rows) == pytest.approx(expected)
        assert metric.compute() == pytest.approx(np.mean(expected))


def test_global_iou_against_torchmetrics() -> None:
    import torch
    from torchmetrics.classification import BinaryJaccardIndex

    b = masks(9)
    for name, p, g in (
        ("iou_amodal_global", b.amodal, b.true_amodal),
        ("iou_modal_global", b.modal, b.true_modal),
        ("iou_invisible_global", b.amodal & ~b.true_modal, b.true_amodal & ~b.true_modal),
    ):
        metric = METRICS.get(name)()
        metric.update(b)
        theirs = BinaryJaccardIndex()(torch.from_numpy(p.astype(np.int64)), torch.from_numpy(g.astype(np.int64)))
        assert metric.compute() == pytest.approx(float(theirs))


def test_l1_against_numpy() -> None:
    b = masks(4)
    p, g = b.amodal.astype(float), b.true_amodal.astype(float)
    relative = [np.abs(x - y).sum() / max(1, y.sum()) for x, y in zip(p, g, strict=True)]
    for name, expected in (("l1_mask", np.mean(relative)), ("l1_mask_pixel", np.abs(p - g).mean())):
        metric = METRICS.get(name)()
        metric.update(b)
        assert metric.compute() == pytest.approx(expected)


def test_boundary_region_against_scipy() -> None:
    from scipy.ndimage import binary_erosion

    from benchmark.metrics.boundary import boundary

    rng = np.random.default_rng(0)
    found = np.zeros((3, 256, 256), bool)
    found[0, 40:200, 60:180] = True
    found[1] = True
    found[2] = binary_erosion(rng.random((256, 256)) < 0.97, iterations=2)
    theirs = [m & ~binary_erosion(m, np.ones((3, 3)), iterations=7, border_value=0) for m in found]
    assert np.array_equal(boundary(found), np.stack(theirs))


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, (4, 5, 7)))
def test_areas_against_numpy(m: np.ndarray) -> None:
    pa, pm, ga, gm = (x[None] for x in m)
    a = areas(pa, pm, ga, gm)
    expected = [pa, ga, pa & ga, pm, gm, pm & gm, pa & ~pm, ga & ~gm, pa & ~pm & ga & ~gm, pa & ~gm, pa & ga & ~gm]
    assert [int(v[0]) for v in a] == [int(e.sum()) for e in expected]
    assert pair_areas(pa, ga)[0].tolist() == [pa.sum(), ga.sum(), (pa & ga).sum()]


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=10, deadline=None)
def test_full_masks_do_not_overflow(h: int, w: int) -> None:
    full = np.ones((1, h, w), bool)
    assert pair_areas(full, full)[0].tolist() == [h * w] * 3


def test_pictures_against_skimage_and_torchmetrics() -> None:
    import torch
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    b = pictures(7)
    ours = {}
    for name in ("ssim", "psnr", "l1_image", "l1_invisible"):
        metric = METRICS.get(name)()
        metric.update(b)
        ours[name] = metric.compute()
    a, t = (x.astype(np.float64) / 255 for x in (b.images, b.truth))
    rule = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = [structural_similarity(x, y, channel_axis=2, data_range=1.0, **rule) for x, y in zip(a, t, strict=True)]
    assert ours["ssim"] == pytest.approx(np.mean(theirs), abs=1e-6)
    measure = StructuralSimilarityIndexMeasure(data_range=1.0)
    tensors = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in (a, t))
    assert ours["ssim"] == pytest.approx(float(measure(*tensors)), abs=1e-3)  # theirs averages the border too
    theirs = [peak_signal_noise_ratio(y, x, data_range=1.0) for x, y in zip(a, t, strict=True)]
    assert ours["psnr"] == pytest.approx(np.mean(theirs), rel=1e-6)
    assert ours["l1_image"] == pytest.approx(np.abs(a - t).mean(), rel=1e-6)
    inside = [np.abs(x - y)[m].mean() for x, y, m in zip(a, t, b.invisible, strict=True) if m.any()]
    assert len(inside) == 5 and ours["l1_invisible"] == pytest.approx(np.mean(inside), rel=1e-6)


def test_lpips_against_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.image.lpips import _LPIPS

    from benchmark.features.perceptual import Lpips, linear_weights

    b, state = pictures(8, n=3), backbone()
    theirs = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    flat = {k: v for s in theirs.net.children() for k, v in s.named_parameters()}
    with torch.no_grad():
        for k, v in flat.items():
            v.copy_(state[k])
    tensors = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (b.images, b.truth))
    with torch.no_grad():
        expected = theirs(*tensors).flatten().numpy()
    assert Lpips(state, linear_weights())(b.images, b.truth) == pytest.approx(expected, rel=1e-4)


def test_true_features_are_cached_by_pixels(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import torch

    calls = []

    def network(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x.mean((2, 3))

    b = pictures(1, n=3)
    first = Extractor("t", network, tmp_path, "cpu").known(b.truth)
    again = Extractor("t", network, tmp_path, "cpu").known(b.truth)
    assert calls == [3] and np.array_equal(first, again)
