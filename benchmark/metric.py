"""What a metric is (design: A metric): update, compute, merge, its facts, and worked examples.

A metric keeps one row of statistics a sample, so that any slice and any bootstrap replicate is a cheap reduction of
rows already measured. A metric file holds ``METRIC``, the class, and ``EXAMPLES``, cases worked by hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.registry import Registry
from benchmark.features.context import Context
from benchmark.features.counts import Areas, Counts, areas

METRICS = Registry("metric", "benchmark.metrics", group="ahp_toolkit.metrics")
Board = Literal["mask", "content"]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Rows = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


class Absent(Exception):
    """A metric that cannot be computed here (its weights are not found); the message is the reason to print."""


@dataclass
class MaskBatch:
    """Masks of n samples, bool [n, H, W] of the crop.

    ``modal`` is what the method calls visible: its own modal mask, or the mask it was given where it has none. ``own``,
    bool [n], tells them apart (None: all its own): a mask that was given is no answer, and has no area as a modal mask.
    """

    amodal: Bools
    modal: Bools
    true_amodal: Bools
    true_modal: Bools
    own: Bools | None = None

    @cached_property
    def areas(self) -> Areas:
        """Every area that the mask metrics need, counted once for all of them."""
        found = areas(self.amodal, self.modal, self.true_amodal, self.true_modal)
        return found if self.own is None else found._replace(pm=found.pm * self.own, pm_gm=found.pm_gm * self.own)


@dataclass
class PictureBatch:
    """Recovered and true pictures of n samples, uint8 RGB [n, H, W, 3]; ``invisible`` bool [n, H, W] of the truth."""

    images: Bytes
    truth: Bytes
    invisible: Bools

    @cached_property
    def floats(self) -> tuple[Rows, Rows]:
        """(images, truth) as float32 in [0, 1], shared by the metrics of one batch."""
        return self.images.astype(np.float32) / 255, self.truth.astype(np.float32) / 255

    @cached_property
    def features(self) -> dict[str, Rows]:
        """Features already extracted from this batch, by extractor."""
        return {}


class Metric(ABC):
    """One figure of a board. Subclasses state the facts and turn a batch into rows.

    ``bounds`` are (low, high) of a value; ``scale``, ``digits`` and ``unit`` say how tables print it (IoU: 100, 1, %);
    ``stands_for`` names the metric whose weights are missing when this one is shown in its place.
    """

    name: ClassVar[str]
    board: ClassVar[Board]
    unit: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]
    higher_is_better: ClassVar[bool]
    definition: ClassVar[str]
    scale: ClassVar[float] = 1.0
    digits: ClassVar[int] = 4
    replicates: ClassVar[int] = 1000
    stands_for: ClassVar[str] = ""
    needs_modal: ClassVar[bool] = False

    def __init__(self) -> None:
        self._chunks: list[Rows] = []

    @classmethod
    def open(cls, context: Context) -> Self:
        """A ready metric; ``context`` finds weights.

        Raises:
            Absent: with the reason, when something it needs is not here.
        """
        return cls()

    @abstractmethod
    def rows_of(self, batch: Any) -> Rows:
        """One row of statistics a sample, float [n, k]."""

    @abstractmethod
    def value(self, rows: Rows, weights: Floats | None = None) -> float:
        """The figure over rows, each counted ``weights`` times (None: once); NaN where it is undefined."""

    @abstractmethod
    def each(self, rows: Rows) -> Floats:
        """The figure of every single sample, float64 [n]; NaN where there is none."""

    def values(self, rows: Rows, weights: Floats) -> Floats:
        """`value` for each row of weights [B, n]; NaN where no sample is drawn."""
        return np.array([self.value(rows, w) if w.any() else np.nan for w in weights])

    def update(self, batch: Any) -> None:
        """Take a batch in."""
        self._chunks.append(self.rows_of(batch))

    def take(self, rows: Rows) -> None:
        """Take in rows that another process has measured."""
        self._chunks.append(rows)

    def merge(self, other: Metric) -> None:
        """Take in what another metric of this kind has seen."""
        self._chunks.extend(other._chunks)

    @property
    def rows(self) -> Rows:
        """All rows so far, in the order of the updates."""
        return np.concatenate(self._chunks) if self._chunks else np.zeros((0, 2))

    def compute(self) -> float:
        """The figure over all samples so far."""
        return self.value(self.rows)

    @classmethod
    def best(cls) -> float:
        """The bound that a perfect prediction reaches."""
        return cls.bounds[1] if cls.higher_is_better else cls.bounds[0]

    @classmethod
    def stored_unit(cls) -> str:
        """The unit of a value itself, as in records, CSV and JSON: a fraction where tables print per cent."""
        return "ratio" if cls.unit == "%" else cls.unit

    @classmethod
    def shown(cls, value: float) -> str:
        """A value as tables print it; an en dash where there is none."""
        return "–" if np.isnan(value) else f"{value * cls.scale:.{cls.digits}f}"


class Ratio(Metric):
    """Sum of numerators over sum of denominators: rows [n, 2]. A mean over samples has denominators 1."""

    def value(self, rows: Rows, weights: Floats | None = None) -> float:
        """Weighted sum of numerators over that of denominators."""
        top, bottom = rows.sum(0) if weights is None else weights @ rows
        return float(top / bottom) if bottom else float("nan")

    def each(self, rows: Rows) -> Floats:
        """Numerator over denominator of each sample."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(rows[:, 1] > 0, rows[:, 0] / rows[:, 1], np.nan)


