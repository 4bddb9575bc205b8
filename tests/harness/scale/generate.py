"""Annotation files of the true size and shape, seeded and streaming; photos from a bounded pool.

``python -m tests.harness.scale.generate SOURCE FOLDER FRACTION`` writes one. Printing numbers is what costs, so
boxes, outlines
and flags come from stocks of ready bytes by photo size; each record is one template filled in. A fraction shrinks
photos and boxes alike, so records a photo, people a photo and bytes a record stay as they are at full size.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tests.harness.scale.shapes import (
    COCO_SIZE_SHARES,
    COCO_SIZES,
    SIZE_SHARES,
    SIZES,
    STOCK,
    Images,
    Shape,
    boxes,
    sized,
)

BLOCK = 50_000
PERSON_MIDS = ("/m/01g317", "/m/04yx4", "/m/03bt1vf", "/m/01bl7v", "/m/05r655")
_MID_SHARES = (0.315, 0.43, 0.235, 0.01, 0.01)
CSV_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
)
FILES = {
    "objects365": "zhiyuan_objv2_train.json",
    "openimages": "oidv6-train-annotations-bbox.csv",
    "coco": "annotations/instances_train2017.json",
}
#: Share of the boxes of Objects365 with iscrowd, isfake, isreflected; assumptions.
FLAGS_365 = (0.012, 0.006, 0.004)


@dataclass(frozen=True)
class Made:
    """What was written: records by kind, photos with a person, and the file's size in bytes."""

    source: str
    fraction: float
    seed: int
    images: int
    boxes: int
    people: int
    photos_with_people: int
    bytes: int


def write(source: str, root: Path, fraction: float, seed: int = 0) -> Made:
    """Write one source's annotation file below ``root`` and ``made.json`` beside it."""
    path = root / FILES[source]
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = sized(source, fraction)
    with path.open("wb", 2**20) as f:
        people, seen = _WRITERS[source](f, shape, seed)
    made = Made(source, fraction, seed, shape.images, shape.boxes, people, seen, path.stat().st_size)
    (root / "made.json").write_text(json.dumps(asdict(made)))
    return made


class _Tally:
    """Counts people and the photos they are in."""

    def __init__(self, images: int) -> None:
        self.people, self.photos = 0, np.zeros(images, np.bool_)

    def add(self, image: NDArray[np.int32], person: NDArray[np.bool_]) -> None:
        self.people += int(person.sum())
        self.photos[image[person]] = True

    @property
    def found(self) -> tuple[int, int]:
        return self.people, int(self.photos.sum())


def _stock(
    seed: int,
    sizes: Sequence[tuple[int, int]],
    make: Callable[[np.random.Generator, NDArray[np.float64]], list[bytes]],
    each: int,
) -> list[bytes]:
    """Ready bytes; the entry of (person, size class, k) stands at ``(person * len(sizes) + class) * each + k``."""
    out: list[bytes] = []
    for person in (False, True):
        for i, size in enumerate(sizes):
            rng = np.random.default_rng([seed, 2, i, person])
            out += make(rng, boxes(rng, size, person, each))
    return out


def _each(shape: Shape) -> int:
    """Boxes in stock of each kind and photo size: small files need no variety that they cannot show."""
    return STOCK if shape.boxes >= 100_000 else 256


def _blocks(total: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, BLOCK):
        yield first, min(BLOCK, total - first)


def _joined(f: IO[bytes], chunks: Iterator[list[bytes]]) -> None:
    """Write lists of records with a comma between any two."""
    start = b""
    for rows in chunks:
        f.write(start + b",".join(rows))
        start = b","


# -- Objects365 -------------------------------------------------------------------------------------------------------
def number_365(k: int, images: int) -> tuple[int, str]:
    """(id, file name) of photo ``k``: v1 numbers in patches 0 to 15, v2 numbers from 900,001 on in 16 to 50."""
    first = int(images * 0.36)
    if k < first:
        return k + 1, f"images/v1/patch{k % 16}/objects365_v1_{k + 1:08d}.jpg"
    number = 900_001 + k - first
    return number, f"images/v2/patch{16 + k % 35}/objects365_v2_{number:08d}.jpg"


def _rows_365(rng: np.random.Generator, xywh: NDArray[np.float64]) -> list[bytes]:
    reflected = (rng.random(len(xywh)) < FLAGS_365[2]).astype(int).tolist()
    form = '"area":%.12f,"isreflected":%d,"bbox":[%.14f,%.14f,%.14f,%.14f]'
    return [(form % (row[2] * row[3], r, *row)).encode() for row, r in zip(xywh.tolist(), reflected, strict=True)]


