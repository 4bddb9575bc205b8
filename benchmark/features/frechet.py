"""The Fréchet distance between two sets of features, and the kernel distance (KID), exact and fast (performance §3).

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


def frechet_replicates(x: Features, y: Features, weights: Floats) -> Floats:
    """Fréchet distance for each row of weights [B, n] on both sets; NaN with fewer than two rows drawn.

    With n < d every replicate works on the n x n product of the two sets, made once.
    """
    if len(x) >= x.shape[1]:
        return np.array([_repeated(x, y, w) for w in weights])
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    # distances do not change with a common shift; the smaller numbers keep the products exact
    shift = y.mean(0)
    x, y = x - shift, y - shift
    xy, xx, yy = x @ y.T, x @ x.T, y @ y.T
    return np.array([_from_products(xx, yy, xy, w) for w in weights])


def _repeated(x: Features, y: Features, w: Floats) -> float:
    index = np.repeat(np.arange(len(w)), w.astype(int))
    return frechet(x[index], y[index]) if len(index) > 1 else float("nan")


def _from_products(xx: Floats, yy: Floats, xy: Floats, weights: Floats) -> float:
    """The small-sample form from inner products of rows, each row counted ``weights`` times."""
    kept = np.flatnonzero(weights)
    w, total = weights[kept], weights.sum()
    if total < 2:
        return float("nan")
    u = w / total
    xx, yy, xy = (p[np.ix_(kept, kept)] for p in (xx, yy, xy))
    mx, my, mm = u @ xx @ u, u @ yy @ u, u @ xy @ u
    traces = ((w @ xx.diagonal()) - total * mx + (w @ yy.diagonal()) - total * my) / (total - 1)
    centred = xy - (u @ xy)[None, :] - (xy @ u)[:, None] + mm
    root = np.sqrt(w)
    product = centred * root[:, None] * root[None, :] / (total - 1)
    values = np.linalg.svd(product, compute_uv=False)
    return max(0.0, float(mx + my - 2 * mm + traces - 2 * values.sum()))


def kernel_distance(x: Features, y: Features, weights: Floats | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (KID), the whole set as one subset."""
    return float(kernel_replicates(x, y, np.ones((1, len(x))) if weights is None else weights[None])[0])


def kernel_replicates(x: Features, y: Features, weights: Floats) -> Floats:
    """`kernel_distance` for each row of weights [B, n] on both sets; a row is never paired with its own copies.

    Two sets of one length: sample i of one set belongs to sample i of the other.
    """
    total = weights.sum(1)
    same = _off_diagonal(_kernel(x, x), weights) + _off_diagonal(_kernel(y, y), weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = ((weights @ _kernel(x, y)) * weights).sum(1) / total**2
    return np.asarray(same - 2 * cross, np.float64)


def _kernel(a: Features, b: Features) -> Floats:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3, np.float64)


def _off_diagonal(kernel: Floats, weights: Floats) -> Floats:
    sums = ((weights @ kernel) * weights).sum(1) - (weights**2) @ kernel.diagonal()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums / (weights.sum(1) ** 2 - (weights**2).sum(1)), np.float64)
