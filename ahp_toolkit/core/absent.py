"""Photos that were missing when a stage was made: noted with it, looked for again, and no reason to lose a better one.

A photo is (source, places below the source's data root where it was looked for). A stage notes at most `LIMIT` of them,
the first by hash: the same ones whoever asks, and all of them where few are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import places, store
from .errors import UserError

Absent = tuple[str, ...]
#: Photos that are noted; each is looked for (a stat) whenever its stage is asked for.
LIMIT = 1000
#: Of those, how many are asked of an object store, a request each.
REMOTE_LIMIT = 20


def noted(*photos: Iterable[Sequence[str]]) -> list[Absent]:
    """The photos to note, in their order."""
    return sorted({tuple(p) for some in photos for p in some}, key=_rank)[:LIMIT]


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
        found = next((p for p in looked if _there(root, p)), None)
        if found is not None:
            return str(root / found)
    return ""


def _there(root: Path, relative: str) -> bool:
    try:
        return places.find(root, relative).is_file()
    except (ValueError, OSError):
        return False


def refuse(
    folder: Path, roots: Mapping[str, str], now: Sequence[Absent], before: Iterable[Sequence[str]] | None
) -> None:
    """Refuse to replace what stands in ``folder`` by what misses photos that it has: a disk that is away passes.

    Args:
        now, before: notes of both; ``before`` None: nothing stands there.

    Raises:
        UserError: with one such photo.
    """
    lost = newly(now, before) if before is not None else []
    if lost:
        (source, looked, *_), more = lost[0], "+" * (len(now) >= LIMIT)
        raise UserError(
            f"{folder}: left as it is, as {len(lost)}{more} photos are missing that were there when it was made "
            f"({roots.get(source, source)}/{looked}); put them back and run the same command again, or remove this "
            "folder to make it without them"
        )


def newly(now: Sequence[Absent], before: Iterable[Sequence[str]]) -> list[Absent]:
    """The photos noted now that were there before, as far as two notes can tell."""
    old = [tuple(p) for p in before]
    known, full = set(old), len(old) >= LIMIT
    # beyond the last of a full note nothing is known
    return [p for p in now if p not in known and not (full and _rank(p) > _rank(old[-1]))]
