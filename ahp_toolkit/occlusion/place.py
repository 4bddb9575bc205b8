"""Where to put an occluder so that it hides a wanted share of a person: always inside the interval, or a proof.

The ratio is area(human AND occluder) / area(human) at full resolution (spec §2). The occluder may stick out of the
photo: the person lies inside it, so the pixels that count do too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.hashing import seed_of
from ahp_toolkit.core.masks import Bool2D
from ahp_toolkit.core.records import Placement
from ahp_toolkit.occlusion.bits import Packed, overlaps_of_column, pack, resample
from ahp_toolkit.occlusion.densities import Density, Target, widen
from ahp_toolkit.occlusion.search import scaled_sizes, search

#: Share of the bin that a sample's target is widened to, by the number of occluders already tried in vain.
WIDENING = (0.03,) * 6 + (0.1,) * 4 + (0.3,) * 4


@dataclass(frozen=True)
class Settings:
    """How placements are drawn.

    Attributes:
        mode: ``uniform``: all translations with a ratio in the interval are equally likely. ``stratified``: a slice of
            the interval is drawn first and the nearest one that the pair reaches is used, so ratios are uniform in it.
        scale: lowest and highest factor, drawn from ``steps`` values evenly apart in the logarithm.
        relative_to: ``human``: the occluder's longer side is ``scale`` times the person's; ``occluder``: ``scale`` is
            relative to the occluder's own size.
        steps: number of allowed scales in the range; an `Infeasible` is proven over all of them, mirrored or not.
        enlarge: the occluder is never enlarged beyond this factor of its own size (its pixels would blur).
        flip: whether the occluder may be mirrored.
        tries: packed-bit tries at each scale before its exact map is computed.
        strata: number of slices of the interval in mode ``stratified``.

    Raises:
        UserError: when a value is out of its range.
    """

    mode: Literal["uniform", "stratified"] = "stratified"
    scale: tuple[float, float] = (0.5, 1.6)
    relative_to: Literal["human", "occluder"] = "human"
    steps: int = 12
    enlarge: float = 2.0
    flip: bool = True
    tries: int = 128
    strata: int = 8

    def __post_init__(self) -> None:
        low, high = self.scale
        checks = (
            (self.mode in ("uniform", "stratified"), f"mode: expected uniform or stratified, got {self.mode}"),
            (self.relative_to in ("human", "occluder"), f"relative_to: human or occluder, got {self.relative_to}"),
            (0 < low <= high < math.inf, f"scale: expected 0 < low <= high, got {low:g} to {high:g}"),
            (self.steps >= 1 and self.strata >= 1, "steps and strata: expected 1 or more"),
            (self.enlarge > 0 and self.tries >= 0, "enlarge: expected more than 0; tries: expected 0 or more"),
        )
        for ok, message in checks:
            if not ok:
                raise UserError(f"placement settings: {message}")


@dataclass(frozen=True, slots=True)
class Placed:
    """A placement and the exact ratio it gives (of the union, where other occluders already hide a part)."""

    placement: Placement
    ratio: float


@dataclass(frozen=True, slots=True)
class Infeasible:
    """The proven answer that no allowed scale and translation has its ratio in the interval.

    Every ratio the pair can reach lies in [low, high] (outer bounds: `reach` gives the exact ones).
    """

    low: float
    high: float


@lru_cache(maxsize=64)
def _factors(low: float, high: float, steps: int) -> NDArray[np.float64]:
    if low == high:
        return np.array([low])
    raw = [low * (high / low) ** (i / max(1, steps - 1)) for i in range(steps)]
    # to 1/4096: the last bits of a power differ between machines
    return np.array([max(1.0, math.floor(r * 4096 + 0.5)) / 4096 for r in raw])


def scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """(width, height) px of an occluder's tight crop after scaling, at least 1 px each."""
    return max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5))


