"""Binary masks, boxes and label maps: every conversion of them is here, once.

Mask: bool [H, W], full image frame, in memory; COCO RLE (column-major, compressed) on disk.
Box: (x0, y0, x1, y1) float px, half open, origin top left, y down.
Label map: uint8 [H, W], full image frame; 0 is background.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.hashing import digest_bytes
from ahp_toolkit.core.limits import MAX_PIXELS

#: Length of the outlines of one mask, px: forty times around the largest picture.
MAX_OUTLINE = 2_000_000
#: Frames of more px are kept from pycocotools' writer: its text buffer has six bytes a run and none for the end, and
#: runs of 2^24 px take all six.
_WRITES_BEHIND = 2**26
_OVERLONG = re.compile(rb"[P-o]{6}")  # a number of seven characters or more; 30 bits are enough for any frame
Bool2D = NDArray[np.bool_]
Label2D = NDArray[np.uint8]


class _Coco:
    """pycocotools.mask, imported at its first use: trainings and timings run without it."""

    def __getattr__(self, name: str) -> Any:
        from pycocotools import mask

        found = getattr(mask, name)
        setattr(self, name, found)  # from now on as fast as the module's own
        return found


coco = _Coco()


class Box(NamedTuple):
    """Axis-aligned box, float px, half open: x0 <= x < x1, y0 <= y < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Width in px, never negative."""
        return max(0.0, self.x1 - self.x0)

    @property
    def height(self) -> float:
        """Height in px, never negative."""
        return max(0.0, self.y1 - self.y0)

    @property
    def area(self) -> float:
        """Area in px²."""
        return self.width * self.height

    def clip(self, width: float, height: float) -> Box:
        """Intersection with the frame [0, width) x [0, height)."""
        return Box(
            min(max(self.x0, 0.0), width),
            min(max(self.y0, 0.0), height),
            min(max(self.x1, 0.0), width),
            min(max(self.y1, 0.0), height),
        )

    def scaled(self, sx: float, sy: float) -> Box:
        """The box with x multiplied by ``sx`` and y by ``sy`` (relative units to px, or back)."""
        return Box(self.x0 * sx, self.y0 * sy, self.x1 * sx, self.y1 * sy)

    def enlarged(self, factor: float) -> Box:
        """Same centre, ``factor`` times as wide and as high (spec §1: 3 for segmentation crops)."""
        dx, dy = self.width * (factor - 1) / 2, self.height * (factor - 1) / 2
        return Box(self.x0 - dx, self.y0 - dy, self.x1 + dx, self.y1 + dy)

    def pixels(self) -> tuple[int, int, int, int]:
        """The smallest integer box (x0, y0, x1, y1) that holds this one."""
        return int(np.floor(self.x0)), int(np.floor(self.y0)), int(np.ceil(self.x1)), int(np.ceil(self.y1))

    def intersection(self, other: Box) -> float:
        """Area in common, px²."""
        w = min(self.x1, other.x1) - max(self.x0, other.x0)
        h = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, w) * max(0.0, h)

    def iou(self, other: Box) -> float:
        """Intersection over union, in [0, 1]; 0 when both are empty."""
        inter = self.intersection(other)
        union = self.area + other.area - inter
        return inter / union if union > 0 else 0.0

    def touches_border(self, width: int, height: int, gutter: int) -> bool:
        """Whether any part of the box lies within ``gutter`` px of one of the four image borders (spec §1)."""
        return self.x0 < gutter or self.y0 < gutter or self.x1 > width - gutter or self.y1 > height - gutter


def box_from_xywh(x: float, y: float, w: float, h: float) -> Box:
    """COCO's (x, y, width, height) px to a Box."""
    return Box(x, y, x + w, y + h)


def xywh_from_box(box: Box) -> tuple[float, float, float, float]:
    """A Box to COCO's (x, y, width, height) px."""
    return box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0