class MeanIou(Ratio):
    """Mean over samples of an intersection over union; both empty: 1, one empty: 0."""

    board = "mask"
    unit = "%"
    bounds = (0.0, 1.0)
    higher_is_better = True
    scale, digits = 100.0, 1

    def sets(self, a: Areas) -> tuple[Counts, Counts]:
        """(intersection, union) in px, int64 [n] each."""
        raise TypeError(f"{type(self).__name__} does not say which masks it compares")

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(IoU, 1) of each sample."""
        return mean_rows(iou(*self.sets(batch.areas)))


class GlobalIou(MeanIou):
    """Sum of intersections over sum of unions."""

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(intersection, union) of each sample in px."""
        return np.stack(self.sets(batch.areas), axis=1).astype(np.float64)

    def value(self, rows: Rows, weights: Floats | None = None) -> float:
        """The ratio of sums; 1 where no sample has a pixel in either mask."""
        return 1.0 if len(rows) and not rows[:, 1].any() else super().value(rows, weights)

    def each(self, rows: Rows) -> Floats:
        """Each sample's own IoU."""
        return iou(rows[:, 0], rows[:, 1])


def iou(intersection: NDArray[Any], union: NDArray[Any]) -> Floats:
    """Elementwise ratio, 1 where the union is empty."""
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def mean_rows(values: NDArray[Any]) -> Floats:
    """Values of n samples as rows of a mean."""
    return np.stack([values, np.ones(len(values))], axis=1).astype(np.float64)


@dataclass(frozen=True)
class MaskExample:
    """A case worked by hand: masks as text, rows parted by ``/``, ``#`` is inside; ``value`` is the metric's answer."""

    amodal: Sequence[str]
    true_amodal: Sequence[str]
    true_modal: Sequence[str]
    value: float
    modal: Sequence[str] = ()

    def batch(self) -> MaskBatch:
        """The batch of the example; without ``modal`` the true modal mask stands for the given one."""
        return MaskBatch(*map(drawn, (self.amodal, self.modal or self.true_modal, self.true_amodal, self.true_modal)))


def drawn(pictures: Sequence[str]) -> Bools:
    """Masks drawn as text (``.#/##``) to bool [n, H, W]."""
    return np.array([[[c == "#" for c in row] for row in p.split("/")] for p in pictures], np.bool_)


@dataclass(frozen=True)
class GreyExample:
    """Uniform pictures of the given grey levels, predicted and true, 32x32; the left half is invisible."""

    images: Sequence[int]
    truth: Sequence[int]
    value: float

    def batch(self) -> PictureBatch:
        """The batch of the example."""
        invisible = np.zeros((len(self.truth), 32, 32), np.bool_)
        invisible[:, :, :16] = True
        return PictureBatch(_grey(self.images), _grey(self.truth), invisible)


def _grey(levels: Sequence[int]) -> Bytes:
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), 32, 32, 3)).copy()
