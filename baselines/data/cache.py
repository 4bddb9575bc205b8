"""The crop cache: the train split's people and occluders as raw bytes on disk, built once, memory-mapped by loaders.

A person lies there as a square of twice their longer side (every crop that `stages.synth.protocol_crop` can draw lies
inside it), at the photo's own resolution or ``px`` at most: RGB, then the parsing with bit 7 for the amodal mask. An
occluder lies there as `occlusion.paste.cut_out` made it. Both carry their masks as runs for placing.
Training places and pastes in the frame of this crop: ratios are exact on its pixels (performance §1: within .001 of
those at full resolution).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import crop_image, crop_labels, crop_mask, square_around
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Dropped, Human, ImageRef, Occluder
from ahp_toolkit.occlusion.bits import Packed, fill, pack
from ahp_toolkit.occlusion.paste import Cutout, cut_out
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage, finished
from ahp_toolkit.storage import files, images, parquet
from ahp_toolkit.storage.build_folder import Build
from ahp_toolkit.storage.lock import lock
from ahp_toolkit.storage.photos import Photos

Bytes = NDArray[np.uint8]
REACH = 2.0  # side of the cached square in longer sides of the person
AMODAL = 128  # bit of the label plane


@dataclass(frozen=True, slots=True)
class Runs:
    """A packed mask's geometry (`bits.Packed`): corner and size in px, and its number of runs."""

    x0: int
    y0: int
    width: int
    height: int
    count: int


@dataclass(frozen=True, slots=True)
class HumanCrop:
    """One cached person: ``size`` px square, at ``offset`` bytes of ``file``; ``box`` is the square in the photo."""

    human_id: str
    photo: str
    file: str
    offset: int
    size: int
    box: Box
    frame: Box  # the photo's frame in px of the crop
    runs: Runs
    parsed: bool
    crc: int  # CRC-32 of its bytes


@dataclass(frozen=True, slots=True)
class OccluderCut:
    """One cached occluder: its tight mask [height, width], the levels of its colours, its runs."""

    occluder_id: str
    photo: str
    file: str
    offset: int
    runs: Runs
    crc: int


def photo_of(image: ImageRef) -> str:
    """What tells whether two records come from one photograph."""
    return image.photo or image.image_id


def _runs(mask: Packed) -> tuple[Runs, bytes]:
    data = b"".join(np.asarray(a, np.int32).tobytes() for a in (mask.ptr, mask.lows, mask.highs))
    return Runs(mask.x0, mask.y0, mask.width, mask.height, mask.lows.size), data


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@dataclass(frozen=True)
class Crops:
    """The stage function over people. ``pixels``: the folder of the raw files."""

    px: int
    pixels: str
    roots: dict[str, str]

    def __call__(self, items: Sequence[Human]) -> Output:
        """One shard: one raw file and its records."""
        out, photos, chunks = Output({MAIN: []}), Photos(self.roots), list[bytes]()
        name, offset = hashing.digest_value([h.human_id for h in items])[:24] + ".bin", 0
        for h in items:
            try:
                photo = photos.read(h.image)
            except images.ImageError as e:
                out.dropped.append(Dropped(h.human_id, "cache", f"image_{e.reason}", str(e), h.image.source))
                continue
            record, data = self._crop(h, photo, name, offset)
            out.tables[MAIN].append(record)
            chunks.append(data)
            offset += len(data)
            out.counts["parsed"] += record.parsed
        _write(Path(self.pixels) / name, chunks)
        return out

    def _crop(self, h: Human, photo: images.Rgb, name: str, offset: int) -> tuple[HumanCrop, bytes]:
        box = square_around(h.mask.box, REACH)
        size = min(self.px, int(box.width))
        mask, labels = crop_mask(h.mask, box, size), np.zeros((size, size), np.uint8)
        if h.parsing is not None:
            labels = crop_labels(h.parsing.decode(), box, size)
        labels = np.where(mask, labels | np.uint8(AMODAL), np.uint8(0))
        runs, data = _runs(pack(mask))
        scale = size / box.width
        frame = Box(*((a - b) * scale for a, b in zip((0, 0, *photo.shape[1::-1]), 2 * box[:2], strict=True)))
        data = crop_image(photo, box, size).tobytes() + labels.tobytes() + data
        record = HumanCrop(
            h.human_id, photo_of(h.image), name, offset, size, box, frame, runs, h.parsing is not None, zlib.crc32(data)
        )  # fmt: skip
        return record, data


