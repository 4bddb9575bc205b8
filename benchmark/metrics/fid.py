"""Fréchet Inception distance (Heusel et al., 2017; spec §7)."""

from __future__ import annotations

from typing import Self

import numpy as np

from benchmark.features.context import Context
from benchmark.features.frechet import frechet
from benchmark.features.inception import Extractor, open_inception
from benchmark.metric import Floats, GreyExample, Metric, PictureBatch, Rows


class Fid(Metric):
    """Fréchet Inception distance."""

    name = "fid"
    board = "content"
    unit = ""
    bounds = (0.0, float("inf"))
    higher_is_better = False
    digits = 2
    definition = (
        "Fréchet distance between the 2048-d features of pytorch-fid's Inception (pt_inception-2015-12-05, SHA-256 "
        "6726825d…) of the recovered and of the true 256x256 crops, resized to 299x299 (bilinear, no antialias). "
        "Biased upwards for small sets: compare at the same n only. Interval: jackknife by at most 20 groups of humans."
    )
    examples = (GreyExample([80, 10, 33], [80, 10, 33], 0.0),)

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    @classmethod
    def open(cls, context: Context) -> Self:
        """With the official weights."""
        return cls(open_inception(context))

    def rows_of(self, batch: PictureBatch) -> Rows:
        """Features of each sample, predicted then true, float32 [n, 2 d]."""
        return self.extractor.of(batch)

    def value(self, rows: Rows) -> float:
        """The distance; NaN with fewer than two samples."""
        return frechet(*sides(rows)) if len(rows) > 1 else float("nan")

    def each(self, rows: Rows) -> Floats:
        """NaN: a distance of sets has no figure of one sample."""
        return np.full(len(rows), np.nan)


def sides(rows: Rows) -> tuple[Rows, Rows]:
    """Rows as (predicted, true) features."""
    half = rows.shape[1] // 2
    return rows[:, :half], rows[:, half:]


METRICS = (Fid,)