@dataclass(frozen=True, slots=True)
class Mask:
    """A binary mask as compressed COCO RLE, full image frame; runs of nothing between others are joined.

    Raises:
        ValueError: when the counts do not describe exactly ``height * width`` pixels, or the frame is larger than any
            picture may be (a few bytes of RLE can claim terabytes).
    """

    height: int
    width: int
    counts: bytes

    def __post_init__(self) -> None:
        _check_frame(self.height, self.width)
        runs = _filling(_rle_runs(self.counts), self.height, self.width)
        # pycocotools would write behind its buffers (more runs than pixels), or read another number
        if not runs[1:].all() or _OVERLONG.search(self.counts):
            object.__setattr__(self, "counts", _compressed(_joined(runs)))

    @property
    def rle(self) -> dict[str, object]:
        """pycocotools' dict: ``{"size": [h, w], "counts": bytes}``."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def rle_json(self) -> dict[str, Any]:
        """COCO's compressed RLE for JSON: ``{"size": [h, w], "counts": text}``."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    @property
    def digest(self) -> str:
        """16 hex digits that tell this mask from every other; see `digest_of`."""
        return digest_of(self.height, self.width, self.counts)

    @property
    def area(self) -> int:
        """Number of true pixels."""
        return int(coco.area(self.rle))

    @property
    def box(self) -> Box:
        """The tight box; all zeros when the mask is empty."""
        return box_from_xywh(*(float(v) for v in coco.toBbox(self.rle)))

    def decode(self) -> Bool2D:
        """bool [H, W], C order."""
        return np.ascontiguousarray(coco.decode(self.rle)).view(np.bool_)

    def runs(self) -> NDArray[np.int64]:
        """Run lengths, column-major, alternating 0 and 1 and starting with zeros (the first may be 0)."""
        return _rle_runs(self.counts)

    def iou(self, other: Mask) -> float:
        """Intersection over union in [0, 1]; both empty: 1 (spec §7).

        Raises:
            ValueError: when the two frames differ (pycocotools would say 0 silently).
        """
        inter, union = intersection_union(self, other)
        return inter / union if union else 1.0

    def touches_border(self, gutter: int) -> bool:
        """Whether any pixel of the mask lies within ``gutter`` px of one of the four image borders (spec §1)."""
        return self.area > 0 and self.box.touches_border(self.width, self.height, gutter)


def digest_of(height: int, width: int, counts: bytes) -> str:
    """`Mask.digest` of a mask's fields, as tables hold them: no `Mask` is built for it."""
    return digest_bytes(f"{height} {width}".encode(), counts)[:16]


def _check_frame(height: int, width: int) -> None:
    if height <= 0 or width <= 0:
        raise ValueError(f"mask size must be positive, got {height}x{width}")
    if height * width > MAX_PIXELS:
        raise ValueError(f"mask size must be at most {MAX_PIXELS} px, got {height}x{width}")


