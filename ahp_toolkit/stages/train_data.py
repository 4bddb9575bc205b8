"""What the trainers read: humans with masks (or parsings) of the harvest, and endless seeded samples of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.nets.recipe import Cut, photo_of
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.held_out import HeldOut
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

TRIES = 50  # photos in a row that may fail before training stops


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


def split(humans: Sequence[Candidate], share: float) -> tuple[list[Candidate], list[Candidate]]:
    """(training, held out) by hash of the photo, at least one photo on each side; the held-out ones in hash order."""
    place = {p: hashing.unit_hash("held out", p) for p in {photo_of(h) for h in humans}}
    ranked = sorted(place, key=lambda p: place[p])
    held = {p for p in ranked[:-1] if place[p] < share} or {ranked[0]}
    out = sorted((h for h in humans if photo_of(h) in held), key=lambda h: (place[photo_of(h)], h.candidate_id))
    return [h for h in humans if photo_of(h) not in held], out
