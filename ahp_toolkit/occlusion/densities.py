"""Occlusion-ratio densities: which share of a split lies in which bin, and a narrow target ratio for every sample.

Spec §2. A ratio of 0 is no occlusion, so a bin that starts at 0 excludes it: (0, high). All others are [low, high).
Ratios over a split come out uniform inside each bin because every sample gets its own narrow slice of the bin
(stratified over the split, performance §1): one human x occluder pair often reaches only part of a bin.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple, overload

import numpy as np

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import unit_hash

_BIN = re.compile(r"\s*([0-9.]+)\s*-\s*([0-9.]+)\s*(?::\s*([0-9.]+)\s*)?")


class Target(NamedTuple):
    """The goal of one sample: the index of its bin and the slice [low, high) of it (0 itself never counts)."""

    bin: int
    low: float
    high: float


@dataclass(frozen=True)
class Density:
    """A density of occlusion ratios: bins (low, high, weight), in rising order; weights need not sum to 1.

    Raises:
        UserError: when a bin is empty, outside [0, 1] or overlaps another, or no weight is positive.
    """

    bins: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        before = 0.0
        for low, high, weight in self.bins:
            if not 0.0 <= low < high <= 1.0:
                raise UserError(f"occlusion bin {low:g}-{high:g}: expected 0 <= low < high <= 1; correct its two ends")
            if low < before:
                raise UserError(f"occlusion bin {low:g}-{high:g} begins below {before:g}, the end of the bin before it")
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"occlusion bin {low:g}-{high:g}: expected a weight of 0 or more, got {weight:g}")
            before = high
        if not any(weight > 0 for _, _, weight in self.bins):
            raise UserError("occlusion density: expected at least one bin with a weight above 0, such as 0-0.1:1")

    def __str__(self) -> str:
        return ",".join(f"{_plain(low)}-{_plain(high)}:{_plain(weight)}" for low, high, weight in self.bins)

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights divided by their sum."""
        total = math.fsum(weight for _, _, weight in self.bins)
        return tuple(weight / total for _, _, weight in self.bins)

    def interval(self, index: int) -> tuple[float, float]:
        """(low, high) of one bin."""
        low, high, _ = self.bins[index]
        return low, high

    def bin_of(self, ratio: float) -> int | None:
        """Index of the bin that holds a ratio, or None; 0 lies in no bin."""
        for i, (low, high, _) in enumerate(self.bins):
            if low <= ratio < high and ratio > 0:
                return i
        return None

    def pick(self, u: float) -> int:
        """The bin of a uniform number ``u`` in [0, 1): how a training loader draws its bins."""
        shares = self.shares
        for i, share in enumerate(shares):
            if u < share:
                return i
            u -= share
        return max(i for i, share in enumerate(shares) if share > 0)


PRESETS = {
    "train": Density(((0.0, 0.1, 1.0), (0.1, 0.2, 1.0), (0.3, 0.4, 1.0))),
    "val": Density(((0.0, 0.1, 1.0), (0.1, 0.2, 1.0), (0.3, 0.4, 1.0), (0.4, 0.5, 1.0))),
}


def _plain(x: float) -> str:
    """Shortest decimal without an exponent (its minus would read as the dash between two ends)."""
    text = format(Decimal(repr(float(x))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse(text: str) -> Density:
    """A preset's name (``train``, ``val``) or ``low-high:weight`` items joined by commas (weight 1 when left out).

    Raises:
        UserError: when the text is neither, or the bins make no density.
    """
    if text.strip() in PRESETS:
        return PRESETS[text.strip()]
    bins = []
    for item in text.split(","):
        match = _BIN.fullmatch(item)
        if match is None:
            raise UserError(
                f"occlusion density {text!r}: expected {' or '.join(PRESETS)}, or bins such as 0-0.1:1,0.1-0.2:1; "
                f"{item!r} is neither"
            )
        try:
            low, high, weight = (float(group) for group in (match[1], match[2], match[3] or "1"))
        except ValueError as e:
            raise UserError(f"occlusion density {text!r}: {item!r} holds something that is no number") from e
        bins.append((low, high, weight))
    return Density(tuple(bins))


def quota(density: Density, n: int) -> tuple[int, ...]:
    """Exact number of samples of each bin for ``n`` in all, by largest remainder (the earlier bin wins a tie)."""
    if n < 0:
        raise ValueError(f"expected a number of samples >= 0, got {n}")
    wanted = [share * n for share in density.shares]
    counts = [math.floor(w + 1e-9) for w in wanted]
    order = sorted(range(len(counts)), key=lambda i: (-round(wanted[i] - counts[i], 9), i))
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


class Targets(Sequence[Target]):
    """The targets of a split, each made at its use: four bytes a sample are held, whatever their number."""

    def __init__(self, density: Density, n: int, seed: int) -> None:
        self._bounds = [density.interval(i) for i in range(len(density.bins))]
        self._counts = quota(density, n)
        self._ends = list(accumulate(self._counts))
        hashes = np.fromiter((unit_hash("density", seed, k) for k in range(n)), np.float64, n)
        self._order = np.argsort(hashes, kind="stable").astype(np.uint32 if n < 2**32 else np.uint64)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, key: int) -> Target: ...
    @overload
    def __getitem__(self, key: slice) -> list[Target]: ...
    def __getitem__(self, key: int | slice) -> Target | list[Target]:
        if isinstance(key, slice):
            return [self._of(k) for k in self._order[key].tolist()]
        return self._of(int(self._order[key]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Targets) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _of(self, k: int) -> Target:
        i = bisect_right(self._ends, k)
        low, high = self._bounds[i]
        count = self._counts[i]
        at = k - self._ends[i] + count
        end = low + (high - low) * (at + 1) / count if at + 1 < count else high
        return Target(i, low + (high - low) * at / count, end)


def assign(density: Density, n: int, seed: int) -> Targets:
    """One target for each of ``n`` samples: each bin's quota cut into equal slices, one a sample, shuffled by seed."""
    return Targets(density, n, seed)


def widen(target: Target, density: Density, share: float) -> tuple[float, float]:
    """The target's slice grown evenly to ``share`` of its bin and kept inside the bin; the slice itself when wider."""
    low, high = density.interval(target.bin)
    width = max(target.high - target.low, share * (high - low))
    start = min(max((target.low + target.high - width) / 2, low), high - width)
    if width >= high - low:
        return low, high
    return max(low, start), min(high, start + width)