def _scales(human: Packed, occluder: Packed, settings: Settings) -> NDArray[np.float64]:
    """The allowed scales, rising: those above ``enlarge`` become it."""
    unit = 1.0
    if settings.relative_to == "human":
        unit = max(human.width, human.height) / max(occluder.width, occluder.height)
    return np.minimum(_factors(*settings.scale, settings.steps) * unit, settings.enlarge)


def counts_of(interval: tuple[float, float], total: int) -> tuple[int, int]:
    """The smallest and the largest count c >= 1 with low <= c / total < high as floats; the largest is lower: none."""
    low, high = interval
    least, most = max(1, math.floor(low * total) - 1), min(total, math.ceil(high * total) + 1)
    while least <= total and least / total < low:
        least += 1
    while most > 0 and most / total >= high:
        most -= 1
    return least, most


def place(
    human: Packed,
    occluder: Packed,
    interval: tuple[float, float],
    seed: int,
    settings: Settings | None = None,
    aim: float | None = None,
) -> Placed | Infeasible:
    """A placement whose ratio lies in [low, high) and above 0, or the proof that the pair has none.

    Scales (and mirroring) are taken in an order drawn by the seed; the first that reaches the interval is used.
    The placement names no occluder.

    Args:
        human: the person's packed amodal mask, full frame of the photo; with a ``total``, what is still visible of it.
        occluder: the occluder's packed mask; its frame does not matter.
        interval: ratio low (included) and high (excluded).
        seed: decides everything that is random.
        settings: see `Settings`; None: the defaults.
        aim: in mode ``stratified``, the ratio to come near to instead of a drawn one.
    """
    settings = settings or Settings()
    hidden = human.total - human.area
    least, most = (c - hidden for c in counts_of(interval, human.total))
    least, most = max(1, least), min(most, human.area)
    if least > most:
        return Infeasible((hidden + 1) / human.total, 1.0)  # no count at all has a ratio in the interval
    strata = min(settings.strata, most - least + 1) if settings.mode == "stratified" else 1
    wanted = -1
    if aim is not None:
        count = min(max(round(aim * human.total) - hidden, least), most)
        wanted = ((count - least + 1) * strata - 1) // (most - least + 1)
    scales = _scales(human, occluder, settings)
    k, flip, dx, dy, count, bound = search(
        human.bits, human.ptr, human.lows, human.highs, human.columns, human.rows,
        occluder.ptr, occluder.lows, occluder.highs, occluder.height,
        scales, 2 if settings.flip else 1, least, most, strata, wanted, settings.tries, np.uint64(seed & (2**64 - 1)),
    )  # fmt: skip
    if k < 0:
        return Infeasible((hidden + 1) / human.total, (hidden + min(bound, human.area)) / human.total)
    placement = Placement("", human.x0 + dx, human.y0 + dy, float(scales[k]), bool(flip))
    return Placed(placement, (hidden + count) / human.total)


def place_target(
    human: Packed,
    occluders: Iterable[tuple[str, Packed]],
    target: Target,
    density: Density,
    seed: int,
    settings: Settings | None = None,
) -> Placed | None:
    """The sample of a split: the first occluder that reaches the target slice, else one near to it in the same bin.

    The slice is widened as occluders fail (`WIDENING`), at last to the whole bin. None: no occluder reaches the bin.

    Args:
        human: the person's packed mask.
        occluders: (occluder_id, packed mask) in the order to try; make it finite.
        target: from `densities.assign`.
        density: the density that the target's bin is one of.
        seed: of this sample.
        settings: see `place`.
    """
    aim = (target.low + target.high) / 2
    tried = []
    for i, (occluder_id, occluder) in enumerate(occluders):
        interval = widen(target, density, WIDENING[i] if i < len(WIDENING) else 1.0)
        found = place(human, occluder, interval, seed_of(seed, occluder_id, i), settings, aim)
        if isinstance(found, Placed):
            return _named(found, occluder_id)
        if i < len(WIDENING):
            tried.append((occluder_id, occluder))
    for occluder_id, occluder in tried:
        interval = density.interval(target.bin)
        again = place(human, occluder, interval, seed_of(seed, occluder_id), settings, aim)
        if isinstance(again, Placed):
            return _named(again, occluder_id)
    return None


