"""All mask areas the metrics need, in one pass over the pixels (performance §3).

Masks come as 0/1 bytes, read eight pixels at a time as one uint64. Bytes are summed lane by lane in blocks of at most
255 words, so that no lane overflows and the inner loop is nothing but AND and ADD.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Lanes = NDArray[np.uint64]
Counts = NDArray[np.int64]
_BLOCK = 255  # words: the most that eight byte lanes of ones can add up without overflow


class Areas(NamedTuple):
    """Areas in px of n samples, int64 [n] each; P predicted, G ground truth; a amodal, m modal, i invisible.

    ``pa_hidden`` is the predicted amodal mask outside the ground-truth modal one.
    """

    pa: Counts
    ga: Counts
    pa_ga: Counts
    pm: Counts
    gm: Counts
    pm_gm: Counts
    pi: Counts
    gi: Counts
    pi_gi: Counts
    pa_hidden: Counts
    pa_gi: Counts


def lanes_of(masks: NDArray[np.bool_]) -> Lanes:
    """bool [n, H, W] to uint64 [n, ceil(H * W / 8)] of 0/1 bytes, without a copy where H * W divides by 8."""
    flat = np.ascontiguousarray(masks).reshape(len(masks), -1).view(np.uint8)
    if flat.shape[1] % 8:
        flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 8)))
    return flat.view(np.uint64)


@njit(cache=True)
def _fold(lanes):  # type: ignore[no-untyped-def]
    """The sum of the eight bytes of a uint64."""
    pairs = (lanes & np.uint64(0x00FF00FF00FF00FF)) + ((lanes >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
    return np.int64((pairs * np.uint64(0x0001000100010001)) >> np.uint64(48))


@njit(cache=True)
def _pair_row(p, g, out):  # type: ignore[no-untyped-def]
    for start in range(0, p.size, _BLOCK):
        x, y = p[start : start + _BLOCK], g[start : start + _BLOCK]
        a = b = c = np.uint64(0)
        for k in range(x.size):
            a += x[k]
            b += y[k]
            c += x[k] & y[k]
        out[0] += _fold(a)
        out[1] += _fold(b)
        out[2] += _fold(c)


@njit(cache=True)
def _four_row(pa, pm, ga, gm, out):  # type: ignore[no-untyped-def]
    for start in range(0, pa.size, _BLOCK):
        stop = start + _BLOCK
        w, x, y, z = pa[start:stop], pm[start:stop], ga[start:stop], gm[start:stop]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = np.uint64(0)
        for k in range(w.size):
            a, m, g, v = w[k], x[k], y[k], z[k]
            # x & ~y of 0/1 bytes
            pi, gi = a & ~m, g & ~v
            s0 += a
            s1 += g
            s2 += a & g
            s3 += m
            s4 += v
            s5 += m & v
            s6 += pi
            s7 += gi
            s8 += pi & gi
            s9 += a & ~v
            s10 += a & gi
        for j, s in enumerate((s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10)):
            out[j] += _fold(s)


@njit(cache=True)
def _pairs(p, g, out):  # type: ignore[no-untyped-def]
    for i in range(p.shape[0]):
        _pair_row(p[i], g[i], out[i])


@njit(cache=True)
def _fours(pa, pm, ga, gm, out):  # type: ignore[no-untyped-def]
    for i in range(pa.shape[0]):
        _four_row(pa[i], pm[i], ga[i], gm[i], out[i])


def pair_areas(p: NDArray[np.bool_], g: NDArray[np.bool_]) -> Counts:
    """bool [n, H, W] twice to int64 [n, 3]: area of P, of G, of P AND G, in px."""
    out = np.zeros((len(p), 3), np.int64)
    _pairs(lanes_of(p), lanes_of(g), out)
    return out


def areas(
    amodal: NDArray[np.bool_], modal: NDArray[np.bool_], true_amodal: NDArray[np.bool_], true_modal: NDArray[np.bool_]
) -> Areas:
    """Four stacks bool [n, H, W] to all areas that the mask metrics are made of."""
    out = np.zeros((len(amodal), len(Areas._fields)), np.int64)
    _fours(lanes_of(amodal), lanes_of(modal), lanes_of(true_amodal), lanes_of(true_modal), out)
    return Areas(*out.T)
