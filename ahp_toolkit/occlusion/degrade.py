"""Simulated initial masks: the true modal mask spoilt as a detector spoils it, at a wanted modal IoU.

Mask heads err in three ways: they are coarse (28x28 over the box), their outline wanders slowly, and now and then they
miss a part or take a piece of what stands beside. All three grow with one strength, found by bisection, so that each
mask has the IoU that was drawn for it. The mean over a split is the wanted one (77.5 %: the paper's detector, Table 4).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core.masks import Bool2D
from ..core.store import unit_hash

SPREAD = 0.09  # half width of the per-sample IoU around the mean
TOLERANCE = 0.004
STEPS = 24


def wanted_iou(seed: int, mean: float) -> float:
    """The IoU drawn for one sample: triangular around the mean, never above .995."""
    spread = min(SPREAD, 0.995 - mean) if mean < 0.995 else 0.0
    return mean + spread * (unit_hash("iou", seed, 0) + unit_hash("iou", seed, 1) - 1.0)


def simulate(modal: Bool2D, seed: int, iou: float = 0.775) -> Bool2D:
    """A degraded copy of a modal mask, bool [H, W]; an empty mask stays empty.

    Args:
        modal: bool [H, W], the true visible pixels.
        seed: decides the errors and the sample's own IoU.
        iou: mean modal IoU over many samples, in (0, 1].
    """
    if not modal.any() or iou >= 1.0:
        return modal.copy()
    ys, xs = np.flatnonzero(modal.any(axis=1)), np.flatnonzero(modal.any(axis=0))
    size = max(ys[-1] - ys[0], xs[-1] - xs[0]) + 1
    pad = max(4, int(size) // 4)
    y0, y1 = max(0, ys[0] - pad), min(modal.shape[0], ys[-1] + 1 + pad)
    x0, x1 = max(0, xs[0] - pad), min(modal.shape[1], xs[-1] + 1 + pad)
    out = np.zeros_like(modal)
    out[y0:y1, x0:x1] = _spoil(modal[y0:y1, x0:x1], float(size), seed, wanted_iou(seed, iou))
    return out


def _spoil(mask: Bool2D, size: float, seed: int, wanted: float) -> Bool2D:
    rng = np.random.Generator(np.random.PCG64(seed & (2**63 - 1)))
    field = _distance(mask) / size
    error = _noise(rng, mask.shape, 5) * 0.7 + _noise(rng, mask.shape, 14) * 0.3
    blob = _blob(rng, mask, size)
    low, high, best, gap = 0.0, 1.0, mask, 1.0 - wanted
    for _ in range(STEPS):
        strength = (low + high) / 2
        made = _coarse(field + strength * (0.35 * error + blob), strength) > 0
        got = float((made & mask).sum() / max(1, (made | mask).sum()))
        if abs(got - wanted) < gap:
            best, gap = made, abs(got - wanted)
        if gap <= TOLERANCE:
            break
        low, high = (strength, high) if got > wanted else (low, strength)
    return best


def _distance(mask: Bool2D) -> NDArray[np.float32]:
    """Signed distance to the outline, px, positive inside."""
    m = mask.astype(np.uint8)
    inside = cv2.distanceTransform(m, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - m, cv2.DIST_L2, 5)
    return np.asarray(inside - outside, np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> NDArray[np.float32]:
    """A smooth field in about [-1, 1] that varies over 1 / ``cells`` of the frame."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _blob(rng: np.random.Generator, mask: Bool2D, size: float) -> NDArray[np.float32]:
    """A piece at the outline that is missed or taken: a bump of one sign around a random outline pixel."""
    edge = np.argwhere(mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool))
    y, x = edge[rng.integers(len(edge))]
    radius = size * rng.uniform(0.08, 0.22)
    sign = -1.0 if rng.random() < 0.6 else 1.0
    yy, xx = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return np.asarray(sign * 0.6 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * radius**2)), np.float32)


def _coarse(field: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """The field as a mask head of 28 cells over the frame sees it, the more so the stronger the error."""
    h, w = field.shape
    cells = max(28, round(112 * (1 - strength)))
    small = cv2.resize(field, (min(cells, w), min(cells, h)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
