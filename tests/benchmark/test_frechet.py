"""The distances of sets against SciPy's matrix square root, known answers, torchmetrics and pytorch-fid itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import linalg

from ahp_toolkit.core.errors import UserError
from benchmark.features import frechet as f
from benchmark.features.inception import find_weights, inception_network
from benchmark.metric import Absent


def by_sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(c1 @ c2)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * np.real(root)))


def features(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 20), (64, 64, 64), (300, 90, 60)])
def test_both_forms_against_scipy(n: int, m: int, d: int) -> None:
    x, y = features(n, d, 1), features(m, d, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = by_sqrtm(x, y)
    assert f.small_sample(x, y) == pytest.approx(expected, rel=1e-6)
    assert f.symmetric(x, y) == pytest.approx(expected, rel=1e-6)


def test_forms_agree_below_full_rank() -> None:
    x, y = features(30, 80, 3), features(25, 80, 4)
    assert f.small_sample(x, y) == pytest.approx(f.symmetric(x, y), rel=1e-6)
    assert f.frechet(x, y) == f.small_sample(x, y)


def test_known_answers() -> None:
    x = features(50, 8, 5)
    assert f.frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert f.frechet(x, x + 3) == pytest.approx(9 * 8)
    # scaling by 2 about the mean: Tr C (2 - 1)²
    mean = x.mean(0)
    assert f.frechet(x, mean + 2 * (x - mean)) == pytest.approx(np.trace(np.cov(x, rowvar=False)))
    with pytest.raises(ValueError, match="at least two"):
        f.frechet(x[:1], x)


def test_kernel_distance_against_sklearn() -> None:
    from sklearn.metrics.pairwise import polynomial_kernel

    x, y = features(30, 12, 8), features(30, 12, 9)
    kxx, kyy, kxy = (polynomial_kernel(p, q, degree=3, coef0=1) for p, q in ((x, x), (y, y), (x, y)))
    off = ~np.eye(30, dtype=bool)
    theirs = float(kxx[off].mean() + kyy[off].mean() - 2 * kxy.mean())
    assert f.kernel_distance(x, y) == pytest.approx(theirs)
    # paired sets: the truth itself gets -2 / n times (mean of the diagonal minus mean of the rest)
    assert f.kernel_distance(x, x) == pytest.approx(-2 / 30 * (kxx.diagonal().mean() - kxx[off].mean()))


def test_weights_are_checked(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("AHP_INCEPTION_WEIGHTS", raising=False)
    with pytest.raises(Absent, match="not found"):
        find_weights(None)
    wrong = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"other weights")
    with pytest.raises(Absent):
        find_weights(None)
    with pytest.raises(UserError, match="SHA-256"):
        find_weights(wrong)
    monkeypatch.setenv("AHP_INCEPTION_WEIGHTS", str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match="no such file"):
        find_weights(None)


def test_fid_equals_pytorch_fid(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The same seeded random network in both, the same files: the same figure to 1e-4."""
    import torch
    from pytorch_fid import fid_score, inception

    from ahp_toolkit.storage import images
    from benchmark.features.inception import Extractor

    torch.manual_seed(0)
    seeded = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    names = {"Mixed_5b": inception.FIDInceptionA(192, 32), "Mixed_5c": inception.FIDInceptionA(256, 64),
             "Mixed_5d": inception.FIDInceptionA(288, 64), "Mixed_6b": inception.FIDInceptionC(768, 128),
             "Mixed_6c": inception.FIDInceptionC(768, 160), "Mixed_6d": inception.FIDInceptionC(768, 160),
             "Mixed_6e": inception.FIDInceptionC(768, 192), "Mixed_7b": inception.FIDInceptionE_1(1280),
             "Mixed_7c": inception.FIDInceptionE_2(2048)}  # fmt: skip
    for name, module in names.items():
        setattr(seeded, name, module)
    for module in seeded.modules():  # running statistics that make folding mean something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    state = seeded.state_dict()
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: state)
    theirs = inception.InceptionV3([3])

    rng = np.random.default_rng(1)
    sets = [rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8) for _ in range(2)]
    sets[1] //= 2
    for k, pictures in enumerate(sets):
        for i, p in enumerate(pictures):
            images.write_png(tmp_path / str(k) / f"{i:02d}.png", p)
    files = [sorted(str(p) for p in (tmp_path / str(k)).glob("*.png")) for k in (0, 1)]
    acts = [fid_score.get_activations(names, theirs, 4, 2048, "cpu", 0) for names in files]
    our = Extractor("seeded", inception_network(state), None, "cpu")
    found = [our(p) for p in sets]
    # pytorch-fid's activations through the definition: C1 C2 and A Bt B At share their nonzero eigenvalues (its own
    # sqrtm of 2048 x 2048 takes a minute here; tests/harness/bench compares with that)
    (m1, a), (m2, b) = ((v.mean(0), (v - v.mean(0)) / np.sqrt(len(v) - 1)) for v in acts)
    values = np.linalg.eigvals(a @ b.T @ b @ a.T).real
    figure = float(((m1 - m2) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * np.sqrt(values.clip(0)).sum())
    assert f.frechet(*found) == pytest.approx(figure, rel=1e-4, abs=1e-4)
    assert found[0].mean(0) == pytest.approx(m1, abs=1e-4)
