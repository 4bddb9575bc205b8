"""Pairs of 64-bit hashes few bits apart, and groups of what is joined: for millions of photos, in arrays.

Two hashes at most ``HAMMING`` bits apart agree in all but that many of any number of bands of the 64 bits. So all pairs
are found by sorting on each choice of bands that may be the clean ones; more bands make longer keys and fewer false
meetings: with five bands the work grows with the square of the number from a few millions on, with eight it does not.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

HAMMING = 4
#: Bits between two photos of one scene; photos that are compared each with each (more would take minutes).
SCENE_HAMMING, SCENE_PHOTOS = 12, 100_000
_ROWS = 2048  # vectors compared at a time
Int = NDArray[np.int64]


def bands_for(n: int) -> int:
    """How many bands for ``n`` hashes: as many as make sorting, not comparing, the work."""
    return HAMMING + (1 if n < 2_000_000 else 2 if n < 50_000_000 else 3)


def near_pairs(values: NDArray[np.uint64], bands: int = 0) -> tuple[Int, Int]:
    """All pairs (a < b, by index) of hashes at most HAMMING bits apart, each once, sorted.

    Args:
        values: uint64 [N].
        bands: how many the bits are cut into, more than HAMMING; 0 chooses by N.
    """
    bands = bands or bands_for(values.size)
    cuts = [round(64 * k / bands) for k in range(bands + 1)]
    masks = np.array([((1 << (b - a)) - 1) << a for a, b in pairwise(cuts)], np.uint64)
    found = [_of_choice(values, masks, np.array(c, np.int64)) for c in combinations(range(bands), bands - HAMMING)]
    a, b = (np.concatenate([f[k] for f in found]) for k in (0, 1))
    order = np.lexsort((b, a))
    return a[order], b[order]


def _of_choice(values: NDArray[np.uint64], masks: NDArray[np.uint64], clean: Int) -> tuple[Int, Int]:
    keys = values & np.bitwise_or.reduce(masks[clean])
    order = np.argsort(keys, kind="stable")
    keys, own = keys[order], values[order]
    none = np.zeros(0, np.int64)
    n = _meet(keys, own, masks, clean, none, none)
    first, second = np.empty(n, np.int64), np.empty(n, np.int64)
    _meet(keys, own, masks, clean, first, second)
    a, b = order[first], order[second]
    return np.minimum(a, b), np.maximum(a, b)


@njit(cache=True)
def _meet(keys, values, masks, clean, first, second):  # type: ignore[no-untyped-def]
    """Count the near pairs of equal keys, and write them where there is room; a pair belongs to its first choice."""
    found = 0
    for i in range(keys.size):
        j = i + 1
        while j < keys.size and keys[j] == keys[i]:
            differ = values[i] ^ values[j]
            x = differ - ((differ >> np.uint64(1)) & np.uint64(0x5555555555555555))
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            if (x * np.uint64(0x0101010101010101)) >> np.uint64(56) <= np.uint64(HAMMING):
                band, k = 0, 0
                while k < clean.size:  # the first clean bands of the pair must be this choice
                    if differ & masks[band] == np.uint64(0):
                        if clean[k] != band:
                            break
                        k += 1
                    band += 1
                if k == clean.size:
                    if found < first.size:
                        first[found], second[found] = i, j
                    found += 1
            j += 1
    return found


def scene_pairs(values: NDArray[np.uint64]) -> tuple[Int, Int]:
    """Pairs (a < b, by index) of hashes at most SCENE_HAMMING bits apart; HAMMING of more than SCENE_PHOTOS hashes."""
    if values.size > SCENE_PHOTOS:
        return near_pairs(values)
    none = np.zeros(0, np.int64)
    n = _within(values, SCENE_HAMMING, none, none)
    first, second = np.empty(n, np.int64), np.empty(n, np.int64)
    _within(values, SCENE_HAMMING, first, second)
    return first, second


@njit(cache=True)
def _within(values, most, first, second):  # type: ignore[no-untyped-def]
    """Count the pairs at most so many bits apart, and write them where there is room."""
    found = 0
    for i in range(values.size):
        for j in range(i + 1, values.size):
            x = values[i] ^ values[j]
            x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            if (x * np.uint64(0x0101010101010101)) >> np.uint64(56) <= np.uint64(most):
                if found < first.size:
                    first[found], second[found] = i, j
                found += 1
    return found


def like_pairs(vectors: NDArray[np.float32], least: float) -> tuple[Int, Int]:
    """Pairs (a < b, by index) of vectors whose cosine is at least ``least``.

    Args:
        vectors: float32 [N, D], an embedding of each photo by any network; a row of zeros has no pair.
    """
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    found = [np.zeros((0, 2), np.int64)]
    for k in range(0, len(unit), _ROWS):
        i, j = np.nonzero(unit[k : k + _ROWS] @ unit.T >= least)
        found.append(np.stack([i + k, j], 1)[i + k < j])
    pairs = np.concatenate(found)
    return pairs[:, 0], pairs[:, 1]


@njit(cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def union(parent, first, second):  # type: ignore[no-untyped-def]
    """Join the groups of ``first[k]`` and ``second[k]`` for all k, in place; the lowest index is a group's root."""
    for k in range(first.size):
        a, b = _root(parent, first[k]), _root(parent, second[k])
        parent[max(a, b)] = min(a, b)


@njit(cache=True)
def roots(parent):  # type: ignore[no-untyped-def]
    """The root of every index, int64 [N]."""
    out = np.empty_like(parent)
    for i in range(parent.size):
        out[i] = _root(parent, i)
    return out
