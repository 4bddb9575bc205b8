"""What the true annotation files look like in numbers: sizes of files, photos, boxes and people, and where from.

Counts marked [V] in the project's format notes are exact; shares that nobody has published (flags, people a photo of
Objects365) are stated here as assumptions and are parameters of the generator, not facts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: (width, height) px of photos and their shares; Flickr's usual sizes.
SIZES = ((1024, 683), (683, 1024), (1024, 768), (769, 512), (640, 480), (960, 640), (512, 683))
SIZE_SHARES = (0.33, 0.14, 0.2, 0.11, 0.1, 0.06, 0.06)
COCO_SIZES = ((640, 480), (640, 427), (480, 640), (500, 375), (427, 640), (612, 612), (640, 360))
COCO_SIZE_SHARES = (0.36, 0.24, 0.14, 0.08, 0.11, 0.03, 0.04)
#: Bytes of a mean photo: Objects365 has 367 GB for 1.92 million, COCO about 18 GB for 118 thousand.
PHOTO_BYTES = 190_000
STOCK = 4096


@dataclass(frozen=True)
class Shape:
    """A dataset at full size. ``people`` is their share of the boxes; ``can`` that of photos that can hold people."""

    images: int
    boxes: int
    bytes: int
    people: float
    can: float


#: Objects365 v2 train, Open Images V6 train, COCO 2017 train; people of Objects365 are an assumption.
FULL = {
    "objects365": Shape(1_742_289, 25_400_000, 5_500_000_000, 0.11, 0.55),
    "openimages": Shape(1_743_042, 14_610_229, 2_260_000_000, 0.23, 0.55),
    "coco": Shape(118_287, 860_001, 470_000_000, 0.305, 0.62),
}


def sized(source: str, fraction: float) -> Shape:
    """The shape of a fraction of a dataset (photos and boxes shrink together)."""
    full = FULL[source]
    counts = (max(1, round(n * fraction)) for n in (full.images, full.boxes, full.bytes))
    return Shape(*counts, full.people, full.can)


class Images:
    """Who stands in which photo: each photo's size class, its weight in boxes, and its share of people.

    Boxes a photo follow a negative binomial (a Gamma weight each), people are in some photos only, as in the originals.
    """

    def __init__(self, shape: Shape, shares: tuple[float, ...], seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        n = shape.images
        self.size_class = rng.choice(len(shares), n, p=np.array(shares)).astype(np.uint8)
        weights = rng.gamma(1.6, 1 / 1.6, n).astype(np.float32)
        counts = np.floor(weights * 8 + rng.random(n, np.float32)).astype(np.int32)
        self.slots = np.repeat(np.arange(n, dtype=np.int32), counts)
        mean = shape.people / shape.can
        share = rng.beta(6 * mean, 6 * (1 - mean), n).astype(np.float32)
        self.people = np.where(rng.random(n, np.float32) < shape.can, share, np.float32(0))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """(photo of each of ``n`` boxes, in no order; whether the box is a person's)."""
        image = self.slots[rng.integers(0, len(self.slots), n)]
        return image, rng.random(n, np.float32) < self.people[image]


def boxes(rng: np.random.Generator, size: tuple[int, int], person: bool, n: int = STOCK) -> NDArray[np.float64]:
    """[n, 4] x, y, w, h px inside a photo of ``size``: people upright, some cut by the border, sizes log-normal."""
    width, height = size
    tall = np.exp(rng.normal(0.75 if person else 0.0, 0.35 if person else 0.6, n))  # h / w
    side = np.exp(rng.normal(np.log(0.17 if person else 0.11), 0.85, n)) * (width * height) ** 0.5
    w = np.minimum(side / np.sqrt(tall), width * 0.98)
    h = np.minimum(side * np.sqrt(tall), height * 0.98)
    w, h = np.maximum(w, 3.0), np.maximum(h, 3.0)
    x, y = rng.random(n) * (width - w), rng.random(n) * (height - h)
    cut = rng.random(n) < (0.18 if person else 0.1)  # leaves the photo at one side
    at = rng.integers(0, 3, n)
    x = np.where(cut & (at == 0), 0.0, np.where(cut & (at == 1), width - w, x))
    y = np.where(cut & (at == 2), height - h, y)
    return np.stack([x, y, w, h], 1)
