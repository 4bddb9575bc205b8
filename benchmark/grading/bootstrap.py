"""Intervals by human, because the samples of one person are not independent (spec §7), and the rule for ties.

A figure's interval: percentiles of a bootstrap over humans, seeded by the split; for distances of sets, a jackknife.
A difference of two methods: its value ± Student's t times its standard error by human, the limit of a paired bootstrap
of many draws. No rank depends on a random number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ahp_toolkit.core.hashing import seed_of
from benchmark.metric import Bools, Floats, Metric, Ratio, Rows

DRAWS = 20_000
_CELLS = 2_000_000  # humans times draws in memory at a time
_GROUPS = 20  # of humans, for the jackknife of a distance of sets
Slices = Mapping[str, Bools]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval [low, high], NaN where it has none.

    ``shares``, float64 [humans, or groups of them], are what each contributes to the figure's error: the squared
    standard error is their sum of squares, and that of a difference of two methods the sum of squared differences.
    """

    value: float
    low: float
    high: float
    shares: Floats


def groups_of(human_ids: Sequence[str]) -> np.ndarray:
    """Index of each sample's human among the sorted human ids, int64 [n]."""
    return np.unique(np.array(human_ids), return_inverse=True)[1].reshape(-1)


def estimates(
    measured: Mapping[str, tuple[Metric, Rows]], groups: np.ndarray, slices: Slices, digest: str
) -> dict[str, dict[str, Estimate]]:
    """Every metric's figure over every slice.

    Args:
        measured: name -> (metric, rows [n, k], one per sample).
        groups: int [n], the human of each sample.
        slices: name -> bool [n].
        digest: the split's; seeds the draws, which all metrics and methods of a split share.
    """
    ratios = {name: rows for name, (metric, rows) in measured.items() if isinstance(metric, Ratio)}
    found = _bootstrap(ratios, groups, slices, digest)
    out: dict[str, dict[str, Estimate]] = {}
    for name, (metric, rows) in measured.items():
        out[name] = {}
        for piece, members in slices.items():
            value = metric.value(rows[members])
            if name in ratios:
                shares = _ratio_shares(rows[members], groups[members])
                low, high = found[name][piece] if len(shares) > 1 else (np.nan, np.nan)
            else:
                shares = _jackknife_shares(metric, rows[members], groups[members])
                low, high = between(value, shares)
            low, high = (float(np.clip(v, *metric.bounds)) for v in (low, high))
            out[name][piece] = Estimate(value, low, high, shares)
    return out


def _draws(humans: int, digest: str) -> Iterator[Floats]:
    """How often each human is drawn: float64 [draws, humans], a few draws at a time."""
    rng = np.random.default_rng(seed_of("bootstrap", digest))
    step = max(1, _CELLS // humans)
    for start in range(0, DRAWS, step):
        count = min(step, DRAWS - start)
        drawn = rng.integers(0, humans, (count, humans)) + np.arange(count)[:, None] * humans
        yield np.bincount(drawn.ravel(), minlength=count * humans).reshape(count, humans).astype(np.float64)


def _bootstrap(
    measured: Mapping[str, Rows], groups: np.ndarray, slices: Slices, digest: str
) -> dict[str, dict[str, tuple[float, float]]]:
    """The 2.5 and 97.5 percentiles of ratios of sums."""
    if not measured:
        return {}
    sums = np.zeros((int(groups.max()) + 1, len(measured), len(slices), 2))
    for i, rows in enumerate(measured.values()):
        for j, members in enumerate(slices.values()):
            np.add.at(sums[:, i, j], groups[members], rows[members])
    flat = sums.reshape(len(sums), -1)
    totals = np.concatenate([w @ flat for w in _draws(len(sums), digest)]).reshape(DRAWS, -1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = totals[..., 0] / totals[..., 1]
    cuts = np.array([np.percentile(c[np.isfinite(c)], [2.5, 97.5]) if np.isfinite(c).any() else [np.nan] * 2
                     for c in ratios.T])  # fmt: skip
    low_high = iter(cuts.tolist())
    return {name: {piece: tuple(next(low_high)) for piece in slices} for name in measured}


def _ratio_shares(rows: Rows, groups: np.ndarray) -> Floats:
    """Each human's share of the error of a ratio of sums (linearised)."""
    kept = np.unique(groups, return_inverse=True)[1]
    humans = int(kept.max()) + 1 if len(kept) else 0
    sums = np.zeros((humans, 2))
    np.add.at(sums, kept, rows)
    top, bottom = sums.sum(0) if humans else (0.0, 0.0)
    if humans < 2 or not bottom:
        return np.full(humans, np.nan)
    return np.asarray((sums[:, 0] - top / bottom * sums[:, 1]) / bottom * np.sqrt(humans / (humans - 1)))


def _jackknife_shares(metric: Metric, rows: Rows, groups: np.ndarray) -> Floats:
    """Each group's share of the error: the figure without the group, less the mean of these figures."""
    kept = np.unique(groups, return_inverse=True)[1]
    count = min(_GROUPS, int(kept.max()) + 1 if len(kept) else 0)
    if count < 2:
        return np.full(count, np.nan)
    left = np.array([metric.value(rows[kept % count != k]) for k in range(count)])
    return np.asarray((left - left.mean()) * np.sqrt((count - 1) / count))


def between(value: float, shares: Floats) -> tuple[float, float]:
    """The 95 % interval of a figure or a difference: value ± t times its standard error; NaN where it has none."""
    if len(shares) < 2 or not np.isfinite(value):
        return float("nan"), float("nan")
    reach = float(stdtrit(len(shares) - 1, 0.975) * np.sqrt((shares**2).sum()))
    return value - reach, value + reach


def difference(a: Estimate, b: Estimate) -> tuple[float, float, float]:
    """(a - b, low, high) of two methods on the same samples; NaN, NaN where there is no interval."""
    same = len(a.shares) == len(b.shares)
    return a.value - b.value, *between(a.value - b.value, a.shares - b.shares if same else np.empty(0))


def tied(a: Estimate, b: Estimate) -> bool:
    """Whether 0 lies in the interval of the difference; without an interval it does."""
    _, low, high = difference(a, b)
    return not (low > 0 or high < 0)