def _objects365(f: IO[bytes], shape: Shape, seed: int) -> tuple[int, int]:
    photos, tally = Images(shape, SIZE_SHARES, seed), _Tally(shape.images)
    each = _each(shape)
    stock = _stock(seed, SIZES, _rows_365, each)
    image_of = b'{"height":%d,"id":%d,"license":%d,"width":%d,"file_name":"%s","url":""}'

    def image_rows() -> Iterator[list[bytes]]:
        for first, n in _blocks(shape.images):
            rows = []
            for k in range(first, first + n):
                number, name = number_365(k, shape.images)
                width, height = SIZES[photos.size_class[k]]
                rows.append(image_of % (height, number, 1 + k % 6, width, name.encode()))
            yield rows

    def box_rows() -> Iterator[list[bytes]]:
        record = b'{"id":%d,"iscrowd":%d,"isfake":%d,%s,"image_id":%d,"category_id":%d}'
        rng, split = np.random.default_rng([seed, 3]), int(shape.images * 0.36)
        for first, n in _blocks(shape.boxes):
            image, person = photos.draw(rng, n)
            tally.add(image, person)
            which = (person * len(SIZES) + photos.size_class[image]) * each + rng.integers(0, each, n)
            numbers = np.where(image < split, image + 1, 900_001 + image - split)
            category = np.where(person, 1, _zipf(rng, n, 2, 366))
            crowd, fake = (rng.random((2, n)) < np.array(FLAGS_365[:2])[:, None]).astype(int).tolist()
            columns = (range(first + 1, first + n + 1), crowd, fake, map(stock.__getitem__, which.tolist()))
            yield list(map(record.__mod__, zip(*columns, numbers.tolist(), category.tolist(), strict=True)))

    names = ["Person", *(f"Class {i}" for i in range(2, 366))]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    f.write(b'{"images":[')
    _joined(f, image_rows())
    f.write(b'],"annotations":[')
    _joined(f, box_rows())
    f.write(b'],"categories":%s,"licenses":[]}' % json.dumps(categories, separators=(",", ":")).encode())
    return tally.found


def _zipf(rng: np.random.Generator, n: int, low: int, high: int) -> NDArray[np.int64]:
    """Classes from ``low`` to below ``high``, the first ones the most frequent."""
    return (low + (high - low) * rng.random(n) ** 2.5).astype(np.int64)


