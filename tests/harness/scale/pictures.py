"""Photos behind annotations of any size: a bounded pool of drawn photographs, addressed by hash through hard links.

A link costs one folder entry and no data, so 1.7 million photos lie on a few megabytes. What that does to figures: the
pool stays in the page cache, so storage is asked for nothing (bytes *requested* are true, bytes *read from disk* are
not); decoding, hashing and copying cost what they cost on real photos of this size. Photos that share a pool file are
one photograph to a perceptual hash, so builds that verify photos see many duplicates within a source (kept, by rule).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import images
from tests.harness.scale.shapes import SIZES

#: Links that one file may have with room to spare: ext4 ends at 65,000.
MOST_LINKS = 60_000


def draw(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]: soft ground, shapes with edges, fine texture; compresses about as a photo does."""
    width, height = size
    rng = np.random.default_rng([seed, width, height])
    coarse = rng.integers(30, 225, (7, 10, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    for octave in (16, 6):
        small = rng.normal(0, 14, (height // octave + 2, width // octave + 2, 3)).astype(np.float32)
        picture += cv2.resize(small, size, interpolation=cv2.INTER_LINEAR).astype(np.int16)
    shown = picture.clip(0, 255).astype(np.uint8)
    for _ in range(60):
        at = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.integers(6, width // 6)), int(rng.integers(6, height // 6)))
        cv2.ellipse(shown, at, axes, float(rng.uniform(0, 180)), 0, 360, rng.integers(0, 255, 3).tolist(), -1)
    grain = rng.normal(0, 7, (height, width, 1))
    return (shown + grain).clip(0, 255).astype(np.uint8)


@dataclass
class Pool:
    """``each`` photos of each size below ``folder``, drawn when first asked for; links are made into data roots.

    ``folder`` must be on the file system of the links and inside the data root (links may not leave it).
    """

    folder: Path
    each: int = 8
    quality: int = 87
    _files: dict[tuple[tuple[int, int], int], Path] = field(default_factory=dict)
    _links: Counter[tuple[tuple[int, int], int]] = field(default_factory=Counter)

    def file(self, size: tuple[int, int], k: int) -> Path:
        """One photo of the pool."""
        if (size, k) not in self._files:
            path = self._files[size, k] = self.folder / f"{size[0]}x{size[1]}-{k}.jpg"
            if not path.exists():
                images.write_jpeg(path, draw(size, k), self.quality)
        return self._files[size, k]

    def link(self, path: Path, size: tuple[int, int], key: object) -> None:
        """Put a photo of ``size`` at ``path``; which one is decided by the hash of ``key``."""
        k = hashing.seed_of("pool", key) % self.each
        n = self._links[size, k]
        self._links[size, k] += 1
        with suppress(FileExistsError):
            os.link(self.file(size, k + self.each * (n // MOST_LINKS)), path)

    def mean_bytes(self) -> float:
        """Mean size of the pool's files, bytes."""
        sizes = [p.stat().st_size for p in self.folder.glob("*.jpg")]
        return sum(sizes) / max(1, len(sizes))


def link_all(root: Path, found: Iterable[tuple[str, tuple[int, int]]], each: int = 8) -> tuple[int, float]:
    """Links for (path below root, size); returns how many and the mean bytes of a photo."""
    pool, n, known = Pool(root / ".pool", each), 0, set[Path]()
    for relative, size in found:
        path = root / relative
        if path.parent not in known:
            path.parent.mkdir(parents=True, exist_ok=True)
            known.add(path.parent)
        pool.link(path, size, relative)
        n += 1
    return n, pool.mean_bytes()


def photos_of(source: str, root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path, size) of every photo with a human of a generated source, told by the source's own scan."""
    for entry in SOURCES.get(source).scan(root):
        p = entry.payload
        if source == "objects365":
            yield f"train/{'/'.join(p.file_name.split('/')[-2:])}", (p.width, p.height)
        elif source == "coco":
            yield p.found.places[0], p.size
        else:  # boxes are shares of the photo: any size does
            yield f"train/{entry.image_id.split('/')[1]}.jpg", SIZES[hashing.seed_of(entry.image_id) % len(SIZES)]
