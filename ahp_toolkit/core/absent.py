"""Photos that were missing when a stage was made: noted with it, and looked for again.

A photo is (source, places below the source's data root where it was looked for). A stage notes at most `LIMIT` of a
source, the first by hash: the same ones whoever asks, and all of them where few are missing. Where not one photo was
there, nothing is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from . import places, store
from .errors import StorageError, UserError

Absent = tuple[str, ...]
#: Photos of a source that are noted; each is looked for (a stat) whenever its stage is asked for.
LIMIT = 1000
#: Of those, how many are asked of an object store, a request each.
REMOTE_LIMIT = 20


def noted(*photos: Iterable[Sequence[str]]) -> list[Absent]:
    """The photos to note, in their order."""
    taken: Counter[str] = Counter()
    kept = []
    for photo in sorted({tuple(p) for some in photos for p in some}, key=_rank):
        taken[photo[0]] += 1
        if taken[photo[0]] <= LIMIT:
            kept.append(photo)
    return kept


def _rank(photo: Sequence[str]) -> tuple[float, Absent]:
    return store.unit_hash(*photo), tuple(photo)


def back(roots: Mapping[str, str], photos: Iterable[Sequence[str]]) -> str:
    """The first of the photos that is there now, as a path; '' where none is."""
    asked = 0
    for source, *looked in photos:
        root = places.place(roots[source]) if source in roots else None
        asked += isinstance(root, places.Remote)
        if root is None or (isinstance(root, places.Remote) and asked > REMOTE_LIMIT):
            continue
        found = next((p for p in looked if there(root, p)), None)
        if found is not None:
            return str(root / found)
    return ""


def there(root: Path, relative: str) -> bool:
    """Whether a photo is known to be below a data root; a store that does not answer tells of none."""
    try:
        return places.find(root, relative).is_file()
    except (ValueError, OSError, StorageError):
        return False


def refuse(
    name: str, roots: Mapping[str, str], missing: Iterable[Absent], found: Collection[str], by_source: bool
) -> None:
    """Refuse what read photos of which not one was there: a disk that is away, or another data root, will pass.

    Args:
        name: of the stage.
        missing: a note of the photos that were not there; ``found``: sources of which one was.
        by_source: a source alone, of several, is refused too.

    Raises:
        UserError: with one place where a photo was looked for.
    """
    lost = [p for p in missing if p[0] not in found]
    if not lost or (found and not by_source):
        return
    lost = [p for p in lost if not by_source or p[0] == lost[0][0]]
    (source, looked, *_), more = lost[0], "+" * (len(lost) >= LIMIT)
    raise UserError(
        f"{name}: none of the {len(lost)}{more} photos that were looked for is there, such as "
        f"{roots.get(source, source)}/{looked}; nothing was replaced; look at the data roots (--source), mount or "
        "fetch the photos, and run the same command again"
    )