# -- Open Images ------------------------------------------------------------------------------------------------------
def image_id_of(k: int, images: int) -> int:
    """The ImageID of photo ``k`` as a number: rising, over all 16 hex digits."""
    return (2 * k + 1) * (2**63 // max(1, images))


def _rows_csv(rng: np.random.Generator, xywh: NDArray[np.float64], size: tuple[int, int], person: bool) -> list[bytes]:
    """Source and all that follows the label; a tenth comes from ``activemil``, without flags and clicks."""
    n = len(xywh)
    x0, y0 = xywh[:, 0] / size[0], xywh[:, 1] / size[1]
    x1, y1 = x0 + xywh[:, 2] / size[0], y0 + xywh[:, 3] / size[1]
    shares = (0.66, 0.25, 0.09, 0.05, 0.002) if person else (0.6, 0.25, 0.05, 0.04, 0.005)
    flags = (rng.random((n, 5)) < np.array(shares)).astype(int).tolist()
    inner = rng.random((n, 4))
    clicks_x = np.stack([x0, x0 + inner[:, 0] * (x1 - x0), x1, x0 + inner[:, 1] * (x1 - x0)], 1)
    clicks_y = np.stack([y0 + inner[:, 2] * (y1 - y0), y0, y0 + inner[:, 3] * (y1 - y0), y1], 1)
    sides = np.stack([x0, x1, y0, y1], 1).clip(0, 1).tolist()
    clicks = np.concatenate([clicks_x, clicks_y], 1).clip(0, 1).tolist()
    rows = []
    for k, (side, five, click) in enumerate(zip(sides, flags, clicks, strict=True)):
        box = ",".join(f"{v:.6f}" for v in side)
        if k % 10:
            tail = f"{box},{','.join(map(str, five))},{','.join(f'{v:.6f}' for v in click)}"
        else:
            tail = f"{box}{',-1' * 5}{',-1.000000' * 8}"
        rows.append(tail.encode())
    return rows


def _openimages(f: IO[bytes], shape: Shape, seed: int) -> tuple[int, int]:
    photos, tally = Images(shape, SIZE_SHARES, seed), _Tally(shape.images)
    each, stock = _each(shape), list[bytes]()
    for person in (False, True):
        for i, size in enumerate(SIZES):
            rng = np.random.default_rng([seed, 2, i, person])
            stock += _rows_csv(rng, boxes(rng, size, person, each), size, person)
    labels = [m.encode() for m in PERSON_MIDS] + [b"/m/0%05x" % i for i in range(595)]
    counts = np.bincount(photos.slots, minlength=shape.images).astype(np.float64)
    ends = np.rint(np.cumsum(counts) * (shape.boxes / counts.sum())).astype(np.int64)  # rows stand photo by photo
    rng = np.random.default_rng([seed, 3])
    line = b"%016x,%s,%s,1,%s\n"
    f.write(CSV_HEADER.encode() + b"\n")
    for first, n in _blocks(shape.boxes):
        image = np.searchsorted(ends, np.arange(first, first + n), "right").astype(np.int32)
        person = rng.random(n, np.float32) < photos.people[image]
        tally.add(image, person)
        which = (person * len(SIZES) + photos.size_class[image]) * each + rng.integers(0, each, n)
        mids = np.where(person, rng.choice(5, n, p=_MID_SHARES), _zipf(rng, n, 5, 600))
        made_by = [b"activemil" if k % each % 10 == 0 else b"xclick" for k in which.tolist()]
        numbers = (image_id_of(int(k), shape.images) for k in image)
        columns = (numbers, made_by, map(labels.__getitem__, mids.tolist()), map(stock.__getitem__, which.tolist()))
        f.write(b"".join(map(line.__mod__, zip(*columns, strict=True))))
    return tally.found


# -- COCO -------------------------------------------------------------------------------------------------------------
def _outline(rng: np.random.Generator, row: Sequence[float]) -> tuple[str, str, float]:
    """(polygon, box, area) of a body-like outline in a box x, y, w, h: 12 to 46 points."""
    x, y, w, h = row
    n = int(rng.integers(12, 47))
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    r = 1 - 0.25 * rng.random() * np.cos(2 * t) ** 2 - 0.1 * rng.random(n)
    px, py = np.cos(t) * r, np.sin(t) * r
    px, py = (px - px.min()) / np.ptp(px), (py - py.min()) / np.ptp(py)
    points = np.round(np.stack([x + px * w, y + py * h], 1), 2)
    a, b = points[:, 0], points[:, 1]
    area = 0.5 * abs(float(np.dot(a, np.roll(b, 1)) - np.dot(b, np.roll(a, 1))))
    low, span = points.min(0), np.ptp(points, axis=0)
    box = [round(float(v), 2) for v in (*low, *span)]
    return ",".join(map(str, points.ravel().tolist())), str(box), area


def _rows_coco(rng: np.random.Generator, xywh: NDArray[np.float64]) -> list[bytes]:
    rows = []
    for row in xywh.tolist():
        polygon, box, area = _outline(rng, row)
        rows.append(f'{{"segmentation": [[{polygon}]],"area": {area!r},"iscrowd": 0,"bbox": {box}'.encode())
    return rows


def _coco(f: IO[bytes], shape: Shape, seed: int) -> tuple[int, int]:
    photos, tally = Images(shape, COCO_SIZE_SHARES, seed), _Tally(shape.images)
    each = _each(shape) // 16  # an outline costs as much as many boxes
    stock = _stock(seed, COCO_SIZES, _rows_coco, each)
    record = b'%s,"image_id": %d,"category_id": %d,"id": %d}'

    def box_rows() -> Iterator[list[bytes]]:
        rng = np.random.default_rng([seed, 3])
        for first, n in _blocks(shape.boxes):
            image, person = photos.draw(rng, n)
            tally.add(image, person)
            which = (person * len(COCO_SIZES) + photos.size_class[image]) * each + rng.integers(0, each, n)
            category = np.where(person, 1, _zipf(rng, n, 2, 91)).tolist()
            columns = (map(stock.__getitem__, which.tolist()), (image + 1).tolist(), category)
            yield list(map(record.__mod__, zip(*columns, range(first + 1, first + n + 1), strict=True)))

    coco_head(f, [COCO_SIZES[c] for c in photos.size_class.tolist()])
    _joined(f, box_rows())
    f.write(b"]}")
    return tally.found


def coco_head(f: IO[bytes], sizes: Sequence[tuple[int, int]]) -> None:
    """All that stands before the first annotation of an instances file, for photos 1, 2, ... of ``sizes``."""
    licences = [{"url": "", "id": i, "name": f"Licence {i}"} for i in range(1, 9)]
    names = ["person", *(f"thing {i}" for i in range(2, 91))]
    categories = [{"supercategory": "any", "id": i, "name": name} for i, name in enumerate(names, 1)]
    f.write(f'{{"info": {{}},"licenses": {json.dumps(licences)},"categories": {json.dumps(categories)},'.encode())
    record = (
        '{"license": %d,"file_name": "%012d.jpg","coco_url": "http://images.cocodataset.org/train2017/%012d.jpg",'
        '"height": %d,"width": %d,"date_captured": "2013-11-14 11:18:45",'
        '"flickr_url": "http://farm9.staticflickr.com/8186/%d_4e622c8349_z.jpg","id": %d}'
    )
    f.write(b'"images": [')
    chunks = (
        [
            (record % (1 + k % 8, k, k, h, w, 8_000_000_000 + k, k)).encode()
            for k, (w, h) in enumerate(sizes[first : first + n], first + 1)
        ]
        for first, n in _blocks(len(sizes))
    )
    _joined(f, chunks)
    f.write(b'],"annotations": [')


_WRITERS: dict[str, Callable[[IO[bytes], Shape, int], tuple[int, int]]] = {
    "objects365": _objects365,
    "openimages": _openimages,
    "coco": _coco,
}


if __name__ == "__main__":
    start = time.perf_counter()
    result = write(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
    print(asdict(result), f"{time.perf_counter() - start:.1f} s")
