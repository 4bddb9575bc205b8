"""Which photos and people a run was trained on, beside its weights: whoever is among them cannot test it.

The borders of the splits move with the review, so a later test split may hold people of an earlier train split.
``trained_on.parquet`` holds 8-byte hashes, sorted: of the photos of people and occluders, and of the people's ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import files, parquet
from baselines.data.cache import Cache
from baselines.data.samples import ids_of
from baselines.training.runs import weights_file

FILE = "trained_on.parquet"
PARENT = b"parent_unknown"  # in the table's metadata: the run was started from weights that do not say theirs
Keys = NDArray[np.int64]


@dataclass(frozen=True)
class TrainedOn:
    """Sorted hashes of what a run and its parents saw; ``whole``: False when a parent does not say."""

    keys: Keys
    whole: bool = True

    def knows(self, photos: Sequence[str], people: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the people, with their photos, were seen, bool [N]."""
        return np.isin(_keys("photo", photos), self.keys) | np.isin(_keys("human", people), self.keys)


def _keys(kind: str, names: Iterable[str]) -> Keys:
    return np.fromiter((hashing.seed_of("trained on", kind, n) for n in names), np.int64)


def write(folder: Path, cache: Cache, init: Path | None) -> None:
    """Write beside a run's weights what it is trained on: the cache, and what the weights of ``init`` were.

    Raises:
        UserError: when the file of ``init`` is damaged, or it has no weights.
    """
    photos = {r.photo for known in (cache.humans, cache.occluders) for r in known}
    found, whole = [_keys("photo", photos), _keys("human", (h.human_id for h in cache.humans))], True
    if init is not None:
        parent = read(init)
        whole = parent is not None and parent.whole
        found += [parent.keys] if parent is not None else []
    table = pa.table({"key": np.unique(np.concatenate(found))})
    made = parquet.table_bytes(table.replace_schema_metadata({} if whole else {PARENT: b"1"}))
    path = folder / FILE
    if not path.exists() or path.read_bytes() != made:  # a finished run that is asked for again stays as it is
        files.write_bytes(path, made)


def read(run: Path) -> TrainedOn | None:
    """What a run folder (or model file) was trained on; None where it does not say: an older run, or a lone file.

    Raises:
        UserError: when the file is damaged, or there are no weights.
    """
    path = weights_file(run).parent / FILE
    if not path.exists():
        return None
    table = parquet.read_table(path, ["key"])
    if table["key"].type != pa.int64() or table["key"].null_count:
        raise UserError(f"{path}: expected a column of 64-bit keys, got {table['key'].type}; train the run again")
    return TrainedOn(table["key"].to_numpy(), PARENT not in (table.schema.metadata or {}))


def _named(run: Path) -> str:
    """Without the place, which a run that is stored elsewhere has for a while only."""
    return run.name if run.is_dir() else f"{run.parent.name}/{run.name}"


def check_unseen(runs: Sequence[Path], split_dir: Path) -> list[str]:
    """Refuse people of a split that a run was trained on; returns a line for each thing to know of instead.

    The train split is what a run is trained on: its people are counted, not refused.

    Raises:
        UserError: with the number of people that the first such run has seen.
    """
    known = [(run, read(run)) for run in runs]
    notes = []
    people = dict(ids_of(split_dir, "human_id")) if any(k is not None for _, k in known) else {}
    for run, its in known:
        if its is None or not its.whole:
            whose = "it was" if its is None else "the weights it started from were"
            notes.append(f"{_named(run)}: on which photos {whose} trained is not known; {split_dir.name} may hold some")
        seen = int(its.knows(list(people.values()), list(people)).sum()) if its is not None else 0
        if seen:
            line = f"{seen} of {len(people)} people of {split_dir.name} are of photos that {_named(run)} was trained on"
            if split_dir.name != "train":
                raise UserError(f"{line} (the review moved them since); train it again")
            notes.append(line)
    return notes
