"""Where the photo of a record lies: looked for one by one, whatever folder or ending its record names.

A record's path is taken below the data root first. Endings are compared without case, and ``.jpeg`` is ``.jpg``. A path
that leads elsewhere (``/home/u/a.jpg``, ``../upload/a.jpg``, ``C:\\data\\a.jpg``, ``/data/local-files/?d=a.jpg``) is
never followed: its longest tail that lies below the root counts, where that is one file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from ahp_toolkit.core.errors import StorageError
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.storage import files, images, locations

#: Endings of pictures, lower case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
#: Folders with more files are asked for each name; a data root with more is not walked.
MOST_NAMES, MOST_WALKED = 1_000_000, 1_000_000
#: Other folders of a data root, the first by name, in which a missing photo is looked for.
_OTHERS = 8
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[/\\]")  # an address, a drive, an absolute path


class Found(NamedTuple):
    """Where a photo is below the root; else the places where it was looked for, and why it is none of them.

    ``tail``: the record's path leads elsewhere, and a tail of it was found.
    """

    places: tuple[str, ...]
    problem: BadValue | None = None
    there: bool = False
    tail: bool = False


class Finder:
    """Looks for the photos of one annotation file; each folder of the root is listed once.

    ``folders`` are those that the file's names may be relative to, with their slash, the likeliest first; all other
    folders of the root follow.
    """

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        self.root, self.own = root, tuple(dict.fromkeys(folders))
        top = sorted(f"{d.name}/" for d in root.iterdir() if d.is_dir() and d.name != "annotations")
        self.others = [f for f in top if f not in self.own]
        self._names: dict[str, dict[str, list[str]] | None] = {}
        self._tails: dict[str, list[str]] | None = None

    def find(self, name: str, size: tuple[int, int] | None = None) -> Found:
        """The photo of a record.

        Args:
            name: the path that the record gives.
            size: (width, height) px as annotated; tells photos of one name in two folders apart.
        """
        pure = name.replace("\\", "/")
        if f"/{pure}".rstrip(".").endswith("/"):
            return Found((name,), BadValue("unsafe_path", f"a file name is expected, got {name!r}"))
        if _ELSEWHERE.match(name) or ".." in PurePosixPath(pure).parts or "?d=" in pure:
            return self._by_tail(name, size)
        own = ("", *self.own) if "/" in pure else self.own
        for folder in dict.fromkeys(own):
            if hits := self._hits(folder + pure):
                return Found((hits[0],), there=True)
        hits = [hit for folder in self.others for hit in self._hits(folder + pure)[:1]]
        if not hits:  # deeper folders: only a picture of the annotated size
            deep = (p for p in self._walked(pure.rpartition("/")[2]) if f"/{p}".endswith(f"/{pure}"))
            hits = [p for p in deep if self._fits(p, size)]
        if hits:
            return self._one_of(name, hits, size)
        if "%" in pure and (plain := unquote(pure)) != pure:
            found = self.find(plain, size)
            if found.there:
                return found
        return Found(tuple(dict.fromkeys(folder + pure for folder in (*own, *self.others[:_OTHERS]))))

    def _by_tail(self, name: str, size: tuple[int, int] | None) -> Found:
        """The file below the root that the longest tail of a path names."""
        _, query, path = name.partition("?d=")
        parts = [p for p in unquote(path if query else name).replace("\\", "/").split("/") if p not in ("", ".", "..")]
        for n in range(len(parts), 0, -1):
            tail = "/".join(parts[-n:])
            hits = [hit for folder in ("", *self.own, *self.others) for hit in self._hits(folder + tail)[:1]]
            hits = list(dict.fromkeys(hits or [p for p in self._walked(parts[-1]) if f"/{p}".endswith(f"/{tail}")]))
            if hits:
                return self._one_of(name, hits, size)._replace(tail=True)
        why = f"not a path below the data root, nor is a file of this name there: {name!r}"
        return Found((name,), BadValue("unsafe_path", why))

    def _one_of(self, name: str, hits: Sequence[str], size: tuple[int, int] | None) -> Found:
        """The one of several files of a name that has the annotated size; copies of one file are one."""
        fitting = [hit for hit in hits if self._fits(hit, size)] if len(hits) > 1 else list(hits)
        if len(fitting) > 1 and len({self._bytes(hit) for hit in fitting}) == 1:
            fitting = fitting[:1]
        if len(fitting) == 1:
            return Found((fitting[0],), there=True)
        where = " and ".join(map(repr, hits[:3]))
        return Found(tuple(hits), BadValue("ambiguous_photo", f"{name!r} may be any of {len(hits)} files: {where}"))

    def _fits(self, relative: str, size: tuple[int, int] | None) -> bool:
        try:
            head = images.header(locations.find(self.root, relative))
            head.frame(size)
        except (ValueError, OSError, StorageError):
            return False
        return True

    def _bytes(self, relative: str) -> bytes:
        try:
            return images.read_bytes(locations.find(self.root, relative))
        except (ValueError, OSError, StorageError):
            return relative.encode()

    def _hits(self, relative: str) -> list[str]:
        """The files that a path means: itself, else those of its name with an ending of another case."""
        folder, _, name = relative.rpartition("/")
        names = self._listed(folder)
        if names is None:
            return [relative] if is_there(self.root, relative) else []
        found = names.get(_plain(name), [])
        here = f"{folder}/" if folder else ""
        return [relative] if name in found else [here + f for f in found if _stem(f) == _stem(name)]

    def _listed(self, folder: str) -> dict[str, list[str]] | None:
        """The names in a folder by `_plain` name; None where only each name can be asked for (archives)."""
        if folder not in self._names:
            self._names[folder] = None if folder and _is_packed(self.root, folder) else _names(self.root, folder)
        return self._names[folder]

    def _walked(self, name: str) -> list[str]:
        """Every file of a name below a local root; links to folders are not followed."""
        if self._tails is None:
            self._tails = {}
            for relative in _walk(self.root):
                self._tails.setdefault(_plain(relative.rpartition("/")[2]), []).append(relative)
        return self._tails.get(_plain(name), [])


def _walk(root: Path) -> Iterator[str]:
    count = 0
    if isinstance(root, locations.Foreign):
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        here = Path(folder).relative_to(root).as_posix()
        for name in sorted(names):
            count += 1
            if count > MOST_WALKED:
                return
            if name.lower().endswith(SUFFIXES):
                yield name if here == "." else f"{here}/{name}"


def _names(root: Path, folder: str) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {}
    try:
        path = root / files.below(folder) if folder else root
        listed = sorted(p.name for p in path.iterdir())
    except (ValueError, OSError):
        return found
    if len(listed) > MOST_NAMES:
        return None
    for name in listed:
        found.setdefault(_plain(name), []).append(name)
    return found


def _is_packed(root: Path, folder: str) -> bool:
    """Whether an archive stands for a folder that is not there."""
    try:
        return not (root / files.below(folder)).is_dir() and locations.has_folder(root, folder)
    except ValueError:
        return False


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _plain(name: str) -> str:
    """A name with its ending in one form: ``a.JPEG`` and ``a.jpg`` are one."""
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        return name
    suffix = suffix.lower()
    return f"{stem}.{'jpg' if suffix == 'jpeg' else suffix}"


def is_there(root: Path, relative: str) -> bool:
    """Whether a file is below the root: on a disk, in a store, or in an archive; links out of it do not count."""
    try:
        return locations.find(root, relative).is_file()
    except (ValueError, OSError):
        return False


def picture_of(root: Path, folder: str, stem: str) -> str:
    """The picture of a stem in a folder below the root: ``<stem>.jpg``, else one of another ending (`SUFFIXES`)."""
    usual = f"{folder}/{stem}.jpg"
    if is_there(root, usual):
        return usual
    name = by_stem(root, folder).get(stem)
    if name is None and _is_packed(root, folder):
        others = (f"{stem}{suffix}" for lower in SUFFIXES for suffix in (lower, lower.upper()))
        name = next((n for n in others if is_there(root, f"{folder}/{n}")), None)
    return usual if name is None else f"{folder}/{name}"


def of_any_case(root: Path, relative: str) -> str:
    """The file that a path means but for the case of its ending; empty where there is none (or in an archive)."""
    folder, _, name = relative.rpartition("/")
    found = by_stem(root, folder).get(name.rpartition(".")[0], "") if folder else ""
    return f"{folder}/{found}" if found and _plain(found) == _plain(name) else ""


def by_stem(root: Path, folder: str) -> Mapping[str, str]:
    """stem -> file name of the pictures in a folder below the root; of one stem, a JPEG counts before other kinds."""
    try:
        changed = (root / files.below(folder)).stat().st_mtime_ns
    except (ValueError, OSError):
        return {}
    return _by_stem(root, folder, changed)


@lru_cache(maxsize=16)
def _by_stem(root: Path, folder: str, _changed: int) -> Mapping[str, str]:
    rank = {suffix: n for n, suffix in enumerate(SUFFIXES)}
    found: dict[str, tuple[int, str]] = {}
    for name in (n for several in (_names(root, folder) or {}).values() for n in several):
        stem, dot, suffix = name.rpartition(".")
        place = rank.get(f".{suffix.lower()}")
        if dot and place is not None:
            found[stem] = min((place, name), found.get(stem, (place, name)))
    return {stem: name for stem, (_, name) in found.items()}
