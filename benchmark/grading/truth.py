"""The ground truth of a split: its digest, masks and pictures on the 256x256 crop, and the facts of slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import SIDE, crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Sample
from ahp_toolkit.core.text import file_stem
from ahp_toolkit.storage import files, parquet
from ahp_toolkit.storage.splits import sample_pairs as pairs_of
from ahp_toolkit.storage.splits import split_digest as split_digest
from benchmark.grading.pictures import pixels_digest, read_picture
from benchmark.metric import Bools, Bytes

CHUNK = 256  # samples in memory at a time
#: Height / width of the amodal box; the paper's figure 5 has almost half of all people in 1.5 to 3.5.
ASPECTS = (1.0, 1.5, 2.5, 3.5)


def sample_pairs(split: Path) -> list[tuple[str, str]]:
    """(sample_id, digest) of every sample of a split, as `storage.splits.sample_pairs`.

    Raises:
        UserError: when there is no table of samples, or it is empty or damaged.
    """
    if not any(split.glob("part-*.parquet")):
        raise UserError(f"{split}: expected a split with part-*.parquet, found none; give ROOT/splits/NAME of a build")
    pairs = pairs_of(split)
    if not pairs:
        raise UserError(f"{split}: expected samples, the table is empty; build the split again")
    return pairs


def chunks(split: Path, size: int = CHUNK) -> Iterator[list[Sample]]:
    """The samples of a split in order, ``size`` at a time."""
    samples = parquet.read_records(split, Sample)
    while chunk := list(islice(samples, size)):
        yield chunk


def crop_of(sample: Sample, which: str) -> Bools:
    """The sample's ``amodal``, ``modal`` or ``given`` mask as bool [256, 256] of its crop."""
    mask = sample.given.mask if which == "given" else getattr(sample, which)
    return crop_mask(mask, sample.crop, SIDE)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one sample for slices and intervals; ``aspect`` is height / width of the amodal box."""

    sample_id: str
    human_id: str
    ratio: float
    bin: int
    source: str
    aspect: float


def facts_of(sample: Sample) -> Facts:
    """The facts of a sample."""
    box = sample.amodal.box
    aspect = box.height / box.width if box.width else 0.0
    return Facts(sample.sample_id, sample.human_id, sample.occlusion_ratio, sample.bin, sample.image.source, aspect)


def slices(facts: list[Facts]) -> dict[str, Bools]:
    """Slice name to members, bool [n]: all, the split's bins, ten equal bins of the ratio, sources, aspect ratios."""
    bins, ratios = np.array([f.bin for f in facts]), np.array([f.ratio for f in facts])
    sources, aspects = np.array([f.source for f in facts]), np.array([f.aspect for f in facts])
    out: dict[str, Bools] = {"all": np.ones(len(facts), np.bool_)}
    for b in sorted(set(bins.tolist())):
        out[f"bin/{b}"] = bins == b
    tenth = np.minimum((ratios * 10).astype(int), 9)
    for t in sorted(set(tenth.tolist())):
        out[f"ratio/{t / 10:.1f}-{(t + 1) / 10:.1f}"] = tenth == t
    for s in sorted(set(sources.tolist())):
        out[f"source/{s}"] = sources == s
    band = np.searchsorted(ASPECTS, aspects, side="right")
    edges = ("0", *(f"{a:g}" for a in ASPECTS), "inf")
    for k in sorted(set(band.tolist())):
        out[f"aspect/{edges[k]}-{edges[k + 1]}"] = band == k
    return out


def picture_path(split: Path, sample_id: str, which: str) -> Path:
    """The path of a sample's ``occluded`` or ``recovered`` 256x256 crop."""
    return split / "crops" / f"{file_stem(sample_id)}.{which}.png"


@dataclass(frozen=True)
class TrueCrops:
    """The true pictures of a split: ``digests``, file name to sha256 of its pixels, as `materialize` wrote them."""

    split: Path
    digests: Mapping[str, str]

    def digest(self, split_digest: str) -> str:
        """The identity of what content is scored on: the split with the pixels of its true crops."""
        return hashing.digest_value([split_digest, sorted(self.digests.items())])

    def picture(self, sample_id: str) -> Bytes:
        """A sample's recovered crop, uint8 [256, 256, 3].

        Raises:
            UserError: when it is missing, damaged, or not the picture that was materialized.
        """
        path = picture_path(self.split, sample_id, "recovered")
        try:
            pixels = read_picture(path)
            if pixels_digest(pixels) != self.digests.get(path.name):
                raise ValueError("its pixels are not those of digests.json")
        except (OSError, ValueError) as e:
            raise UserError(
                f"{path}: the true picture of {sample_id} cannot be used ({e}); run ahp build materialize --what crops "
                "again"
            ) from e
        return pixels

    @cached_property
    def inodes(self) -> frozenset[tuple[int, int]]:
        """(device, inode) of every file of the crops, to know a hard link to one."""
        return frozenset((f.stat().st_dev, f.stat().st_ino) for f in (self.split / "crops").iterdir())


def true_digests(split: Path, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The identity of the truth by board: of the split, and where it has true crops, of the split with these."""
    digest, crops = split_digest(pairs), true_crops(split)
    return {"mask": digest, **({"content": crops.digest(digest)} if crops else {})}


def true_crops(split: Path) -> TrueCrops | None:
    """The true crops of a split; None where there are none, or none with digests."""
    listed = split / "crops" / "digests.json"
    return TrueCrops(split, dict(files.read_json(listed))) if listed.is_file() else None
