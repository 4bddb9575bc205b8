"""Kernel Inception distance (Bińkowski et al., 2018; spec §7)."""

from __future__ import annotations

from benchmark.features.frechet import kernel_distance
from benchmark.metric import GreyExample, Rows
from benchmark.metrics.fid import Fid, sides


class Kid(Fid):
    """Kernel Inception distance."""

    name = "kid"
    bounds = (-float("inf"), float("inf"))
    digits = 5
    definition = (
        "Kernel Inception distance: squared MMD with the kernel (x·y / d + 1)³ on the features of `fid`, the whole set "
        "as one subset, by the estimator that is unbiased for independent sets. Here the sets are paired (a recovered "
        "crop and its own truth), which biases it downwards: the truth itself gets -2 / n times (mean kernel of a crop "
        "with itself minus that with the others), such as -0.0004, not 0. Compare at the same n only. Interval: "
        "jackknife by at most 20 groups of humans."
    )
    # two equal pairs: no distance at all
    examples = (GreyExample([80, 80], [80, 80], 0.0),)

    @classmethod
    def best(cls) -> float:
        """0; the estimate of the truth itself is a little lower."""
        return 0.0

    def value(self, rows: Rows) -> float:
        """The distance; NaN with fewer than two samples."""
        return kernel_distance(*sides(rows)) if len(rows) > 1 else float("nan")


METRICS = (Kid,)
