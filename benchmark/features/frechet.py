"""The Fréchet distance between two sets of features, and the kernel distance (KID), exact and fast.

d² = |m1 - m2|² + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2), with C = AᵀA and A the centred features / sqrt(n - 1). With fewer
samples than dimensions the last trace is the sum of the singular values of A1 A2ᵀ, an n x n matrix; with more, the sum
of the square roots of the eigenvalues of the symmetric S C2 S, S = C1^(1/2). Neither calls a matrix square root that
SciPy may change, and neither adds an epsilon.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


def frechet(x: Features, y: Features) -> float:
    """Fréchet distance of features [n, d] and [m, d]; the form is chosen by n, m and d.

    Raises:
        ValueError: with fewer than two rows on a side, or different dimensions.
    """
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"expected two sets of at least two features of one length, got {x.shape} and {y.shape}")
    small = min(len(x), len(y)) < x.shape[1]
    return (small_sample if small else symmetric)(x, y)


def _centred(x: Features) -> tuple[Floats, Floats]:
    x = np.asarray(x, np.float64)
    mean = x.mean(0)
    return mean, (x - mean) / np.sqrt(len(x) - 1)


def small_sample(x: Features, y: Features) -> float:
    """The form for n < d: singular values of the product of the two centred feature matrices."""
    (m1, a), (m2, b) = _centred(x), _centred(y)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(((m1 - m2) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * root))


def symmetric(x: Features, y: Features) -> float:
    """The form for n >= d: two symmetric eigenvalue problems of size d."""
    (m1, a), (m2, b) = _centred(x), _centred(y)
    values, vectors = np.linalg.eigh(a.T @ a)
    bs = (b @ vectors) * np.sqrt(values.clip(0))
    root = np.sqrt(np.linalg.eigvalsh(bs.T @ bs).clip(0)).sum()
    return max(0.0, float(((m1 - m2) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * root))


def kernel_distance(x: Features, y: Features) -> float:
    """Squared maximum mean discrepancy of features [n, d] and [m, d] with the kernel (x·y / d + 1)³, unbiased (KID)."""
    same = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (_kernel(x, x), _kernel(y, y))]
    return float(sum(same) - 2 * _kernel(x, y).mean())


def _kernel(a: Features, b: Features) -> Floats:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3, np.float64)
