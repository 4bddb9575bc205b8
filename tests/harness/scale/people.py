"""A COCO data root of N photos, each with one whole person and one other thing apart from it: a build of N humans.

The stages behind the harvest (segment, parse, review, synth, materialize) are measured on it. Nearly everybody passes
the provisional rule, so N candidates give nearly N humans.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.harness.scale.generate import BLOCK, coco_head
from tests.harness.scale.pictures import link_all
from tests.harness.scale.shapes import COCO_SIZE_SHARES, COCO_SIZES

#: The outline of a standing person in [0, 1] x [0, 1], head to feet and back.
BODY = np.array(
    [(.43, .02), (.57, .02), (.62, .08), (.57, .15), (.72, .2), (.86, .34), (.95, .52), (.86, .55), (.74, .4),
     (.7, .55), (.72, .78), (.7, .98), (.56, .98), (.53, .7), (.48, .7), (.44, .98), (.3, .98), (.28, .78), (.3, .55),
     (.26, .4), (.14, .55), (.05, .52), (.14, .34), (.28, .2), (.43, .15), (.38, .08)]
)  # fmt: skip


def write_people(root: Path, n: int, seed: int = 0, link: bool = True) -> float:
    """Write ``annotations/instances_train2017.json`` and the photos below ``root``; returns mean bytes a photo."""
    rng = np.random.default_rng([seed, 5])
    sizes = [COCO_SIZES[c] for c in rng.choice(len(COCO_SIZES), n, p=np.array(COCO_SIZE_SHARES)).tolist()]
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", 2**20) as f:
        coco_head(f, sizes)
        for first in range(0, n, BLOCK):
            some = sizes[first : first + BLOCK]
            rows = [row for k, size in enumerate(some, first + 1) for row in _two(rng, k, size)]
            f.write((b"," if first else b"") + ",".join(rows).encode())
        f.write(b"]}")
    names = ((f"train2017/{k:012d}.jpg", size) for k, size in enumerate(sizes, 1))
    return link_all(root, names)[1] if link else 0.0


def _two(rng: np.random.Generator, k: int, size: tuple[int, int]) -> tuple[str, str]:
    """The annotations of one photo: the person in one half, a round thing in the other."""
    width, height = size
    h = height * rng.uniform(0.3, 0.9)
    w = min(h * rng.uniform(0.3, 0.6), width * 0.42)
    left = rng.random() < 0.5
    x = rng.uniform(8, width / 2 - w - 6) + (0 if left else width / 2)
    y = rng.uniform(7, height - h - 7)
    body = BODY * (w, h) + (x, y) + rng.normal(0, 0.004 * h, BODY.shape)
    r = rng.uniform(0.04, 0.2, 2) * min(size)
    at = np.array(
        [rng.uniform(r[0] + 4, width / 2 - r[0] - 4) + (width / 2 if left else 0), rng.uniform(r[1], height - r[1])]
    )
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    thing = np.stack([np.cos(t), np.sin(t)], 1) * r * rng.uniform(0.8, 1, (24, 1)) + at
    return _record(body.clip(6, (width - 6, height - 6)), k, 1, 2 * k), _record(thing.clip(0, size), k, 20, 2 * k + 1)


def _record(points: NDArray[np.float64], image: int, category: int, number: int) -> str:
    points = np.round(points, 2)
    low, span = points.min(0), np.ptp(points, axis=0)
    box = [round(float(v), 2) for v in (*low, *span)]
    return (
        f'{{"segmentation": [{points.ravel().tolist()}],"area": {box[2] * box[3] * 0.6:.2f},"iscrowd": 0,'
        f'"image_id": {image},"bbox": {box},"category_id": {category},"id": {number}}}'
    )
