"""What the trainers see: humans with masks (or parsings) cut like the stages cut them, jittered, as uint8 planes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ahp_toolkit.core import hashing
from ahp_toolkit.core.crops import crop_labels, crop_mask, cut
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.parsers import crop as body_crop
from ahp_toolkit.parsers import hrnet
from ahp_toolkit.runtime.context import around
from ahp_toolkit.segmenters import centermask, deeplab
from ahp_toolkit.segmenters import crop as ask_crop
from ahp_toolkit.segmenters.instances import laid, shape_on
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.held_out import HeldOut
from ahp_toolkit.storage.images import ImageError, Rgb
from ahp_toolkit.storage.photos import Photos

TRIES = 50  # photos in a row that may fail before training stops


class Cut(Protocol):
    """From a photo and a human to network planes uint8 [S, S, C] and target uint8 [S, S]; picklable."""

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One randomly jittered training sample."""


def jittered(box: Box, rng: np.random.Generator, amount: float = 0.05) -> Box:
    """The box with each edge moved by up to ``amount`` of its size: annotators are not exact."""
    dx0, dy0, dx1, dy1 = rng.uniform(-amount, amount, 4)
    w, h = box.width, box.height
    return Box(box.x0 + dx0 * w, box.y0 + dy0 * h, box.x1 + dx1 * w, box.y1 + dy1 * h)


def tinted(planes: NDArray[np.uint8], rng: np.random.Generator, amount: float = 0.2) -> None:
    """Mild gain and bias of each colour channel, in place, by a table."""
    gain = rng.uniform(1 - amount, 1 + amount) * rng.uniform(1 - amount / 3, 1 + amount / 3, 3)
    bias = 255 * rng.uniform(-amount, amount) / 2
    table = (np.arange(256)[:, None] * gain + bias).clip(0, 255).astype(np.uint8)
    rgb = cv2.LUT(np.ascontiguousarray(planes[:, :, :3]), np.ascontiguousarray(table[None]))
    planes[:, :, :3] = rgb


@dataclass(frozen=True)
class SegmenterCut:
    """DeepLab's samples: the 3x crop (2.4 to 3.6 times), the person's mask as target."""

    arch: deeplab.Arch

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Planes [S, S, 3 or 4] and the mask 0 or 1."""
        assert human.mask is not None
        height, width = photo.shape[:2]
        box = jittered(human.box, rng)
        crop = around(box, width, height, ask_crop.ENLARGE * rng.uniform(0.8, 1.2))
        planes = deeplab.planes_of(photo, box, crop, self.arch)
        target = crop_mask(human.mask, crop, self.arch.size).view(np.uint8)
        if rng.random() < 0.5:
            planes, target = planes[:, ::-1].copy(), target[:, ::-1].copy()
        tinted(planes, rng)
        return planes, target


@dataclass(frozen=True)
class CenterMaskCut:
    """CenterMask's samples: the 3x crop (2.4 to 3.6 times) laid on its canvas, and who of the photo's people is where.

    ``people``: all of a photo, by `photo_of`: somebody beside the person asked for must not be learnt as background.
    Those of other files of the photo, such as LIP's crops of it, lie in another frame and are left out.
    """

    arch: centermask.Arch
    people: Mapping[str, Sequence[Candidate]]

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Planes [S, S, 3] and numbers [S, S]: 1 the person, 2 and up the others, 0 nobody, BEYOND outside the crop."""
        height, width = photo.shape[:2]
        crop = around(jittered(human.box, rng), width, height, ask_crop.ENLARGE * rng.uniform(0.8, 1.2))
        size = self.arch.size
        planes = laid(cut(photo, crop), size)
        target = self._numbers(human, crop)
        h, w = shape_on((int(crop.height), int(crop.width)), size)
        if rng.random() < 0.5:
            planes[:h, :w], target[:h, :w] = planes[:h, :w][:, ::-1].copy(), target[:h, :w][:, ::-1].copy()
        tinted(planes, rng)
        target[h:], target[:, w:] = centermask.BEYOND, centermask.BEYOND
        return planes, target

    def _numbers(self, human: Candidate, crop: Box) -> NDArray[np.uint8]:
        side = max(crop.width, crop.height)
        square = Box(crop.x0, crop.y0, crop.x0 + side, crop.y0 + side)
        same = [c for c in self.people.get(photo_of(human), ()) if c.image.image_id == human.image.image_id]
        around_it = [c for c in same if c.candidate_id != human.candidate_id]
        near = [c for c in around_it if c.mask is not None and c.mask.box.intersection(crop) > 0][:200]
        out = np.zeros((self.arch.size, self.arch.size), np.uint8)
        for number, person in reversed([*enumerate([human, *near], 1)]):  # the person asked for is drawn last
            assert person.mask is not None
            out[crop_mask(person.mask, square, self.arch.size)] = number
        return out


