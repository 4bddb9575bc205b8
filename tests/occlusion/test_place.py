"""Placements: always in the interval on final pixels, infeasible only where brute force finds nothing, uniform."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import seed_of
from ahp_toolkit.core.masks import Bool2D, encode
from ahp_toolkit.core.records import Placement
from ahp_toolkit.occlusion.densities import PRESETS, assign
from ahp_toolkit.occlusion.place import (  # fmt: skip
    Infeasible,
    Placed,
    Settings,
    counts_of,
    occluder_at,
    pack,
    place,
    place_target,
    ratio_of,
    reach,
)
from tests.occlusion.shapes import blob, tight

NATIVE = Settings(mode="uniform", scale=(1, 1), relative_to="occluder", flip=False)
INTERVALS = [(0.0, 0.1), (0.1, 0.2), (0.3, 0.4), (0.4, 0.5)]


def masks(max_side: int) -> st.SearchStrategy[Bool2D]:
    """Random bits: the hardest runs there are."""
    side = st.integers(1, max_side)
    return st.builds(
        lambda h, w, seed, p: tight(_never_empty(np.random.Generator(np.random.PCG64(seed)).random((h, w)) < p)),
        side, side, st.integers(0, 10**6), st.sampled_from([0.2, 0.6, 0.95]),
    )  # fmt: skip


def _never_empty(mask: Bool2D) -> Bool2D:
    mask[0, 0] = True
    return mask


def brute(human: Bool2D, other: Bool2D) -> dict[tuple[int, int], int]:
    """Overlap of every translation, pixel by pixel."""
    (h, w), (oh, ow) = human.shape, other.shape
    padded = np.pad(human, ((oh, oh), (ow, ow)))
    return {
        (dx, dy): int((padded[dy + oh : dy + 2 * oh, dx + ow : dx + 2 * ow] & other).sum())
        for dx in range(1 - ow, w)
        for dy in range(1 - oh, h)
    }


@settings(deadline=None, max_examples=60)
@given(masks(90), st.booleans(), st.integers(0, 40), st.integers(0, 40))
def test_packing_a_mask_or_its_rle_is_the_same(mask: Bool2D, rle: bool, top: int, left: int) -> None:
    full = np.pad(mask, ((top, 3), (left, 5)))
    packed = pack(encode(full) if rle else full)
    assert (packed.x0, packed.y0, packed.width, packed.height) == (left, top, mask.shape[1], mask.shape[0])
    assert packed.area == mask.sum()
    assert np.array_equal(packed.columns, mask.sum(axis=0)) and np.array_equal(packed.rows, mask.sum(axis=1))
    bits = np.unpackbits(np.ascontiguousarray(packed.bits[:, 1:-1]).view(np.uint8), axis=1, bitorder="little")
    assert np.array_equal(bits[:, : mask.shape[0]].T.astype(bool), mask) and bits.sum() == mask.sum()


@settings(deadline=None, max_examples=80)
@given(masks(24), masks(24), st.sampled_from(INTERVALS), st.integers(0, 9), st.sampled_from([0, 3, 200]))
def test_placed_or_proven_infeasible(human: Bool2D, other: Bool2D, interval, seed: int, tries: int) -> None:
    for mode in ("uniform", "stratified"):
        setting = Settings(mode, (1, 1), "occluder", flip=False, tries=tries)
        found = place(pack(human), pack(other), interval, seed, setting)
        ratios = [c / human.sum() for c in brute(human, other).values() if c]
        possible = [r for r in ratios if interval[0] <= r < interval[1]]
        if isinstance(found, Infeasible):
            assert not possible
            assert found.low <= min(ratios) and max(ratios) <= found.high
        else:
            assert found.ratio == ratio_of(human, [other], [found.placement])
            assert found.ratio in possible
        assert reach(pack(human), pack(other), setting) == (min(ratios), max(ratios))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(INTERVALS), st.sampled_from(["uniform", "stratified"]), st.booleans())
def test_every_placement_has_its_ratio_on_final_pixels(seed: int, interval, mode: str, relative: bool) -> None:
    human, other = blob(seed, 120, 90), tight(blob(seed + 1, 60, 80))
    setting = Settings(mode, (0.5, 1.6), "human" if relative else "occluder", steps=5)
    found = place(pack(human), pack(other), interval, seed, setting)
    assert found == place(pack(encode(human)), pack(np.pad(other, 7)), interval, seed, setting)
    if isinstance(found, Placed):
        assert found.ratio == ratio_of(human, [other], [found.placement])
        assert interval[0] <= found.ratio < interval[1] and found.ratio > 0
        assert found.placement.scale <= setting.enlarge
    else:
        low, high = reach(pack(human), pack(other), setting)
        assert found.low <= low and high <= found.high


@pytest.mark.parametrize("tries", [0, 4, 10_000])
def test_all_admissible_translations_are_equally_likely(tries: int) -> None:
    human, other = tight(blob(3, 22, 18, 1)), tight(blob(8, 20, 16, 1))
    setting = Settings("uniform", (1, 1), "occluder", flip=False, tries=tries)
    area = int(human.sum())
    allowed = [k for k, c in brute(human, other).items() if 0.3 <= c / area < 0.4]
    packed = pack(human), pack(other)
    n = 60 * len(allowed)
    seen: Counter[tuple[int, int]] = Counter()
    for i in range(n):
        found = place(*packed, (0.3, 0.4), seed_of("uniform", tries, i), setting)
        assert isinstance(found, Placed)
        seen[found.placement.dx, found.placement.dy] += 1
    assert set(seen) <= set(allowed)
    assert stats.chisquare([seen[k] for k in allowed]).pvalue > 1e-3


def test_stratified_ratios_are_uniform_over_a_split() -> None:
    density, n = PRESETS["val"], 400
    bank = [(f"o{i}", pack(blob(1000 + i, 90, 110))) for i in range(24)]
    got: dict[int, list[float]] = {}
    for i, target in enumerate(assign(density, n, 5)):
        human = pack(blob(i % 40, 160, 100))
        order = sorted(bank, key=lambda o: seed_of(i, o[0]))
        found = place_target(human, order, target, density, i)
        assert found is not None and density.bin_of(found.ratio) == target.bin
        got.setdefault(target.bin, []).append(found.ratio)
    for index, ratios in got.items():
        low, high = density.interval(index)
        assert stats.kstest(ratios, stats.uniform(low, high - low).cdf).statistic <= 0.05


def test_a_second_occluder_counts_the_union() -> None:
    human, other = blob(1, 120, 90), tight(blob(2, 60, 80))
    first = place(pack(human), pack(other), (0.1, 0.2), 1, NATIVE)
    assert isinstance(first, Placed)
    cover = human & ~_covered(human, other, first.placement)
    second = place(pack(cover, total=int(human.sum())), pack(other), (0.3, 0.4), 2, NATIVE)
    assert isinstance(second, Placed)
    assert second.ratio == ratio_of(human, [other, other], [first.placement, second.placement])
    assert 0.3 <= second.ratio < 0.4


def _covered(human: Bool2D, other: Bool2D, at: Placement) -> Bool2D:
    out = np.zeros_like(human)
    for y, x in np.argwhere(occluder_at(other, at)):
        if 0 <= y + at.dy < human.shape[0] and 0 <= x + at.dx < human.shape[1]:
            out[y + at.dy, x + at.dx] = True
    return out


@given(st.integers(1, 3000), st.sampled_from(INTERVALS))
def test_counts_of_is_exact(total: int, interval: tuple[float, float]) -> None:
    low, high = counts_of(interval, total)
    assert list(range(low, high + 1)) == [c for c in range(1, total + 1) if interval[0] <= c / total < interval[1]]


def test_mirroring_comes_before_scaling() -> None:
    mask = np.array([[1, 0, 0], [1, 1, 0]], np.bool_)
    assert occluder_at(mask, Placement("o", 0, 0, 1.0, True)).tolist() == mask[:, ::-1].tolist()
    twice = occluder_at(mask, Placement("o", 0, 0, 2.0, True))
    assert np.array_equal(twice, np.kron(mask[:, ::-1], np.ones((2, 2), np.bool_)))


def test_too_small_an_occluder_is_infeasible() -> None:
    found = place(pack(np.ones((40, 40), np.bool_)), pack(np.ones((4, 4), np.bool_)), (0.3, 0.4), 0, NATIVE)
    assert isinstance(found, Infeasible) and found.high == 16 / 1600


def test_wrong_settings_and_empty_masks_are_refused() -> None:
    with pytest.raises(UserError, match="scale"):
        Settings(scale=(0.0, 1.0))
    with pytest.raises(ValueError, match="empty"):
        pack(np.zeros((4, 4), np.bool_))
