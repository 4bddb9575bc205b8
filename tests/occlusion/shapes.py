"""Small masks for the occlusion tests and benchmarks: seeded blobs with limbs, holes and separate parts."""

from __future__ import annotations

import numpy as np

from ahp_toolkit.core.masks import Bool2D


def blob(seed: int, height: int, width: int, margin: int = 6) -> Bool2D:
    """bool [height, width]: a union of ellipses minus one, never empty, ``margin`` px away from the frame."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:height, :width]
    out = np.zeros((height, width), np.bool_)
    for k in range(5):
        cy, cx = rng.uniform(0.3, 0.7, 2) * (height, width)
        ry, rx = rng.uniform(0.06, 0.28, 2) * (height, width)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        out = out & ~inside if k == 3 else out | inside
    out[:margin], out[-margin:], out[:, :margin], out[:, -margin:] = False, False, False, False
    out[height // 2, width // 2] = True
    return out


def tight(mask: Bool2D) -> Bool2D:
    """The mask cut to its true pixels."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """RGB uint8 [height, width, 3]: random colours."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
