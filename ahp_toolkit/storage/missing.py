"""Photos that were missing when a stage was made: noted with it, and looked for again.

A photo is (source, places below the source's data root where it was looked for); a label picture is noted alike. A
stage notes at most `LIMIT` of a source and kind, the first by hash: the same ones whoever asks, and all of them where
few are missing. Where not one photo was there, nor one of those that the harvest has had, nothing is made.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.storage import files, locations, parquet

Absent = tuple[str, ...]
_Folder = tuple[str, str | None]  # source, folder below its data root; None for all of them
#: Photos (and label pictures) of a source that are noted; each is looked for (a stat) whenever its stage is asked for.
LIMIT = 1000
#: Of those of a source in an object store, how many are asked for, a request for each place.
REMOTE_LIMIT = 20
#: Photos of a folder that were there once, of which one tells that its disk is not away.
PROBES = 32


class Away(UserError):
    """Not one photo was there: nothing was replaced."""


def noted(*photos: Iterable[Sequence[str]]) -> list[Absent]:
    """The photos to note, in their order."""
    taken: Counter[tuple[str, bool]] = Counter()
    kept = []
    for photo in sorted({tuple(p) for some in photos for p in some}, key=_rank):
        taken[_kind(photo)] += 1
        if taken[_kind(photo)] <= LIMIT:
            kept.append(photo)
    return kept


def _kind(photo: Sequence[str]) -> tuple[str, bool]:
    """Source, and whether it is a label picture: thousands that nobody has fetched must not crowd out photos."""
    return photo[0], photo[1].endswith(".png")


def _rank(photo: Sequence[str]) -> tuple[float, Absent]:
    return hashing.unit_hash(*photo), tuple(photo)


def missing_in(folder: Path) -> list[Sequence[str]]:
    """The photos that were missing when a stage was made, as far as they were noted."""
    return (files.read_sealed(folder / "stage.json") or {}).get("missing", [])  # type: ignore[no-any-return]


def back(roots: Mapping[str, str], photos: Iterable[Sequence[str]]) -> str:
    """The first of the photos that is there now, as a path; '' where none is."""
    asked: Counter[tuple[str, bool]] = Counter()
    for source, *looked in photos:
        root = locations.place(roots[source]) if source in roots else None
        asked[kind := _kind((source, *looked))] += 1
        if root is None or (isinstance(root, locations.Remote) and asked[kind] > REMOTE_LIMIT):
            continue
        found = next((p for p in looked if there(root, p)), None)
        if found is not None:
            return str(root / found)
    return ""


def there(root: Path, relative: str) -> bool:
    """Whether a photo is known to be below a data root; a store that does not answer tells of none."""
    try:
        return locations.find(root, relative).is_file()
    except (ValueError, OSError, StorageError):
        return False


def refuse(
    name: str,
    roots: Mapping[str, str],
    missing: Iterable[Absent],
    found: Collection[str],
    by_source: bool,
    known: Path | None = None,
) -> None:
    """Refuse what read photos of which not one was there: a disk that is away, or another data root, will pass.

    Args:
        name: of the stage.
        missing: a note of the photos that were not there; ``found``: sources of which one was.
        by_source: a source alone, of several, is refused too.
        known: folder of the build's harvest: where photos of it are there, the few that are missing are really gone.

    Raises:
        Away: with one place where a photo was looked for.
    """
    lost = [p for p in missing if p[0] not in found]
    if not lost or (found and not by_source) or _others_are_there(roots, lost, known):
        return
    lost = [p for p in lost if not by_source or p[0] == lost[0][0]]
    (source, looked, *_), more = lost[0], "+" * (len(lost) >= LIMIT)
    moved = f"; if they were moved within it, remove {known}, and ahp build finds them anew" if known else ""
    raise Away(
        f"{name}: none of the {len(lost)}{more} photos that were looked for is there, such as "
        f"{roots.get(source, source)}/{looked}; what stood of {name} stays; look at the data roots (--source), mount "
        f"or fetch the photos, and run the same command again{moved}"
    )


def _others_are_there(roots: Mapping[str, str], lost: Collection[Absent], known: Path | None) -> bool:
    """Whether each folder (a source where it has no other photo) of lost photos has one that the harvest has had."""
    if known is None:
        return False
    folders = {_folder(p) for p in lost} | {(p[0], None) for p in lost}
    had = _had(known, folders, {(p[0], p[1]) for p in lost})

    def has(folder: _Folder) -> bool:
        root = locations.place(roots[folder[0]])
        return any(there(root, path) for _, path in had[folder] or had[folder[0], None])

    return all(folder[0] in roots and has(folder) for folder in sorted(folders, key=str))


def _folder(photo: Absent) -> _Folder:
    return photo[0], photo[1].rpartition("/")[0]


def _had(known: Path, folders: Collection[_Folder], but: Collection[Absent]) -> dict[_Folder, list[Absent]]:
    """A few photos of each folder that a harvest has had, by hash; none where it cannot be read."""
    had: dict[_Folder, list[Absent]] = {f: [] for f in folders}
    with suppress(UserError):
        for part in (p for table in (known, known / "occluders") for p in parquet.parts(table)):
            new: dict[_Folder, set[Absent]] = {f: set(photos) for f, photos in had.items()}
            for photo in set(_images(part)).difference(but):
                for folder in {_folder(photo), (photo[0], None)} & new.keys():
                    new[folder].add(photo)
            had = {f: heapq.nsmallest(PROBES, photos, key=_rank) for f, photos in new.items()}
    return had


def _images(part: Path) -> Iterator[Absent]:
    """(source, path) of the photo of every record of a table."""
    for batch in parquet.read_table(part, ["image.source", "image.path"]).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield row["image"]["source"], row["image"]["path"]