def _rle_runs(counts: bytes) -> NDArray[np.int64]:
    """Decode COCO's compressed counts (6-bit little-endian groups, delta against two runs before)."""
    raw = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if raw.size == 0:
        return np.zeros(0, np.int64)
    if raw.min() < 0 or raw.max() > 63:
        raise ValueError("RLE counts hold a character outside COCO's alphabet '0'..'o'")
    ends = np.flatnonzero((raw & 0x20) == 0)
    if ends.size == 0 or ends[-1] != raw.size - 1:
        raise ValueError("RLE counts end in the middle of a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    if int((ends - starts).max()) > 11:
        raise ValueError("RLE counts hold a number of more than 60 bits")
    place = np.arange(raw.size) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((raw & 0x1F) << (5 * place), starts)
    negative = (raw[ends] & 0x10) != 0
    values[negative] -= np.int64(1) << (5 * (ends - starts + 1)[negative])
    runs = values.copy()
    # counts i > 2 are stored as the difference to run i - 2: undo it as two interleaved running sums
    if runs.size > 3:
        runs[1::2] = np.cumsum(values[1::2])
        runs[2::2] = np.cumsum(values[2::2])
    return runs


def _filling(runs: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """The runs, which must fill the frame."""
    frame = height * width
    if runs.size and int(runs.min()) < 0:
        raise ValueError("RLE counts hold a negative run")
    if runs.size and int(runs.max()) > frame:  # each alone: a sum of 64-bit numbers can wrap round to the right one
        raise ValueError(f"RLE of the wrong size: a run of {int(runs.max())} pixels, expected {frame} in all")
    if int(runs.sum()) != frame:
        raise ValueError(
            f"RLE of the wrong size: its runs cover {int(runs.sum())} pixels, expected {height}x{width} = {frame}"
        )
    return runs


def _joined(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same pixels in alternating runs, none but the first empty."""
    full = runs > 0
    values, lengths = np.flatnonzero(full) % 2, runs[full]
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.concatenate((np.zeros(values[0], np.int64), np.add.reduceat(lengths, starts)))


def encode(mask: Bool2D) -> Mask:
    """bool (or 0/1 uint8) [H, W] to a Mask.

    Raises:
        ValueError: when the array is not two-dimensional.
    """
    if mask.ndim != 2:
        raise ValueError(f"expected a mask [H, W], got shape {mask.shape}")
    if mask.size > _WRITES_BEHIND:
        return from_runs(_runs_of(mask), *mask.shape)
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Mask(int(rle["size"][0]), int(rle["size"][1]), bytes(rle["counts"]))


def _runs_of(mask: Bool2D) -> NDArray[np.int64]:
    flat = np.asarray(mask, np.bool_).ravel(order="F")
    ends = np.concatenate((np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    return np.diff(ends, prepend=[0, 0] if flat[0] else [0])


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """Union of COCO polygons (flat x, y lists, px). Polygons of fewer than three points are left out.

    Raises:
        ValueError: when no polygon of three or more points remains, or the frame is larger than any with polygons.
    """
    kept = [list(map(float, p)) for p in polygons if len(p) >= 6 and len(p) % 2 == 0]
    _check_frame(height, width)
    if height * width > _WRITES_BEHIND:
        raise ValueError(f"polygons in a frame of {height}x{width}; at most {_WRITES_BEHIND} px are drawn")
    if not kept:
        raise ValueError(f"no polygon of three or more points among {len(polygons)}")
    if not all(np.isfinite(p).all() for p in kept):
        raise ValueError("a polygon has a coordinate that is not a finite number")
    # pycocotools rasterises outside the frame into wrong memory for far-away points: keep them near it
    kept = [_bounded(p, height, width) for p in kept]
    # it walks along every edge in steps of a fifth of a pixel, all of them in memory
    if sum(float(np.abs(np.diff(np.asarray(p).reshape(-1, 2), axis=0)).max(1).sum()) for p in kept) > MAX_OUTLINE:
        raise ValueError(f"outlines of more than {MAX_OUTLINE} px in all")
    rle = coco.merge(coco.frPyObjects(kept, height, width))
    return Mask(height, width, bytes(rle["counts"]))


def _bounded(polygon: list[float], height: int, width: int) -> list[float]:
    xy = np.asarray(polygon, np.float64)
    xy[0::2] = xy[0::2].clip(-width, 2 * width)
    xy[1::2] = xy[1::2].clip(-height, 2 * height)
    return list(xy)


def from_rle(size: Sequence[int], counts: object, height: int, width: int) -> Mask:
    """COCO RLE in any of its forms: counts as a list of ints, str or bytes.

    Raises:
        ValueError: when the size is not the image's, or the runs do not fill it.
    """
    if tuple(int(v) for v in size) != (height, width):
        raise ValueError(f"RLE of the wrong size: {list(size)}, the image is [{height}, {width}]")
    if isinstance(counts, str):
        return Mask(height, width, counts.encode("ascii"))
    if isinstance(counts, bytes):
        return Mask(height, width, counts)
    if not isinstance(counts, (list, tuple)):
        raise ValueError(f"RLE counts must be a string or a list of integers, got {type(counts).__name__}")
    try:
        runs = np.asarray(counts, np.int64)
    except (OverflowError, TypeError) as e:
        raise ValueError(f"RLE counts must be whole numbers: {e}") from e
    if runs.ndim != 1:
        raise ValueError("RLE counts must be one list of integers")
    return from_runs(runs, height, width)


def from_runs(runs: NDArray[np.int64], height: int, width: int) -> Mask:
    """Column-major run lengths (zeros first) to a Mask.

    Raises:
        ValueError: when a run is negative or the runs do not fill the frame.
    """
    _check_frame(height, width)
    return Mask(height, width, _compressed(_filling(np.asarray(runs, np.int64), height, width)))


def _compressed(runs: NDArray[np.int64]) -> bytes:
    """Run lengths to COCO's compressed counts, the inverse of `_rle_runs`."""
    left = runs.copy()
    left[3:] -= runs[1:-2]
    groups, written = [], []
    open_ = np.ones(runs.size, np.bool_)
    while open_.any():
        group = left & 0x1F
        left >>= 5
        written.append(open_)
        open_ = open_ & (left != np.where(group & 0x10, -1, 0))  # a number ends where only its sign is left
        groups.append(group + 48 + (open_.astype(np.int64) << 5))
    return bytes(np.stack(groups, 1)[np.stack(written, 1)].astype(np.uint8))


def merge(masks: Sequence[Mask], intersect: bool = False) -> Mask:
    """Union (or intersection) of masks of one frame."""
    return Mask(masks[0].height, masks[0].width, bytes(_merged(masks, intersect)["counts"]))


def _merged(masks: Sequence[Mask], intersect: bool) -> dict[str, Any]:
    if masks[0].height * masks[0].width > _WRITES_BEHIND:
        both = np.logical_and if intersect else np.logical_or
        return encode(both.reduce([m.decode() for m in masks])).rle
    made: dict[str, Any] = coco.merge([m.rle for m in masks], intersect=intersect)
    return made


def intersection_union(a: Mask, b: Mask) -> tuple[int, int]:
    """(area of A AND B, area of A OR B) in px.

    Raises:
        ValueError: when the two frames differ.
    """
    if (a.height, a.width) != (b.height, b.width):
        raise ValueError(f"masks of two frames: {a.height}x{a.width} and {b.height}x{b.width}")
    inter = int(coco.area(_merged([a, b], intersect=True)))
    return inter, a.area + b.area - inter


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A label map as row-major runs, full image frame: the same bytes on every machine.

    ``values`` holds one uint8 a run, ``lengths`` one little-endian uint32 a run.

    Raises:
        ValueError: when the runs do not fill the frame.
    """

    height: int
    width: int
    values: bytes
    lengths: bytes

    def __post_init__(self) -> None:
        _check_frame(self.height, self.width)
        total = int(np.frombuffer(self.lengths, "<u4").sum(dtype=np.int64))
        if len(self.lengths) != 4 * len(self.values) or total != self.height * self.width:
            raise ValueError(f"label runs cover {total} pixels, expected {self.height}x{self.width}")

    def decode(self) -> Label2D:
        """uint8 [H, W]."""
        flat = np.repeat(np.frombuffer(self.values, np.uint8), np.frombuffer(self.lengths, "<u4"))
        return flat.reshape(self.height, self.width)

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels present, sorted, background left out."""
        return tuple(sorted(set(self.values) - {0}))


def encode_labels(labels: Label2D) -> LabelMap:
    """uint8 [H, W] to a LabelMap.

    Raises:
        ValueError: when the array is not a two-dimensional uint8 array.
    """
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"expected uint8 labels [H, W], got {labels.dtype} {labels.shape}")
    flat = np.ascontiguousarray(labels).ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(np.concatenate((starts, [flat.size]))).astype("<u4")
    return LabelMap(labels.shape[0], labels.shape[1], flat[starts].tobytes(), lengths.tobytes())
