"""Bootstrap 95 % intervals, by human: the occluders of one person are not independent (spec §7).

The same seeded draws of humans are used for every method of a split, so the difference of two methods' replicates is
a paired bootstrap of their difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ahp_toolkit.core.hashing import seed_of
from benchmark.metric import Bools, Floats, Metric, Ratio, Rows

_STEP = 50  # replicates drawn at a time
_NORMAL = 1.959964  # 97.5 % quantile of the normal distribution
_FEW = 200  # with fewer replicates the quantiles are too rough: a normal interval is taken


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval [low, high] and its replicates."""

    value: float
    low: float
    high: float
    replicates: Floats


def draws(humans: int, count: int, digest: str) -> Iterator[Floats]:
    """How often each human is drawn in ``count`` replicates: float64 [<= 50, humans] at a time, seeded by the split."""
    rng = np.random.default_rng(seed_of("bootstrap", digest))
    even = np.full(humans, 1 / humans)
    for start in range(0, count, _STEP):
        yield rng.multinomial(humans, even, size=min(_STEP, count - start)).astype(np.float64)


def groups_of(human_ids: Sequence[str]) -> np.ndarray:
    """Index of each sample's human among the sorted human ids, int64 [n]."""
    return np.unique(np.array(human_ids), return_inverse=True)[1].reshape(-1)


def estimate(
    metric: Metric, rows: Rows, groups: np.ndarray, slices: Mapping[str, Bools], digest: str
) -> dict[str, Estimate]:
    """The figure of every slice with its interval; NaN, as are its replicates, where it holds fewer than two humans.

    Args:
        metric: what reduces the rows.
        rows: [n, k], one a sample.
        groups: int [n], the human of each sample.
        slices: name -> bool [n].
        digest: the split's; seeds the draws.
    """
    make = _ratio if isinstance(metric, Ratio) else _general
    replicates = make(metric, rows, groups, slices, digest)
    out = {}
    for name, members in slices.items():
        value, drawn = metric.value(rows[members]), replicates[name]
        if len(np.unique(groups[members])) < 2:  # the same human in every draw: no spread is not certainty
            drawn = np.full_like(drawn, np.nan)
        low, high = (float(np.clip(v, *metric.bounds)) for v in interval(value, drawn))
        out[name] = Estimate(value, low, high, drawn)
    return out


def _ratio(
    metric: Metric, rows: Rows, groups: np.ndarray, slices: Mapping[str, Bools], digest: str
) -> dict[str, Floats]:
    humans = int(groups.max()) + 1
    sums = np.zeros((humans, len(slices), 2))
    for j, members in enumerate(slices.values()):
        np.add.at(sums[:, j], groups[members], rows[members])
    flat = sums.reshape(humans, -1)
    drawn = [w @ flat for w in draws(humans, metric.replicates, digest)]
    totals = np.concatenate(drawn).reshape(-1, len(slices), 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = totals[:, :, 0] / totals[:, :, 1]
    return {name: ratios[:, j] for j, name in enumerate(slices)}


def _general(
    metric: Metric, rows: Rows, groups: np.ndarray, slices: Mapping[str, Bools], digest: str
) -> dict[str, Floats]:
    humans = int(groups.max()) + 1
    weights = np.concatenate(list(draws(humans, metric.replicates, digest)))
    return {name: metric.values(rows[members], weights[:, groups[members]]) for name, members in slices.items()}


def interval(value: float, replicates: Floats) -> tuple[float, float]:
    """The 95 % interval: percentiles of the replicates, value ± 1.96 standard deviations of few, NaN of none."""
    good = replicates[np.isfinite(replicates)]
    if len(good) < 2 or not np.isfinite(value):
        return float("nan"), float("nan")
    if len(good) < _FEW:
        spread = _NORMAL * float(good.std(ddof=1))
        return value - spread, value + spread
    low, high = np.percentile(good, [2.5, 97.5])
    return float(low), float(high)


def tied(a: Estimate, b: Estimate) -> tuple[bool, float, float]:
    """Paired bootstrap of a - b: (whether 0 lies in the interval, low, high); no interval (NaN) is a tie."""
    count = min(len(a.replicates), len(b.replicates))
    low, high = interval(a.value - b.value, a.replicates[:count] - b.replicates[:count])
    return not (low > 0 or high < 0), low, high