@dataclass(frozen=True)
class ParserCut:
    """HRNet's samples: the body crop (0.9 to 1.2 of it), LIP labels as target; mirrored ones change sides."""

    arch: hrnet.Arch

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Planes [S, S, 3 or 4] and labels 0..19."""
        assert human.mask is not None and human.parsing is not None
        height, width = photo.shape[:2]
        crop = around(human.mask.box, width, height, body_crop.ENLARGE * rng.uniform(0.9, 1.2))
        mask = human.mask.decode()
        planes = hrnet.planes_of(photo, mask, crop, self.arch)
        labels = crop_labels(np.where(mask, human.parsing.decode(), np.uint8(0)), crop, self.arch.size)
        if rng.random() < 0.5:
            planes, labels = planes[:, ::-1].copy(), hrnet.mirrored(labels)
        tinted(planes, rng)
        return planes, labels


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Endless reshuffled humans: item i depends on the seed and on i alone; unreadable photos are passed over."""

    def __init__(self, humans: Sequence[Candidate], roots: Mapping[str, str], cut: Cut, seed: int) -> None:
        self._humans, self._cut, self._seed = humans, cut, seed
        self._photos = Photos(roots)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def _human(self, index: int) -> Candidate:
        epoch, place = divmod(index, len(self._humans))
        if self._order[0] != epoch:
            rng = np.random.default_rng(hashing.seed_of(self._seed, "order", epoch))
            self._order = epoch, rng.permutation(len(self._humans))
        return self._humans[int(self._order[1][place])]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """uint8 planes [C, S, S] and target [S, S].

        Raises:
            UserError: when fifty photos in a row cannot be read.
        """
        why = ""
        for i in range(index, index + TRIES):
            human = self._human(i)
            try:
                photo = self._photos.read(human.image)
            except ImageError as e:
                why = str(e)
                continue
            rng = np.random.default_rng(hashing.seed_of(self._seed, "sample", index))
            planes, target = self._cut(photo, human, rng)
            return torch.from_numpy(planes).permute(2, 0, 1), torch.from_numpy(np.ascontiguousarray(target))
        raise UserError(f"{TRIES} photos in a row cannot be read, the last: {why}; look at the data roots")


def humans_of(parts: Iterable[Path | str], parsed: bool) -> list[Candidate]:
    """All candidates with a mask (and, if ``parsed``, a parsing of the same frame) of harvest parts.

    A parsing without a mask makes its own: every labelled px.

    Raises:
        UserError: when there are fewer than two.
    """
    found = [
        h for p in parts for c in parquet.read_records(Path(p), Candidate) if (h := _usable(c, parsed)) is not None
    ]
    if len({photo_of(h) for h in found}) < 2:
        what = "body parsings (LIP has them)" if parsed else "masks"
        raise UserError(
            f"training needs humans with {what} on at least two photos, the harvest has {len(found)} of them"
        )
    return found


def without(humans: Sequence[Candidate], held: HeldOut) -> list[Candidate]:
    """The humans whose photos may be trained on.

    Raises:
        UserError: when they stand on fewer than two photos.
    """
    found = [h for h in humans if not held.has(photo_of(h))]
    if len({photo_of(h) for h in found}) < 2:
        raise UserError(
            f"training needs humans on at least two photos; {len(found)} of {len(humans)} are left once photos with a "
            f"hash in {held} are kept for val and test; harvest more"
        )
    return found


def _usable(c: Candidate, parsed: bool) -> Candidate | None:
    if c.mask is None or not c.mask.area:
        return None
    if not parsed:
        return c if c.parsing is None else replace(c, parsing=None)
    fits = c.parsing is not None and (c.parsing.height, c.parsing.width) == (c.mask.height, c.mask.width)
    return c if fits else None


def photo_of(human: Candidate) -> str:
    """Which photograph a human stands in, the same in whichever dataset it is."""
    return human.image.photo or human.image.image_id


def by_photo(humans: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """Humans grouped by `photo_of`."""
    found: dict[str, list[Candidate]] = {}
    for h in humans:
        found.setdefault(photo_of(h), []).append(h)
    return found


def split(humans: Sequence[Candidate], share: float) -> tuple[list[Candidate], list[Candidate]]:
    """(training, held out) by hash of the photo, at least one photo on each side; the held-out ones in hash order."""
    place = {p: hashing.unit_hash("held out", p) for p in {photo_of(h) for h in humans}}
    ranked = sorted(place, key=lambda p: place[p])
    held = {p for p in ranked[:-1] if place[p] < share} or {ranked[0]}
    out = sorted((h for h in humans if photo_of(h) in held), key=lambda h: (place[photo_of(h)], h.candidate_id))
    return [h for h in humans if photo_of(h) not in held], out
