"""One photograph in two sources: found by keys and by content, kept once, the better annotation winning (formats §7).

Keys (Flickr photo id, COCO id, VOC id) are exact. Content is a 64-bit pHash with Hamming distance <= 4, verified by
the mean difference of 16x16 thumbnails. Two files of one photograph within one source are both kept, but share one
photo key, so that they never fall into two splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numba import njit

from ..core import store
from ..core.pipeline import MAIN, Output
from ..core.records import Candidate, Dropped, ImageRef, Occluder
from ..sources.base import PERSON
from .harvest import STAGE

HAMMING = 4
THUMB_DIFFERENCE = 8.0  # mean absolute grey level; two JPEG qualities of one photo differ by 1 to 3
#: Where two sources annotate a photo equally well, the earlier in this list wins (whole photos before crops).
RANK = ("coco", "voc_sbd", "openimages", "objects365", "lip", "ahp")


@dataclass(frozen=True)
class Duplicates:
    """``group``: image id -> photo key shared by all files of one photograph, where it is not the image's own id;
    ``lost``: image id -> the id kept in its place."""

    group: dict[str, str]
    lost: dict[str, str]

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        store.write_json(path, {"group": self.group, "lost": self.lost})


@cache
def _load(path: str) -> Duplicates:
    said = store.read_json(Path(path))
    return Duplicates(said["group"], said["lost"])


def find_duplicates(photos: Path) -> Duplicates:
    """Group the photos of a harvest (table of `harvest.Photo`) and choose the one to keep of each group."""
    paths = store.parts(photos)
    columns = ["image_id", "source", "keys", "phash", "people", "masks"]
    rows = [r for p in paths for r in store.read_table(p, columns).to_pylist()]
    parent = list(range(len(rows)))
    _join_by_keys(rows, parent)
    pairs = _near_pairs([r["phash"] for r in rows])
    thumbs = _thumbs(paths, {i for pair in pairs for i in pair})
    for a, b in pairs:
        if np.abs(thumbs[a] - thumbs[b]).mean() <= THUMB_DIFFERENCE:
            _union(parent, a, b)
    return _choose(rows, parent)


def _find(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _union(parent: list[int], a: int, b: int) -> None:
    a, b = sorted((_find(parent, a), _find(parent, b)))
    parent[b] = a


def _join_by_keys(rows: Sequence[dict[str, object]], parent: list[int]) -> None:
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        for key in str(row["keys"]).split():
            _union(parent, first.setdefault(key, i), i)


@njit(cache=True)
def _pairs_in_bands(values, order, band):  # type: ignore[no-untyped-def]
    """Pairs of a band-sorted order that share their band's bits and differ in at most HAMMING bits in all."""
    found = []
    n = order.size
    for i in range(n):
        a = values[order[i]]
        j = i + 1
        while j < n and band[order[j]] == band[order[i]]:
            x = a ^ values[order[j]]
            x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            if (x * np.uint64(0x0101010101010101)) >> np.uint64(56) <= np.uint64(HAMMING):
                found.append((order[i], order[j]))
            j += 1
    return found


def _near_pairs(hashes: Sequence[bytes]) -> list[tuple[int, int]]:
    """Index pairs at Hamming distance <= HAMMING: they agree in one of HAMMING + 1 bands of the 64 bits."""
    index = np.asarray([i for i, h in enumerate(hashes) if len(h) == 8], np.int64)
    if index.size < 2:
        return []
    values = np.frombuffer(b"".join(hashes[i] for i in index), ">u8").astype(np.uint64)
    found: set[tuple[int, int]] = set()
    for low, high in pairwise(round(64 * k / (HAMMING + 1)) for k in range(HAMMING + 2)):
        band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for a, b in _pairs_in_bands(values, np.argsort(band, kind="stable"), band):
            found.add((int(index[min(a, b)]), int(index[max(a, b)])))
    return sorted(found)


def _thumbs(paths: Iterable[Path], wanted: set[int]) -> dict[int, np.ndarray]:
    out: dict[int, np.ndarray] = {}
    start = 0
    for path in paths if wanted else ():
        column = store.read_table(path, ["thumb"])["thumb"]
        for i in range(len(column)):
            if start + i in wanted:
                out[start + i] = np.frombuffer(column[i].as_py(), np.uint8).astype(np.float32)
        start += len(column)
    return out


def _choose(rows: Sequence[dict[str, object]], parent: list[int]) -> Duplicates:
    members: dict[int, list[int]] = {}
    for i in range(len(rows)):
        members.setdefault(_find(parent, i), []).append(i)
    group: dict[str, str] = {}
    lost: dict[str, str] = {}
    for ids in members.values():
        best = min(ids, key=lambda i: _preference(rows[i]))
        for i in ids:
            image_id = str(rows[i]["image_id"])
            if i != best:
                group[image_id] = str(rows[best]["image_id"])
            if rows[i]["source"] != rows[best]["source"]:
                lost[image_id] = str(rows[best]["image_id"])
    return Duplicates(group, lost)


def _preference(row: dict[str, object]) -> tuple[bool, int, str]:
    people, masks, source = int(str(row["people"])), int(str(row["masks"])), str(row["source"])
    all_masked = people > 0 and masks == people
    return (not all_masked, RANK.index(source) if source in RANK else len(RANK), str(row["image_id"]))


@dataclass(frozen=True)
class Unite:
    """The stage function that ends the harvest: duplicates leave, photo keys become the group's. Items: raw part names.

    ``raw`` is the raw harvest's folder, ``found`` the file of `Duplicates.save` (not the object: it goes to every
    worker with every shard). What leaves is kept aside in the table ``duplicates``: LIP's crops of COCO photos still
    train the parser.
    """

    raw: str
    found: str

    def __call__(self, items: Sequence[str]) -> Output:
        """One part of the raw harvest."""
        out = Output({MAIN: [], "occluders": [], "duplicates": []})
        found = _load(self.found)
        for name in items:
            for c in store.read_records(Path(self.raw) / name, Candidate):
                _candidate(c, found, out)
            for o in store.read_records(Path(self.raw) / "occluders" / name, Occluder):
                if o.image.image_id not in found.lost:
                    out.tables["occluders"].append(replace(o, image=_grouped(o.image, found)))
                    kind = "person" if o.label == PERSON else "other"
                    out.counts[f"occluders_{kind}/{o.image.source}"] += 1
        return out


def _grouped(image: ImageRef, found: Duplicates) -> ImageRef:
    return replace(image, photo=found.group.get(image.image_id, image.image_id))


def _candidate(c: Candidate, found: Duplicates, out: Output) -> None:
    c = replace(c, image=_grouped(c.image, found))
    kept = found.lost.get(c.image.image_id)
    if kept is None:
        out.tables[MAIN].append(c)
        out.counts[f"candidates/{c.image.source}"] += 1
        return
    out.tables["duplicates"].append(c)
    detail = f"the same photo as {kept}, which is annotated better"
    out.dropped.append(Dropped(c.candidate_id, STAGE, "duplicate_photo", detail, c.image.source))
