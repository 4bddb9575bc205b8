"""STAGE bank: the occluders of each split, chosen by hash, never from a photo of another split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..core import store
from ..core.pipeline import Output
from ..core.records import SPLITS, Occluder


@dataclass(frozen=True)
class Bank:
    """The stage function. Items: paths of Occluder parts; tables: one a split.

    ``split_of`` gives the split of a photo key; ``share`` keeps that share of all (by hash); ``min_area`` px².
    """

    split_of: Callable[[str], str]
    share: float
    min_area: int

    def __call__(self, items: Sequence[str]) -> Output:
        """One part of the harvest's occluders."""
        out = Output({name: [] for name in SPLITS})
        for path in items:
            for o in store.read_records(Path(path), Occluder):
                if o.area >= self.min_area and store.unit_hash("bank", o.occluder_id) < self.share:
                    out.tables[self.split_of(o.image.photo or o.image.image_id)].append(o)
        return out


@cache
def read_bank(folder: str) -> tuple[Occluder, ...]:
    """All occluders of one split's bank, sorted by id; kept for the process."""
    return tuple(sorted(store.read_records(Path(folder), Occluder), key=lambda o: o.occluder_id))


@cache
def _by_id(folder: str) -> dict[str, Occluder]:
    return {o.occluder_id: o for o in read_bank(folder)}


def occluder_by_id(folder: str, occluder_id: str) -> Occluder:
    """One occluder of a split's bank.

    Raises:
        KeyError: when the bank does not hold it.
    """
    return _by_id(folder)[occluder_id]
