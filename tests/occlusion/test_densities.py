"""Densities: parsing, quotas, and targets that are uniform inside their bins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.occlusion.densities import PRESETS, Density, assign, parse, quota, widen


def test_presets_are_the_papers() -> None:
    assert [b[:2] for b in PRESETS["train"].bins] == [(0, 0.1), (0.1, 0.2), (0.3, 0.4)]
    assert [b[:2] for b in PRESETS["val"].bins] == [(0, 0.1), (0.1, 0.2), (0.3, 0.4), (0.4, 0.5)]
    assert quota(PRESETS["val"], 891) == (223, 223, 223, 222)
    assert PRESETS["train"].shares == pytest.approx([1 / 3] * 3)


def test_no_overlap_is_in_no_bin() -> None:
    assert PRESETS["val"].bin_of(0.0) is None
    assert PRESETS["val"].bin_of(1e-9) == 0
    assert PRESETS["val"].bin_of(0.1) == 1
    assert PRESETS["val"].bin_of(0.25) is None


@pytest.mark.parametrize(
    "text",
    ["", "tran", "0-0.1:0", "0.1-0.1:1", "0.2-0.1", "0-1.5:1", "0-0.2:1,0.1-0.3:1", "0-0.1:x", "0-0.1.2:1", "-1-0:1"],
)
def test_nonsense_is_a_one_line_user_error(text: str) -> None:
    with pytest.raises(UserError) as e:
        parse(text)
    assert "\n" not in str(e.value)


@st.composite
def densities(draw: st.DrawFn) -> Density:
    edges = sorted(draw(st.lists(st.integers(0, 10**6), min_size=2, max_size=9, unique=True)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    weights = [draw(st.integers(0, 50)) / 8 for _ in pairs]
    weights[0] += 0.125
    return Density(tuple((a / 10**6, b / 10**6, w) for (a, b), w in zip(pairs, weights, strict=True)))


@given(densities(), st.integers(0, 500))
def test_round_trip_and_quota(density: Density, n: int) -> None:
    assert parse(str(density)) == density
    counts = quota(density, n)
    assert sum(counts) == n
    assert all(abs(c - s * n) < 1 + 1e-6 for c, s in zip(counts, density.shares, strict=True))


@given(densities(), st.integers(1, 120), st.integers(0, 99), st.floats(0, 1))
def test_targets_cut_each_bin_into_one_slice_a_sample(density: Density, n: int, seed: int, share: float) -> None:
    targets = assign(density, n, seed)
    assert targets == assign(density, n, seed)
    for i, count in enumerate(quota(density, n)):
        low, high = density.interval(i)
        own = sorted(t for t in targets if t.bin == i)
        assert len(own) == count
        if own:
            assert own[0].low == low and own[-1].high == high
            assert all(a.high == b.low for a, b in pairwise(own))
    a, b = widen(targets[0], density, share)
    low, high = density.interval(targets[0].bin)
    assert low <= a <= targets[0].low + 1e-12 and targets[0].high - 1e-12 <= b <= high


def test_pick_follows_the_shares() -> None:
    picked = [parse("0-0.1:1,0.1-0.2:3").pick(u) for u in np.linspace(0, 0.999999, 1000)]
    assert picked.count(0) == pytest.approx(250, abs=1)