def _named(found: Placed, occluder_id: str) -> Placed:
    return replace(found, placement=replace(found.placement, occluder_id=occluder_id))


def reach(human: Packed, occluder: Packed, settings: Settings | None = None) -> tuple[float, float]:
    """The exact lowest and highest ratio above 0 the pair reaches at the allowed scales (slow: all translations)."""
    settings = settings or Settings()
    hidden, least, most = human.total - human.area, human.area, 1
    scales = _scales(human, occluder, settings)
    for width, height, flip, _ in scaled_sizes(occluder.width, occluder.height, scales, 2 if settings.flip else 1):
        runs = resample(
            occluder.ptr, occluder.lows, occluder.highs, occluder.width, occluder.height, width, height, flip != 0
        )
        line = np.empty(human.height + height, np.int32)
        for dx in range(1 - width, human.width):
            overlaps_of_column(human.ptr, human.lows, human.highs, *runs[:3], height, dx, line)
            met = line[line > 0]
            if met.size:
                least, most = min(least, int(met.min())), max(most, int(met.max()))
    return (hidden + least) / human.total, (hidden + most) / human.total


def occluder_at(mask: Bool2D, placement: Placement) -> Bool2D:
    """What scale and mirroring make of an occluder's mask: the one definition, for placing and pasting.

    Args:
        mask: bool [h, w], the occluder's mask cut tight.
        placement: its ``scale`` and ``flip`` are used.

    Returns:
        bool [H, W] = `scaled_size`; pixel j shows pixel ((2 j + 1) * n) // (2 * m) of the mirrored crop.
    """
    height, width = mask.shape
    new_width, new_height = scaled_size(width, height, placement.scale)
    ys = ((2 * np.arange(new_height) + 1) * height) // (2 * new_height)
    xs = ((2 * np.arange(new_width) + 1) * width) // (2 * new_width)
    return np.ascontiguousarray(mask[np.ix_(ys, width - 1 - xs if placement.flip else xs)])


def hidden_by(shape: tuple[int, int], masks: Sequence[Bool2D], placements: Sequence[Placement]) -> Bool2D:
    """bool [H, W]: the pixels of a photo of ``shape`` that the placed occluders (tight masks) cover together."""
    out = np.zeros(shape, np.bool_)
    for mask, placement in zip(masks, placements, strict=True):
        put = occluder_at(mask, placement)
        x0, y0 = max(placement.dx, 0), max(placement.dy, 0)
        x1, y1 = min(placement.dx + put.shape[1], shape[1]), min(placement.dy + put.shape[0], shape[0])
        if x0 < x1 and y0 < y1:
            part = put[y0 - placement.dy : y1 - placement.dy, x0 - placement.dx : x1 - placement.dx]
            out[y0:y1, x0:x1] |= part
    return out


def ratio_of(human: Bool2D, masks: Sequence[Bool2D], placements: Sequence[Placement]) -> float:
    """area(human AND occluders) / area(human), counted on final pixels.

    Args:
        human: bool [H, W], the amodal mask in the photo's frame.
        masks: the occluders' masks cut tight, one a placement.
        placements: where they go.
    """
    area = int(np.count_nonzero(human))
    return int(np.count_nonzero(human & hidden_by(human.shape, masks, placements))) / area if area else 0.0


__all__ = [
    "Infeasible", "Packed", "Placed", "Settings", "counts_of", "hidden_by", "occluder_at", "pack", "place",
    "place_target", "ratio_of", "reach", "scaled_size",
]  # fmt: skip
