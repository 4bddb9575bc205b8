"""Placements: time an accepted one against the peer's loop, share in the bin, proofs, uniformity over a split.

``python tests/harness/bench/bench_placement.py [--data COCO_ROOT]``. The peer's loop is written from its
description: masks at
256x256, redrawn until the ratio fits, at most 100 times, the last try returned whether it fits or not. Ours searches
the same pairs at full resolution, scale and mirroring free; a failed search's time counts too. CPU time, so that other
processes do not count; medians of five.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ahp_toolkit.core.crops import crop_mask, square_around
from ahp_toolkit.core.masks import Bool2D
from ahp_toolkit.occlusion.densities import PRESETS, assign
from ahp_toolkit.occlusion.place import Infeasible, Packed, Placed, Settings, pack, place, place_target
from tests.harness.bench.occlusion_data import load

BINS = ((0.0, 0.1), (0.1, 0.2), (0.3, 0.4), (0.4, 0.5))
PAIRS, REPEATS, SPLIT = 100, 5, 891
MARGIN = 1.5  # of the peer's crops: with it the loop fails as often as was measured of it; a tight crop is unfair to it


def peer(human: Bool2D, other: Bool2D, interval: tuple[float, float], rng: np.random.Generator) -> float:
    """The ratio the peer's loop ends with."""
    height, width = human.shape
    for _ in range(100):
        share = rng.uniform(0.4, 1)
        x = rng.uniform(share - 1, 1 - share)
        y = (1 - share / (1 - abs(x))) * rng.choice((-1, 1))
        dx, dy = int(x * width), int(y * height)
        moved = np.zeros_like(other)
        moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = other[
            max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
        ]
        ratio = ((human == 1) & (moved == 1)).sum() / (human == 1).sum()
        if interval[0] <= ratio < interval[1] and ratio > 0:
            break
    return float(ratio)


def _inside(ratio: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= ratio < interval[1] and ratio > 0


def _ours(pairs: list[tuple[Packed, Packed]], interval: tuple[float, float], settings: Settings) -> tuple[float, ...]:
    """(us an accepted placement, share in the bin, share infeasible)."""
    place(*pairs[0], interval, 0, settings)  # compiled and in the cache before the clock starts
    found, spent = [], []
    for k in range(REPEATS):
        start = time.process_time()
        found += [place(a, b, interval, k * PAIRS + i, settings) for i, (a, b) in enumerate(pairs)]
        spent.append(time.process_time() - start)
    placed = [f.ratio for f in found if isinstance(f, Placed)]
    refused = sum(isinstance(f, Infeasible) for f in found)
    return (
        statistics.median(spent) * REPEATS / len(placed) * 1e6,
        np.mean([_inside(r, interval) for r in placed]),
        refused / len(found),
    )


def _peers(pairs: list[tuple[Bool2D, Bool2D]], interval: tuple[float, float]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    ratios, spent = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        ratios += [peer(a, b, interval, rng) for a, b in pairs]
        spent.append(time.process_time() - start)
    good = [_inside(r, interval) for r in ratios]
    return statistics.median(spent) * REPEATS / sum(good) * 1e6, float(np.mean(good))


def _split(people: list[Packed], bank: list[Packed]) -> None:
    density, rng, got = PRESETS["val"], np.random.default_rng(1), {}
    start = time.process_time()
    for i, target in enumerate(assign(density, SPLIT, 0)):
        order = ((str(k), bank[k]) for k in rng.integers(len(bank), size=64))
        found = place_target(people[i // 3 % len(people)], order, target, density, i)
        got.setdefault(target.bin, []).append(found.ratio if found else -1.0)
    spent = time.process_time() - start
    print(f"split of {SPLIT}: {spent / SPLIT * 1e6:.0f} us a sample, occluders redrawn as needed")
    for k, ratios in sorted(got.items()):
        low, high = density.interval(k)
        ks = stats.kstest(ratios, stats.uniform(low, high - low).cdf).statistic
        share = np.mean([_inside(r, (low, high)) for r in ratios])
        print(f"  [{low:g}, {high:g}): {len(ratios)} samples, {share:.1%} in the bin, KS {ks:.3f} (target <= .05)")


def main() -> None:
    """Print one table of one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    with tempfile.TemporaryDirectory() as scratch:
        people, things = load(parser.parse_args().data, Path(scratch))
    rng = np.random.default_rng(0)
    drawn = [(people[rng.integers(len(people))], things[rng.integers(len(things))]) for _ in range(PAIRS)]
    packed = [(pack(a.mask), pack(b.mask)) for a, b in drawn]
    small = [
        tuple(crop_mask(t.mask, square_around(t.mask.box, MARGIN), 256).astype(np.uint8) for t in pair)
        for pair in drawn
    ]
    settings = (("stratified", Settings()), ("uniform", Settings(mode="uniform")))
    sums = dict.fromkeys(("peer", "stratified", "uniform"), 0.0)
    for interval in BINS:
        us, share = _peers(small, interval)
        sums["peer"] += us
        line = f"[{interval[0]:g}, {interval[1]:g}) peer {us:.0f} us, {share:.0%} in the bin"
        for name, setting in settings:
            own, inside, refused = _ours(packed, interval, setting)
            sums[name] += own
            line += f" | {name} {own:.0f} us, {us / own:.0f}x, {inside:.0%} in the bin, {refused:.1%} infeasible"
        print(line)
    for name, _ in settings:
        print(f"four bins, {name}: {sums['peer'] / sums[name]:.1f} times the peer's speed (target >= 30)")
    _split([pack(t.mask) for t in people], [pack(t.mask) for t in things])


if __name__ == "__main__":
    main()
