"""Speed of the judge, as ratios measured in one run: mask metrics, Fréchet distance, a whole board, memory."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark.features.counts import areas, pair_areas
from benchmark.features.frechet import small_sample, symmetric
from benchmark.metric import METRICS, MaskBatch

PAIRS, PART = 10_000, 500  # 10,000 pairs in parts: 500 at a time are 66 MB


def seconds(fn: Callable[[], object], times: int = 3) -> float:
    """Median wall time."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        fn()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def masks() -> None:
    """All areas of four stacks, and one IoU, against NumPy loops a pair."""
    rng = np.random.default_rng(0)
    pa, pm, ga, gm = (rng.random((PART, 256, 256)) < 0.4 for _ in range(4))
    areas(pa[:1], pm[:1], ga[:1], gm[:1]), pair_areas(pa[:1], ga[:1])

    def loop_iou() -> None:
        for p, g in zip(pa, ga, strict=True):
            (p & g).sum() / (p | g).sum()

    def loop_all() -> None:
        for p, m, g, v in zip(pa, pm, ga, gm, strict=True):
            (p & g).sum() / (p | g).sum(), (m & v).sum() / (m | v).sum()
            i, j, h = p & ~m, g & ~v, p & ~v
            (i & j).sum() / (i | j).sum(), (h & j).sum() / (h | j).sum(), np.abs(p ^ g).sum() / g.sum()

    def ours_all() -> None:
        batch = MaskBatch(pa, pm, ga, gm)
        for name in ("iou_amodal", "iou_modal", "iou_invisible", "iou_invisible_gtvis", "l1_mask"):
            METRICS.get(name)().update(batch)

    def floor() -> None:
        pa.view(np.uint64).sum(), ga.view(np.uint64).sum()

    scale = PAIRS / PART
    one, every, ours1, ours = (seconds(f) * scale for f in (loop_iou, loop_all, lambda: pair_areas(pa, ga), ours_all))
    print(f"{PAIRS} pairs 256x256: five mask metrics {ours:.2f} s, NumPy loop {every:.2f} s: {every / ours:.1f} times")
    print(
        f"  one IoU {ours1:.2f} s, NumPy loop {one:.2f} s: {one / ours1:.1f} times; reading both once "
        f"{seconds(floor) * scale:.2f} s"
    )


def distance() -> None:
    """900 features of 2048 numbers a side, against pytorch-fid's own function."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(2048, 2048)) / 45
    x, y = rng.normal(size=(900, 2048)) @ mix, rng.normal(size=(900, 2048)) @ mix + 0.1
    stats = [(v.mean(0), np.cov(v, rowvar=False)) for v in (x, y)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        theirs = calculate_frechet_distance(*stats[0], *stats[1])
        peer = time.perf_counter() - start
    ours, eigh = seconds(lambda: small_sample(x, y)), seconds(lambda: symmetric(x, y), 1)
    value = small_sample(x, y)
    apart = abs(value - theirs) / theirs
    print(f"Fréchet distance, 900 x 2048: {ours:.3f} s, pytorch-fid {peer:.1f} s: {peer / ours:.0f} times")
    print(f"  eigh {eigh:.1f} s; relative difference to pytorch-fid {apart:.1e}")


def board(methods: int = 8, humans: int = 297) -> None:
    """A whole mask board of 3 x 297 samples from RLE files, and the memory that twice the samples take."""
    from benchmark.boards.report import write_report
    from benchmark.grading.score import score
    from tests.benchmark.world import make_split, noisy, submit

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        split = root / "val"
        samples = make_split(split, humans, 3)
        folders = [submit(root / f"m{k}", noisy(samples, k + 1, k), split) for k in range(methods)]
        start, busy = time.perf_counter(), time.process_time()
        for folder in folders:
            score(folder, split, root / "boards")
        scored, busy = time.perf_counter() - start, time.process_time() - busy
        write_report(root / "boards", root / "report")
        whole = time.perf_counter() - start
        print(
            f"board of {len(samples)} samples x {methods} methods: {scored:.1f} s scoring "
            f"({busy:.1f} s of one core), {whole:.1f} s with the report"
        )
        first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        more = make_split(root / "more", humans * 3, 3)
        score(submit(root / "large", noisy(more, 2, 1), root / "more"), root / "more", root / "other")
        second = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  peak memory {first:.0f} MB, after a split of {len(more)} samples {second:.0f} MB")


def main() -> None:
    """Print every ratio."""
    masks()
    board()
    distance()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