@dataclass(frozen=True)
class Cuts:
    """The stage function over occluders."""

    pixels: str
    roots: dict[str, str]

    def __call__(self, items: Sequence[Occluder]) -> Output:
        """One shard: one raw file and its records."""
        out, photos, chunks = Output({MAIN: []}), Photos(self.roots), list[bytes]()
        name, offset = hashing.digest_value([o.occluder_id for o in items])[:24] + ".bin", 0
        for o in items:
            try:
                cutout = cut_out(photos.read(o.image), o.mask.decode())
            except ValueError as e:  # a photo that cannot be read, or another size than its mask
                reason = f"image_{getattr(e, 'reason', 'other')}"
                out.dropped.append(Dropped(o.occluder_id, "cache", reason, str(e), o.image.source))
                continue
            runs, data = _runs(pack(cutout.mask))
            pixels = cutout.mask.tobytes() + b"".join(level.tobytes() for level in cutout.levels)
            chunks.append(_padded(pixels) + data)
            crc = zlib.crc32(chunks[-1])
            out.tables[MAIN].append(OccluderCut(o.occluder_id, photo_of(o.image), name, offset, runs, crc))
            offset += len(chunks[-1])
        _write(Path(self.pixels) / name, chunks)
        return out


def _write(path: Path, chunks: Sequence[bytes]) -> None:
    with files.atomic(path) as f:
        for chunk in chunks:
            f.write(chunk)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of a cutout's levels: halved, rounding up, until a side is under 8 px."""
    shapes = [(height, width)]
    while min(shapes[-1]) >= 8:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    return shapes


