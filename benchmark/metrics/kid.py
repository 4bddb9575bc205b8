"""Kernel Inception distance (Bińkowski et al., 2018; spec §7)."""

from __future__ import annotations

from benchmark.features.frechet import kernel_distance, kernel_replicates
from benchmark.metric import Floats, GreyExample, Rows
from benchmark.metrics.fid import Fid, sides


class Kid(Fid):
    """Kernel Inception distance."""

    name = "kid"
    bounds = (-float("inf"), float("inf"))
    digits = 5
    definition = (
        "Kernel Inception distance: unbiased squared MMD with the kernel (x·y / d + 1)³ on the features of `fid`, the "
        "whole set as one subset. Unbiased at any n; 0 is ideal and small negative values are chance. "
        "Interval: value ± "
        "1.96 bootstrap standard deviations."
    )

    @classmethod
    def best(cls) -> float:
        """The ideal; the estimate of a perfect set may lie below."""
        return 0.0

    def value(self, rows: Rows, weights: Floats | None = None) -> float:
        """The distance; NaN with fewer than two samples."""
        return kernel_distance(*sides(rows), weights=weights) if len(rows) > 1 else float("nan")

    def values(self, rows: Rows, weights: Floats) -> Floats:
        """The distance of every replicate."""
        return kernel_replicates(*sides(rows), weights=weights)


METRIC = Kid
# two equal pairs: no distance at all
EXAMPLES = (GreyExample([80, 80], [80, 80], 0.0),)
