"""Training and evaluation data: occlusions drawn on the fly from the cache, or the frozen samples of a split.

Both give the same planes, uint8 [8, H, W]: occluded image (3), recovered or unoccluded photo (3), mask bits, parsing.
`to_batch` makes floats of them on the device. Sample ``i`` of a training run depends on the seed and ``i`` alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import crop_image, crop_labels, crop_mask
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Box
from ahp_toolkit.core.records import Human, Placement, Sample
from ahp_toolkit.nets.devices import keep_memory
from ahp_toolkit.occlusion.bits import Packed
from ahp_toolkit.occlusion.densities import Density
from ahp_toolkit.occlusion.initial_mask import simulate
from ahp_toolkit.occlusion.paste import Cutout, Pasted, paste_into_crop
from ahp_toolkit.occlusion.place import Placed, Settings, place
from ahp_toolkit.occlusion.render import Renderer
from ahp_toolkit.sources.base import PART_PAIRS
from ahp_toolkit.stages.synthesize import protocol_crop
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.build_folder import Build
from baselines.base import Batch
from baselines.data.cache import AMODAL, Cache

Bytes = NDArray[np.uint8]
Item = tuple[Tensor, bool]
_AMODAL, _MODAL, _GIVEN = 1, 2, 4  # bits of plane 6, as `_assemble` sets them
#: Occluders that are tried for a drawn bin, and then for any ratio, before a person stays unoccluded.
TRIES = (8, 4)
#: Initial masks are degraded at this many px at most and smoothly enlarged: their errors are coarse by nature.
GIVEN_PX = 128


def _swapped() -> Bytes:
    table = np.arange(256, dtype=np.uint8)
    for left, right in PART_PAIRS:
        table[left], table[right] = right, left
    return table


SWAPPED = _swapped()


@njit(cache=True)
def _assemble(image, photo, amodal, cover, given, parsing, flip):  # type: ignore[no-untyped-def]
    size = image.shape[0]
    out = np.empty((8, size, size), np.uint8)
    for y in range(size):
        for c in range(3):  # plane by plane: all eight rows at once would fight for the same cache lines
            for x in range(size):
                out[c, y, x] = image[y, size - 1 - x if flip else x, c]
            for x in range(size):
                out[3 + c, y, x] = photo[y, size - 1 - x if flip else x, c]
        for x in range(size):
            u = size - 1 - x if flip else x
            whole = amodal[y, u]
            out[6, y, x] = 1 * whole + 2 * (whole & (not cover[y, u])) + 4 * given[y, u]
        for x in range(size):
            out[7, y, x] = SWAPPED[parsing[y, size - 1 - x]] if flip else parsing[y, x]
    return out


def planes_of(pasted: Pasted, target: Bytes, given: Bool2D, parsing: Bytes, flip: bool = False) -> Bytes:
    """One sample as uint8 [8, H, W]; ``target``: its pixels count inside the amodal mask only.

    ``flip`` mirrors it left to right and swaps left and right body parts (the labels are the person's own).
    """
    return _assemble(pasted.image, target, pasted.amodal, pasted.occluder, given, parsing, flip)


def given_of(modal: Bool2D, seed: int, iou: float) -> Bool2D:
    """The simulated initial mask of a crop (`occlusion.degrade.simulate`), bool [S, S]."""
    size = modal.shape[0]
    if size <= GIVEN_PX:
        return simulate(modal, seed, iou)
    small = crop_labels(modal.view(np.uint8), Box(0, 0, size, size), GIVEN_PX).view(np.bool_)
    soft = crop_image(simulate(small, seed, iou).view(np.uint8) * np.uint8(255), Box(0, 0, GIVEN_PX, GIVEN_PX), size)
    return soft > 127


@dataclass(frozen=True)
class Draw:
    """How training samples are drawn: ``density`` of ratios, crop ``size`` px, mean IoU of the initial masks."""

    density: Density
    size: int
    iou: float = 0.775
    flip: bool = True
    seed: int = 0


class Drawn(NamedTuple):
    """A drawn sample before it becomes planes."""

    planes: Bytes
    ratio: float
    bin: int | None


class TrainData(Dataset[Item]):
    """Endless training samples: item ``i`` is person ``i % n`` of epoch ``i // n``'s order, occluded anew each time."""

    def __init__(self, cache: Cache, draw: Draw) -> None:
        self.cache, self.how = cache, draw
        self._settings = Settings(tries=32)

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Item:
        person = self.person(index)
        return torch.from_numpy(self.draw(index).planes), self.cache.humans[person].parsed

    def person(self, index: int) -> int:
        """Which cached person item ``index`` shows."""
        epoch, at = divmod(index, len(self.cache.humans))
        return int(_order(self.how.seed, epoch, len(self.cache.humans))[at])

    def draw(self, index: int) -> Drawn:
        """Occlude, crop, degrade and mirror: all by ``seed_of(seed, index)``."""
        seed = hashing.seed_of(self.how.seed, "sample", index)
        rng = np.random.Generator(np.random.PCG64(seed))
        person = self.person(index)
        image, labels, packed = self.cache.human(person)
        layers, ratio, bin_ = self._occlude(person, packed, rng)
        box = _crop_of(packed, seed)
        amodal = crop_labels(labels, box, self.how.size)
        pasted = paste_into_crop(crop_image(image, box, self.how.size), amodal >= AMODAL, box, layers)
        _blacken(pasted.image, self.cache.humans[person].frame, box)
        given = given_of(pasted.modal, hashing.seed_of(seed, "given"), self.how.iou)
        flip = self._flips(rng)
        return Drawn(planes_of(pasted, pasted.photo, given, amodal & np.uint8(AMODAL - 1), flip), ratio, bin_)

    def silhouettes(self, most: int, size: int) -> Tensor:
        """Amodal masks as the training crops show them: bool [N, size, size], of N <= ``most`` people, evenly spread.

        Each person has one crop, jittered and mirrored by ``seed_of(seed, "silhouette", person)``.
        """
        count = len(self.cache.humans)
        return torch.stack([self._silhouette(i, size) for i in range(0, count, -(-count // most))])

    def _silhouette(self, person: int, size: int) -> Tensor:
        seed = hashing.seed_of(self.how.seed, "silhouette", person)
        _, labels, packed = self.cache.human(person)
        mask = crop_labels(labels, _crop_of(packed, seed), size) >= AMODAL
        flip = self._flips(np.random.Generator(np.random.PCG64(seed)))
        return torch.from_numpy(mask[:, ::-1].copy() if flip else mask)

    def _flips(self, rng: np.random.Generator) -> bool:
        return self.how.flip and bool(rng.random() < 0.5)

    def _occlude(
        self, person: int, human: Packed, rng: np.random.Generator
    ) -> tuple[list[tuple[Cutout, Placement]], float, int | None]:
        """A random occluder of the bank at a ratio of a drawn bin; failing that at any ratio; failing that none."""
        bin_ = self.how.density.pick(float(rng.random()))
        for k in range(sum(TRIES)):
            interval = self.how.density.interval(bin_) if k < TRIES[0] else (0.0, 1.0)
            j = int(rng.integers(len(self.cache.occluders)))
            if self.cache.occluders[j].photo == self.cache.humans[person].photo:
                continue
            cutout, packed = self.cache.occluder(j)
            found = place(human, packed, interval, int(rng.integers(2**62)), self._settings)
            if isinstance(found, Placed):
                return [(cutout, found.placement)], found.ratio, self.how.density.bin_of(found.ratio)
        return [], 0.0, None


def _crop_of(human: Packed, seed: int) -> Box:
    """The protocol's crop around a cached person, px of its cached square."""
    return protocol_crop(Box(human.x0, human.y0, human.x0 + human.width, human.y0 + human.height), seed)


def _blacken(image: Bytes, frame: Box, box: Box) -> None:
    """Black wherever the crop reaches outside the photo: occluders do not show there."""
    size, side = image.shape[0], box.x1 - box.x0
    for axis, (start, low, high) in enumerate(((box.y0, frame.y0, frame.y1), (box.x0, frame.x0, frame.x1))):
        if low > start or high < start + side:
            at = start + (np.arange(size) + 0.5) * (side / size)
            outside = (at < low) | (at >= high)
            image[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = 0


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    rng = np.random.Generator(np.random.PCG64(hashing.seed_of(seed, "epoch", epoch)))
    return rng.permutation(count)


# --- frozen samples -----------------------------------------------------------------------------------------------


class EvalData(Dataset[Item]):
    """Frozen samples of a split, rendered and cut to ``size`` px on their own crops, in table order.

    Args:
        root: a build folder.
        most: keep so many, evenly spread over the split; None: all.
        part: one part's file name, for a worker; empty: the whole split.

    Items may raise `core.images.ImageError` where a photo is missing or has changed.
    """

    def __init__(self, root: Path, split: str, size: int, most: int | None = None, part: str = "") -> None:
        folder = root / "splits" / split
        self.samples = list(parquet.read_records(folder / part, Sample))
        if most is not None and len(self.samples) > most:
            keep = sorted(self.samples, key=lambda s: hashing.unit_hash("eval", s.sample_id))[:most]
            chosen = {s.sample_id for s in keep}
            self.samples = [s for s in self.samples if s.sample_id in chosen]
        wanted = {s.human_id for s in self.samples}
        table = folder / "humans"
        table = table / part if (table / part).exists() else table
        people = parquet.read_records(table, Human) if table.exists() else iter(())
        self.parsings = {h.human_id: h.parsing for h in people if h.human_id in wanted}
        roots = Build(root).data_roots
        self.render, self.size = Renderer(roots, folder, part), size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        planes, parsed = self.planes(self.samples[index])
        return torch.from_numpy(planes), parsed

    def planes(self, sample: Sample) -> tuple[Bytes, bool]:
        """(uint8 [8, size, size], whether there is a parsing) of a sample."""
        (planes,), parsed = self.crops(sample, (self.size,))
        return planes, parsed

    def crops(self, sample: Sample, sizes: Sequence[int]) -> tuple[list[Bytes], bool]:
        """The planes at several sizes, rendered once."""
        full, labels = self.render(sample), self.parsings.get(sample.human_id)
        decoded = None if labels is None else labels.decode()
        return [self._crop(full, sample, decoded, size) for size in sizes], labels is not None

    def _crop(self, full: Pasted, sample: Sample, labels: Bytes | None, size: int) -> Bytes:
        box = sample.crop
        masks = [crop_mask(m, box, size) for m in (sample.amodal, sample.modal, sample.given.mask)]
        parsing = np.zeros((size, size), np.uint8)
        if labels is not None:
            parsing = np.where(masks[0], crop_labels(labels, box, size), parsing)
        image, target = crop_image(full.image, box, size), crop_image(full.recovered, box, size)
        return planes_of(Pasted(image, target, masks[0], masks[0] & ~masks[1]), target, masks[2], parsing)


# --- batches ------------------------------------------------------------------------------------------------------


def to_batch(
    planes: Tensor, parsed: Tensor, device: torch.device | str, layout: torch.memory_format = torch.contiguous_format
) -> Batch:
    """uint8 planes [B, 8, H, W] and bool [B] to a Batch on the device, its pictures in ``layout``; made there."""
    x = planes.to(device, non_blocking=True)
    pictures = x[:, :6].float().mul_(2 / 255).sub_(1)
    image, photo = (p.contiguous(memory_format=layout) for p in (pictures[:, :3], pictures[:, 3:]))
    amodal, modal, given = ((x[:, 6:7] & bit > 0).float() for bit in (_AMODAL, _MODAL, _GIVEN))
    target = torch.where(amodal > 0, photo, image).contiguous(memory_format=layout)
    parsing = x[:, 7].long()
    return Batch(image, given, modal, amodal, parsing, None, parsed.to(device), target)


def collate(items: Sequence[tuple[Tensor, bool]]) -> tuple[Tensor, Tensor]:
    """Items to (planes uint8 [B, 8, H, W], parsed bool [B])."""
    return torch.stack([p for p, _ in items]), torch.tensor([b for _, b in items])


def worker_init(_: int) -> None:
    """A loader process: one thread, and memory that stays with it."""
    keep_memory()
    cv2.setNumThreads(0)


# --- leakage ------------------------------------------------------------------------------------------------------


def ids_of(folder: Path, column: str) -> Iterator[tuple[str, str]]:
    """(id, photo) of every record of a table folder; ``column``: the id's."""
    for path in sorted(folder.glob("part-*.parquet")):
        for row in parquet.read_table(path, [column, "image"]).to_pylist():
            yield row[column], row["image"]["photo"] or row["image"]["image_id"]


def check_leakage(root: Path, cache: Cache) -> None:
    """Nobody and nothing of val or test may be in the training data: neither by id nor by photograph.

    Raises:
        UserError: naming the first offender.
    """
    people = {h.human_id: h.photo for h in cache.humans}
    things = {o.occluder_id: o.photo for o in cache.occluders}
    photos = {photo: name for known in (things, people) for name, photo in known.items()}
    for split in ("val", "test"):
        found = [("human", p) for p in ids_of(root / "splits" / split / "humans", "human_id")]
        found += [("occluder", p) for p in ids_of(root / "splits" / split / "occluders", "occluder_id")]
        found += [("occluder", p) for p in ids_of(root / "bank" / split, "occluder_id")]
        for kind, (name, photo) in found:
            if name in people or name in things:
                raise UserError(f"{root}: the {kind} {name} of {split} is in the training data; build the splits again")
            if photo in photos:
                raise UserError(
                    f"{root}: {photos[photo]} of train and the {kind} {name} of {split} come from one photograph, "
                    f"{photo}; build the splits again"
                )