@dataclass
class Cache:
    """The finished cache: records, and arrays that are views of mapped files, opened by each process for itself."""

    folder: Path
    digest: str
    humans: list[HumanCrop]
    occluders: list[OccluderCut]
    human_pixels: Path
    occluder_pixels: Path
    dropped: int = 0
    _open: dict[Path, Bytes] = field(default_factory=dict, repr=False)
    _checked: set[tuple[Path, int]] = field(default_factory=set, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": {}, "_checked": set()}

    @cached_property
    def parsed(self) -> int:
        """How many people have a parsing."""
        return sum(h.parsed for h in self.humans)

    def _file(self, path: Path) -> Bytes:
        if path not in self._open:
            try:
                self._open[path] = np.memmap(path, np.uint8, "r").view(np.ndarray)  # a memmap's own slices are slow
            except (OSError, ValueError) as e:
                raise self._damaged(path, e) from e
        return self._open[path]

    def _damaged(self, path: Path, why: object) -> UserError:
        return UserError(f"{path}: the crop cache is damaged ({why}); delete {self.folder} and run again")

    def _bytes(self, path: Path, at: int, size: int, crc: int) -> Bytes:
        """A record's bytes, from ``at`` on; the first time in this process they are checked."""
        data = self._file(path)[at : at + size]
        if (path, at) not in self._checked:
            if zlib.crc32(data.tobytes()) != crc or len(data) != size:
                raise self._damaged(path, f"the record at byte {at} is not what was written")
            self._checked.add((path, at))
        return data

    def human(self, index: int) -> tuple[Bytes, Bytes, Packed]:
        """RGB uint8 [size, size, 3], labels (parsing, AMODAL in bit 7), packed amodal mask, all in the crop's frame."""
        r = self.humans[index]
        area = r.size * r.size
        data = self._bytes(self.human_pixels / r.file, r.offset, 4 * area + _size(r.runs), r.crc)
        image, labels = data[: 3 * area], data[3 * area : 4 * area]
        packed = _packed(r.runs, data[4 * area :])
        return image.reshape(r.size, r.size, 3), labels.reshape(r.size, r.size), packed

    def occluder(self, index: int) -> tuple[Cutout, Packed]:
        """The cutout with its colour levels, and its packed mask."""
        r = self.occluders[index]
        h, w = r.runs.height, r.runs.width
        shapes = level_shapes(h, w)
        pixels = h * w + sum(3 * lh * lw for lh, lw in shapes)
        size = pixels + -pixels % 4 + _size(r.runs)
        data = self._bytes(self.occluder_pixels / r.file, r.offset, size, r.crc)
        mask = data[: h * w].reshape(h, w).view(np.bool_)
        at, levels = h * w, []
        for lh, lw in shapes:
            levels.append(data[at : at + 3 * lh * lw].reshape(lh, lw, 3))
            at += 3 * lh * lw
        at += -at % 4
        return Cutout(mask, tuple(levels)), _packed(r.runs, data[at:])


def _size(r: Runs) -> int:
    """Bytes of a mask's runs."""
    return 4 * (r.width + 1 + 2 * r.count)


def _packed(r: Runs, data: Bytes) -> Packed:
    numbers = data[: _size(r)].view(np.int32)
    ptr, lows, highs = numbers[: r.width + 1], numbers[r.width + 1 : -r.count], numbers[-r.count :]
    words, columns, rows = fill(ptr, lows, highs, r.height)
    area = int(columns.sum())
    return Packed(r.x0, r.y0, r.width, r.height, area, area, words, ptr, lows, highs, columns, rows)


def build_cache(root: Path, px: int, workers: int = 1, quiet: bool = False) -> Cache:
    """Build what is missing of the train split's cache under ``root``/cache and open it.

    Args:
        root: a build folder with finished splits.
        px: largest side of a cached person, px.

    Raises:
        UserError: when the folder is no build, or has no train people or occluders.
    """
    roots = Build(root).data_roots
    people = parquet.parts(root / "splits" / "train" / "humans")
    bank = parquet.parts(root / "bank" / "train")
    folder = root / "cache"
    code = code_digest(__name__)
    key = {"px": px, "people": hashing.digest_files(people), "code": code}
    human_job, human_pixels = _job(folder, f"humans-{px}", key, HumanCrop)
    cut_job, cut_pixels = _job(folder, "occluders", {"bank": hashing.digest_files(bank), "code": code}, OccluderCut)
    jobs = (
        (human_job, Crops(px, str(human_pixels), roots), lambda: _records(people, Human), human_pixels),
        (cut_job, Cuts(str(cut_pixels), roots), lambda: _by_photo(bank), cut_pixels),
    )
    dropped = 0
    for job, fn, items, pixels in jobs:
        made = finished(job.folder, job.key_digest)
        if made is None or not pixels.is_dir():
            files.remove_tree(job.folder)
            with lock(folder):
                _forget_others(pixels)
                whole = Job(job.name, job.folder, fn, job.tables, job.key, job.shard_size, unit=job.unit)  # type: ignore[arg-type]
                made = Stage(whole, items).run(quiet=quiet, workers=workers)  # type: ignore[arg-type]
                files.forget_unfinished(pixels)
        dropped += made.counts.get("dropped", 0)
    humans = list(parquet.read_records(human_job.folder, HumanCrop))
    cuts = list(parquet.read_records(cut_job.folder, OccluderCut))
    if not humans or not cuts:
        what = "people" if not humans else "occluders"
        raise UserError(f"{root}: the train split has no {what} that can be read; build it from more photos")
    digest = hashing.digest_value([human_job.key_digest, cut_job.key_digest])
    return Cache(folder, digest, humans, cuts, human_pixels, cut_pixels, dropped)


def _job(folder: Path, name: str, key: dict[str, object], cls: type) -> tuple[Job, Path]:
    job = Job(f"cache {name}", folder / name, Output, {MAIN: cls}, key, shard_size=128)  # type: ignore[arg-type]
    return job, folder / f"{name}.pixels-{job.key_digest[:12]}"


def _forget_others(pixels: Path) -> None:
    for old in pixels.parent.glob(f"{pixels.name.rpartition('-')[0]}-*"):
        if old != pixels:
            files.remove_tree(old)


def _records(paths: Sequence[Path], cls: type) -> Iterator[object]:
    for path in paths:
        yield from parquet.read_records(path, cls)


def _by_photo(paths: Sequence[Path]) -> Iterator[Occluder]:
    found = [o for path in paths for o in parquet.read_records(path, Occluder)]
    return iter(sorted(found, key=lambda o: (o.image.image_id, o.occluder_id)))
