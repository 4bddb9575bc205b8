"""Structural similarity of the recovered pictures (Wang et al., 2004; spec §7)."""

from __future__ import annotations

import cv2
import numpy as np

from benchmark.metric import GreyExample, PictureBatch, Ratio, Rows, mean_rows

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two pictures, float64 [H, W, 3] in [0, 1], over the pixels whose window lies inside."""

    def mean(x: np.ndarray) -> np.ndarray:
        edge = _WINDOW // 2
        blurred = cv2.GaussianBlur(x, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred[edge:-edge, edge:-edge])

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    top = (2 * ma * mb + _C1) * (2 * cov + _C2)
    return float((top / ((ma * ma + mb * mb + _C1) * (va + vb + _C2))).mean())


class Ssim(Ratio):
    """Structural similarity of the recovered pictures."""

    name = "ssim"
    board = "content"
    unit = "ratio"
    bounds = (-1.0, 1.0)
    higher_is_better = True
    definition = (
        "Mean over samples of SSIM (Wang et al., 2004) between the recovered and the true picture: Gaussian window "
        "11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, values in [0, 1], each RGB channel by itself, averaged over "
        "channels and over the pixels of the 256x256 crop whose window lies inside."
    )
    # uniform pictures have no variance: (2 * .4 * .2 + C1) / (.4² + .2² + C1)
    examples = (GreyExample([102], [51], 0.1601 / 0.2001), GreyExample([80], [80], 1.0))

    def rows_of(self, batch: PictureBatch) -> Rows:
        """(SSIM, 1) of each sample."""
        pairs = zip(*batch.floats, strict=True)
        return mean_rows(np.array([ssim(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs]))


METRICS = (Ssim,)
