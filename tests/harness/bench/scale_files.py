"""Annotation files of the true shape and any size, for measuring: Objects365 JSON and Open Images CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

BLOCK = 20_000
PERSON_MIDS = ("/m/01g317", "/m/04yx4", "/m/03bt1vf", "/m/01bl7v", "/m/05r655")
CSV_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
)


def _image_records(first: int, count: int) -> bytes:
    record = (
        '{"height":512,"id":%d,"license":5,"width":769,"file_name":"images/v1/patch%d/objects365_v1_%08d.jpg","url":""}'
    )
    return ",".join([record % (i, i % 51, i) for i in range(first, first + count)]).encode()


def write_objects365_json(path: Path, n_images: int, n_boxes: int, seed: int = 0) -> None:
    """The layout of ``zhiyuan_objv2_train.json``: boxes in no order, images behind them, 365 categories.

    About 190 bytes a box and 110 an image; every ninth box is a person.
    """
    rng = np.random.default_rng(seed)
    record = (
        b'{"id":%d,"iscrowd":%d,"isfake":%d,"area":%s,"isreflected":%d,"bbox":[%s,%s,%s,%s],"image_id":%d,'
        b'"category_id":%d}'
    )
    numbers = [b"%.12f" % v for v in rng.uniform(1, 300, 20_011)]  # printing floats is what costs: draw from a stock
    areas = [b"%.11f" % v for v in rng.uniform(1, 90_000, 5_003)]
    with path.open("wb") as f:
        f.write(b'{"annotations":[')
        for first in range(0, n_boxes, BLOCK):
            n = min(BLOCK, n_boxes - first)
            picks = rng.integers(0, len(numbers), (4, n)).tolist()
            flags = (rng.random((3, n)) < 0.01).astype(int).tolist()
            image = rng.integers(1, n_images + 1, n).tolist()
            category = np.where(rng.random(n) < 0.11, 1, rng.integers(2, 366, n)).tolist()
            area = rng.integers(0, len(areas), n).tolist()
            rows = [
                record % (first + i + 1, a, b, areas[k], c, numbers[x], numbers[y], numbers[w], numbers[h], m, g)
                for i, (a, b, c, x, y, w, h, m, g, k) in enumerate(
                    zip(*flags, *picks, image, category, area, strict=True)
                )
            ]
            f.write((b"," if first else b"") + b",".join(rows))
        f.write(b'],"categories":[')
        names = ["Person"] + [f"Class {i}" for i in range(2, 366)]
        f.write(",".join(f'{{"id":{i},"name":"{n}"}}' for i, n in enumerate(names, 1)).encode())
        f.write(b'],"licenses":[],"images":[')
        for first in range(1, n_images + 1, BLOCK):
            n = min(BLOCK, n_images + 1 - first)
            f.write((b"," if first > 1 else b"") + _image_records(first, n))
        f.write(b"]}")


def write_openimages_csv(path: Path, rows: int, seed: int = 0) -> None:
    """The layout of ``oidv6-train-annotations-bbox.csv``: 21 columns, grouped, about 8.4 rows an image."""
    rng = np.random.default_rng(seed)
    coordinates = [b"%.6f" % v for v in np.sort(rng.random(20_011))]
    mids = [m.encode() for m in PERSON_MIDS] + [b"/m/0%05x" % i for i in range(595)]
    clicks = [b",".join(b"%.6f" % v for v in row) for row in rng.random((2_003, 8))]
    clicks[:400] = [b",".join([b"-1.000000"] * 8)] * 400
    tails = [b"%d,%d,%d,%d,%d" % tuple(row) for row in rng.choice([0, 0, 0, 1, -1], (997, 5)).tolist()]
    number, step = 1, max(2, 2**63 // max(1, rows // 8))
    with path.open("wb") as f:
        f.write(CSV_HEADER.encode() + b"\n")
        for first in range(0, rows, BLOCK):
            n = min(BLOCK, rows - first)
            new = (rng.random(n) < 1 / 8.4).cumsum().tolist()
            person = np.where(rng.random(n) < 0.2, rng.integers(0, 5, n), rng.integers(5, 600, n)).tolist()
            low = np.sort(rng.integers(0, len(coordinates), (4, n)), axis=0).tolist()
            click = rng.integers(0, len(clicks), n).tolist()
            tail = rng.integers(0, len(tails), n).tolist()
            lines = [
                b"%016x,xclick,%s,1,%s,%s,%s,%s,%s,%s\n"
                % ((number + g) * step % 2**64, mids[p], coordinates[a], coordinates[b], coordinates[c],
                   coordinates[d], tails[t], clicks[k])
                for g, p, a, b, c, d, t, k in zip(new, person, *low, tail, click, strict=True)
            ]  # fmt: skip
            number += new[-1] + 1
            f.write(b"".join(lines))
