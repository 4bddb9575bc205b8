"""The check that data roots are mounted: before photos are read, a few of each source are looked for.

A single missing photo costs its people alone (``image_missing``). A source of which not one photo is there is most
likely a disk that is not mounted: the command ends, and what was made before stays.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.storage import locations, parquet

#: Photos of a source that are looked for.
CHECKED = 20


def is_there(root: Path, *places: str) -> bool:
    """Whether a photo lies at one of these places below a data root.

    Raises:
        StorageError: when a store does not answer.
    """
    for place in places:
        try:
            if locations.find(root, place).is_file():
                return True
        except (ValueError, OSError):
            continue
    return False


def check(source: str, root: str, photos: Iterable[Sequence[str]]) -> None:
    """Refuse a source of which none of these photos (the places of each below ``root``) is there.

    Raises:
        UserError: with one place where a photo was looked for.
        StorageError: when a store does not answer.
    """
    folder, first, count = locations.place(root), "", 0
    for places in photos:
        if is_there(folder, *places):
            return
        first, count = first or places[0], count + 1
    if count:
        raise UserError(
            f"{source}: none of {count} photos that were looked for is there, such as {root}/{first}; mount or fetch "
            f"the photos, or look at the data root (--source); where they were moved within it, add --rebuild harvest"
        )


def mounted(roots: Mapping[str, str], *tables: Path) -> Callable[[], None]:
    """`check_mounted` of these tables, as the check of a `runtime.stage.Job`."""
    return lambda: check_mounted(roots, *tables)


def check_mounted(roots: Mapping[str, str], *tables: Path) -> None:
    """Look for `CHECKED` photos of each source, chosen by hash from tables of records that have an ``image``.

    Tables that do not exist are passed over.

    Raises:
        UserError: when a source has no data root, or not one of its photos is there.
        StorageError: when a store does not answer.
    """
    chosen: dict[str, list[str]] = {}
    for part in (p for table in tables if table.is_dir() for p in sorted(table.glob("part-*.parquet"))):
        rows = parquet.read_table(part, ["image.source", "image.path"]).flatten()
        for source in pc.unique(rows["image.source"]).to_pylist():
            paths = rows.filter(pc.equal(rows["image.source"], source))["image.path"]
            some = paths[:: max(1, len(paths) // CHECKED)] if len(paths) > CHECKED else paths
            every = {*some.to_pylist(), *chosen.get(source, ())}
            chosen[source] = heapq.nsmallest(CHECKED, every, key=lambda path: hashing.unit_hash(source, path))
    for source, photos in sorted(chosen.items()):
        if source in roots:
            check(source, roots[source], ([p] for p in photos))
