"""What a metric is: update, compute, merge, its facts, and worked examples.

A metric keeps one row of statistics per sample, so that every slice and every bootstrap draw is a cheap reduction of
rows that are already measured. A plug-in is one file, a family: it exposes its metric classes as ``METRICS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import Registry
from benchmark.features.context import Context
from benchmark.features.counts import Areas, Counts, areas

Board = Literal["mask", "content"]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Rows = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


class Absent(Exception):
    """A metric cannot be computed here. The message is the reason, and behind a colon what to do."""


@dataclass
class MaskBatch:
    """Masks of n samples, bool [n, H, W] of the crop.

    ``modal`` is the predicted modal mask, or the initial mask where a method predicts none; ``own``, bool [n], is True
    where it is predicted (None: everywhere). An initial mask has no area as a predicted modal mask.
    """

    amodal: Bools
    modal: Bools
    true_amodal: Bools
    true_modal: Bools
    own: Bools | None = None

    @cached_property
    def areas(self) -> Areas:
        """All areas that the mask metrics need, in px."""
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


@dataclass(frozen=True)
class MaskExample:
    """A case worked by hand: masks as text, rows separated by ``/``, ``#`` is inside; ``value`` is the figure."""

    amodal: Sequence[str]
    true_amodal: Sequence[str]
    true_modal: Sequence[str]
    value: float
    modal: Sequence[str] = ()

    def batch(self) -> MaskBatch:
        """The batch of the example; without ``modal`` the true modal mask is the initial one."""
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


class Metric(ABC):
    """One figure of a board. Subclasses state the facts and turn a batch into rows.

    ``bounds`` are (low, high) of a value; ``scale``, ``digits`` and ``unit`` say how tables print it (IoU: 100, 1, %);
    ``definition`` is printed below every table; ``examples`` are cases worked by hand. ``needs_modal``: a figure of
    predicted modal masks alone; ``subtracts_modal``: of a method without them, the initial mask is subtracted.
    """

    name: ClassVar[str]
    board: ClassVar[Board]
    unit: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]
    higher_is_better: ClassVar[bool]
    definition: ClassVar[str]
    examples: ClassVar[tuple[MaskExample | GreyExample, ...]]
    scale: ClassVar[float] = 1.0
    digits: ClassVar[int] = 4
    needs_modal: ClassVar[bool] = False
    subtracts_modal: ClassVar[bool] = False

    def __init__(self) -> None:
        self._chunks: list[Rows] = []

    @classmethod
    def open(cls, context: Context) -> Self:
        """A metric that is ready for batches; ``context`` finds weights.

        Raises:
            Absent: when weights or a package are not found.
        """
        return cls()

    @abstractmethod
    def rows_of(self, batch: Any) -> Rows:
        """One row of statistics per sample, float [n, k]."""

    @abstractmethod
    def value(self, rows: Rows) -> float:
        """The figure over rows; NaN where it is undefined."""

    @abstractmethod
    def each(self, rows: Rows) -> Floats:
        """The figure of each sample alone, float64 [n]; NaN where there is none."""

    def update(self, batch: Any) -> None:
        """Measure a batch."""
        self._chunks.append(self.rows_of(batch))

    def merge(self, other: Metric) -> None:
        """Add the rows of another metric of this kind."""
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
        """The value of a perfect prediction."""
        return cls.bounds[1] if cls.higher_is_better else cls.bounds[0]

    @classmethod
    def stored_unit(cls) -> str:
        """The unit in records, CSV and JSON: ``ratio`` where tables print per cent."""
        return "ratio" if cls.unit == "%" else cls.unit


class Ratio(Metric):
    """A sum of numerators over a sum of denominators, rows [n, 2]; a mean over samples has denominators of 1."""

    def value(self, rows: Rows) -> float:
        """The ratio of the two sums."""
        top, bottom = rows.sum(0)
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
        raise NotImplementedError

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(IoU, 1) of each sample."""
        return mean_rows(iou(*self.sets(batch.areas)))


class GlobalIou(MeanIou):
    """Sum of intersections over sum of unions."""

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(intersection, union) of each sample in px."""
        return np.stack(self.sets(batch.areas), axis=1).astype(np.float64)

    def value(self, rows: Rows) -> float:
        """The ratio of sums; 1 where no sample has a pixel in either mask."""
        return 1.0 if len(rows) and not rows[:, 1].any() else super().value(rows)

    def each(self, rows: Rows) -> Floats:
        """Each sample's own IoU."""
        return iou(rows[:, 0], rows[:, 1])


def iou(intersection: NDArray[Any], union: NDArray[Any]) -> Floats:
    """Elementwise ratio, 1 where the union is empty."""
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def mean_rows(values: NDArray[Any]) -> Floats:
    """Values of n samples as rows of a mean."""
    return np.stack([values, np.ones(len(values))], axis=1).astype(np.float64)


class Metrics:
    """All metrics by name, from the families of ``benchmark.metrics`` and of other packages' entry points."""

    families = Registry("metric family", "benchmark.metrics", group="ahp_toolkit.metrics")

    @cache  # noqa: B019  one object, for the life of the process
    def all(self) -> dict[str, type[Metric]]:
        """Every metric class by its name, sorted."""
        found = [cls for family in self.families.names() for cls in self.families.get(family).METRICS]
        return {cls.name: cls for cls in sorted(found, key=lambda c: c.name)}

    def names(self) -> list[str]:
        """Sorted names."""
        return list(self.all())

    def get(self, name: str) -> type[Metric]:
        """The class of a metric.

        Raises:
            UserError: for an unknown name.
        """
        found = self.all()
        if name not in found:
            raise UserError(f"no metric is named {name!r}; known: {', '.join(found)}")
        return found[name]


METRICS = Metrics()
