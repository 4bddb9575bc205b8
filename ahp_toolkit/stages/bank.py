"""STAGE bank: the occluders of each split, chosen by hash, never from a photo of another split.

Random instances of the named sources (spec §2: of COCO). Each split keeps its own share of what it could have, so that
every bank has the requested size, or holds all there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ahp_toolkit.core import hashing
from ahp_toolkit.core.records import SPLITS, Occluder
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import Job, Output, Stage, digest_of
from ahp_toolkit.stages.review import Thresholds
from ahp_toolkit.storage import parquet


@dataclass(frozen=True)
class Bank:
    """The stage function. Items: paths of Occluder parts; tables: one a split.

    ``split_of`` gives the split of a photo key; ``shares`` of what a split could have are kept (by hash), by split;
    ``sources`` are those whose instances occlude; ``min_area`` px².
    """

    split_of: Callable[[str], str]
    shares: Mapping[str, float]
    sources: tuple[str, ...]
    min_area: int

    def __call__(self, items: Sequence[str]) -> Output:
        """One part of the harvest's occluders."""
        out = Output({name: [] for name in SPLITS})
        for path in items:
            for o in parquet.read_records(Path(path), Occluder):
                out.counts["read"] += 1
                if o.area < self.min_area or o.image.source not in self.sources:
                    continue
                split = self.split_of(o.image.photo or o.image.image_id)
                if hashing.unit_hash("bank", o.occluder_id) < self.shares[split]:
                    out.tables[split].append(o)
                    out.counts[f"kept/{o.image.source}"] += 1
        return out


def shares(
    parts: Sequence[str], split_of: Callable[[str], str], sources: Sequence[str], min_area: int, size: int
) -> dict[str, float]:
    """The share of each split's possible occluders that gives a bank of about ``size``: 1 where it has no more.

    Counted exactly, from a few columns of one part at a time.
    """
    found: Counter[str] = Counter()
    for part in parts:
        for photo, n in _photos(Path(part), sources, min_area).items():
            found[split_of(photo)] += n
    return {name: min(1.0, size / max(1, found[name])) for name in SPLITS}


def _photos(part: Path, sources: Sequence[str], min_area: int) -> dict[str, int]:
    """The number of possible occluders by the key of their photo."""
    names = ("image.source", "image.photo", "image.image_id")
    table = parquet.read_table(part, ["area", *names])
    image = table["image"].combine_chunks()
    source, photo, image_id = (pc.struct_field(image, n.partition(".")[2]) for n in names)
    good = pc.and_(pc.greater_equal(table["area"].combine_chunks(), min_area), pc.is_in(source, pa.array(sources)))
    keys = pc.if_else(pc.equal(photo, ""), image_id, photo).filter(good)
    return {v["values"]: v["counts"] for v in pc.value_counts(keys).to_pylist()}


def read_bank(folder: str) -> tuple[Occluder, ...]:
    """All occluders of one split's bank, sorted by id; kept by the process until the files change."""
    return _held(folder)[0]


def _held(folder: str) -> tuple[tuple[Occluder, ...], dict[str, Occluder]]:
    there = Path(folder).stat()  # one look: this runs several times a sample, over thousands of parts
    return _read(folder, there.st_ino, there.st_mtime_ns)


@lru_cache(maxsize=len(SPLITS))
def _read(folder: str, _inode: int, _changed_ns: int) -> tuple[tuple[Occluder, ...], dict[str, Occluder]]:
    found = tuple(sorted(parquet.read_records(Path(folder), Occluder), key=lambda o: o.occluder_id))
    return found, {o.occluder_id: o for o in found}


def occluder_by_id(folder: str, occluder_id: str) -> Occluder:
    """One occluder of a split's bank.

    Raises:
        KeyError: when the bank does not hold it.
    """
    return _held(folder)[1][occluder_id]


@dataclass(frozen=True)
class Wanted:
    """The banks that a build wants: whose instances, of ``min_area`` px² or more, about ``size`` a split."""

    sources: tuple[str, ...]
    min_area: int
    size: int


def by_source(counts: Mapping[str, int]) -> Counter[str]:
    """How many instances of each source can occlude, from the counts of a harvest."""
    found: Counter[str] = Counter()
    for key, n in counts.items():
        kind, _, source = key.partition("/")
        if kind in ("occluders_other", "occluders_person"):
            found[source] += n
    return found


def stage(out: Path, cut: Thresholds, wanted: Wanted) -> Stage:
    """The occluders of each split, into ``out``/bank/SPLIT."""
    parts = [str(p) for p in parquet.parts(out / "harvest" / "occluders")]
    share = shares(parts, cut.split, wanted.sources, wanted.min_area, wanted.size)
    key = {"cut": asdict(cut), "shares": share, "sources": wanted.sources, "min": wanted.min_area}
    key |= {"input": digest_of(out / "harvest"), "code": code_digest(__name__)}
    fn = Bank(cut.split, share, wanted.sources, wanted.min_area)
    return Stage(Job("bank", out / "bank", fn, dict.fromkeys(SPLITS, Occluder), key, shard_size=1, unit="part"), parts)
