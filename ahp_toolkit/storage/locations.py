"""Where data lies: local paths, addresses in object stores, and members of archives, all as ``pathlib.Path``.

`place` makes a path of what a user wrote. A `Remote` path knows how to look, list and read; it never writes. `find`
looks up a path that data gives, keeps it below its root and reads archives in place: ``train/patch3.zip`` (or ``.tar``,
``.tar.gz``, ...) takes the place of the folder ``train/patch3/``, where there is no such folder.
"""

from __future__ import annotations

import fnmatch
import io
import os
import stat as kinds
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import IO, Any, NamedTuple

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError
from ahp_toolkit.storage import archives, files, remote
from ahp_toolkit.storage.remote import Stored

#: The last objects read whole are kept: a photo's header and its pixels are one request.
_KEPT_OBJECTS, _KEPT_BYTES = 8, 32 * 2**20


class _Stat(NamedTuple):
    """The part of ``os.stat_result`` that is known of a foreign file."""

    st_mode: int
    st_size: int
    st_mtime_ns: int

    @property
    def st_mtime(self) -> float:
        """Seconds since the epoch."""
        return self.st_mtime_ns / 1e9


class Foreign(PosixPath):
    """A path that is read by other means than the system's: an address, or a member of an archive. Never written."""

    def __str__(self) -> str:
        parts = self.parts
        if parts and parts[0].removesuffix(":") in remote.PACKAGES and parts[0].endswith(":"):
            return f"{parts[0]}//{'/'.join(parts[1:])}"
        return super().__str__()

    def __fspath__(self) -> str:
        raise StorageError(f"{self}: expected a local path here; copy it to a local folder first")

    def read(self, limit: int) -> bytes:
        """The whole content, at most ``limit`` + 1 bytes of it."""
        raise FileNotFoundError(str(self))

    def mkdir(self, *args: Any, **kwargs: Any) -> None:
        """Refused: nothing is written by this way."""
        raise io.UnsupportedOperation(f"{self}: is read, never written")

    unlink = rename = replace = rmdir = touch = chmod = mkdir  # type: ignore[assignment]


class Remote(Foreign):
    """An address in an object store. ``open`` fetches the file once (by its tag) into the local cache."""

    known: Stored | None = None  # from a listing

    def _of(self, stored: Stored) -> Remote:
        path = Remote(stored.address)
        path.known = stored
        return path

    def look(self) -> Stored | None:
        """What lies here: from a listing, else from the store."""
        return self.known or remote.stat(str(self))

    def stat(self, *, follow_symlinks: bool = True) -> _Stat:  # type: ignore[override]
        """Kind, size, and time of change.

        Raises:
            FileNotFoundError: when there is nothing.
        """
        found = self.look()
        if found is None:
            raise FileNotFoundError(2, "no such object", str(self))
        return _Stat(kinds.S_IFDIR if found.folder else kinds.S_IFREG, found.size, int(found.modified * 1e9))

    def exists(self, **_: Any) -> bool:
        """Whether an object or a folder of objects lies here."""
        return self.look() is not None

    def is_file(self, **_: Any) -> bool:
        """Whether an object lies here."""
        found = self.look()
        return found is not None and not found.folder

    def is_dir(self, **_: Any) -> bool:
        """Whether objects lie below this address."""
        found = self.look()
        return found is not None and found.folder

    def iterdir(self) -> Iterator[Remote]:  # type: ignore[override]
        """What lies right below, by name."""
        return map(self._of, remote.listing(str(self)))

    def glob(self, pattern: str, **_: Any) -> Iterator[Remote]:  # type: ignore[override]
        """Paths below that fit, one folder listed a ``*``; ``**`` is not known here."""
        here, _slash, rest = pattern.partition("/")
        if not any(c in here for c in "*?["):
            below = self / here
            found = [below] if rest or below.exists() else []
        else:
            found = [p for p in self.iterdir() if fnmatch.fnmatchcase(p.name, here)]
        for path in found:
            if not rest:
                yield path
            elif path.known is None or path.known.folder:
                yield from path.glob(rest)

    def resolve(self, strict: bool = False) -> Remote:
        """The same: stores know no links."""
        return self

    absolute = resolve

    def local(self) -> Path:
        """The file in the local cache, fetched whole unless this very version lies there.

        Raises:
            FileNotFoundError: when there is no such object.
            StorageError: when it cannot be fetched, or changes meanwhile.
        """
        found = remote.stat(str(self))
        if found is None or found.folder:
            raise FileNotFoundError(2, "no such object", str(self))
        folder = files.cache_folder() / "files" / hashing.digest_value(str(self))[:24]
        path = folder / f"{hashing.digest_value([found.tag, found.size])[:16]}-{self.name}"
        if path.exists():
            return path
        with files.atomic(path) as f:
            for block in remote.blocks(str(self), found.size):
                f.write(block)
            after = remote.stat(str(self))
            if f.tell() != found.size or after is None or after.tag != found.tag:
                raise StorageError(f"{self}: changed while it was fetched; run the same command again")
        for old in folder.iterdir():
            if old != path and not old.name.startswith("."):
                old.unlink(missing_ok=True)
        return path

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """Open for reading, from the local cache."""
        if set(mode) - set("rbt"):
            raise io.UnsupportedOperation(f"{self}: is read, never written")
        return self.local().open(mode, *args, **kwargs)

    def read(self, limit: int) -> bytes:
        """The whole content in one request; the last few are kept.

        Raises:
            FileNotFoundError: when there is no such object.
        """
        return _RECENT.get(str(self), lambda: remote.read(str(self), 0, limit + 1))


class Member(Foreign):
    """A file inside an archive, under the path where it would lie if the archive were unpacked."""

    archive: archives.Archive
    entry: archives.Entry

    def stat(self, *, follow_symlinks: bool = True) -> _Stat:  # type: ignore[override]
        """Kind and size."""
        return _Stat(kinds.S_IFREG, self.entry.size, 0)

    def exists(self, **_: Any) -> bool:
        """It does."""
        return True

    is_file = exists

    def is_dir(self, **_: Any) -> bool:
        """It is a file."""
        return False

    def read(self, limit: int) -> bytes:
        """The whole content, read and unpacked in memory; nothing is written.

        Raises:
            OSError: when it is damaged, or unpacks to something else than the archive says.
        """
        if self.entry.size > limit:
            return bytes(limit + 1)
        return _RECENT.get(str(self), lambda: self.archive.read(self.entry))

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """Open for reading, from memory."""
        data = io.BytesIO(self.read(self.entry.size))
        return data if "b" in mode else io.TextIOWrapper(data, *args, **kwargs)


class _Recent:
    """The last whole objects that were read, few and small, for one process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        data = fetch()
        with self._lock:
            if len(data) <= _KEPT_BYTES // _KEPT_OBJECTS:
                self._kept[key] = data
            while len(self._kept) > _KEPT_OBJECTS:
                self._kept.popitem(last=False)
        return data


_RECENT = _Recent()


def place(text: str | os.PathLike[str]) -> Path:
    """The path of what a user wrote: an address in an object store, or a local path.

    Raises:
        UserError: for an address of an unknown kind.
    """
    if isinstance(text, Foreign):
        return text
    written = os.fspath(text)
    return Remote(written) if remote.scheme_of(written) else Path(written)


def find(root: Path, relative: str) -> Path:
    """A file below a data root by the path that the data gives: the file's own, or a `Member` of an archive.

    Raises:
        ValueError: when the path leaves the root (absolute, ``..``, links).
        StorageError: when an archive in its place cannot be entered.
    """
    path = _join(root, relative)
    folder, _, _ = relative.replace("\\", "/").rpartition("/")
    mounted = _mounted(root, folder) if folder else None
    if mounted is None:
        return path
    archive, at = mounted
    for name in archive.names_of(path.relative_to(root / at).as_posix()):
        entry = archive.entry(name)
        if entry is not None:
            member = Member(path)
            member.archive, member.entry = archive, entry
            return member
    return path


def _join(root: Path, relative: str) -> Path:
    # stores know no links: there the names alone decide
    return root / files.below(relative) if isinstance(root, Foreign) else files.safe_join(root, relative)


def first(root: Path, places: Sequence[str]) -> Path:
    """The first of these files below a data root that is there, else the first name.

    Raises:
        ValueError: when a name leads out of ``root``.
    """
    paths = (find(root, p) for p in places)
    return next((p for p in paths if is_picture(p)), find(root, places[0]))


def is_picture(path: Path) -> bool:
    """Whether a picture is there. In a store it is read at once, and kept: whoever asks will read it."""
    if not isinstance(path, Remote):
        return path.is_file()
    try:
        return bool(path.read(_KEPT_BYTES // _KEPT_OBJECTS)) or path.is_file()
    except FileNotFoundError:
        return False


def has_folder(root: Path, relative: str) -> bool:
    """Whether a data root has a folder, or an archive in its place."""
    return (root / relative).is_dir() or _mounted(root, relative) is not None


@lru_cache(maxsize=4096)
def _mounted(root: Path, folder: str) -> tuple[archives.Archive, str] | None:
    """The archive in the place of a folder below ``root`` or for one above it, and which; None for plain files."""
    parts = [p for p in folder.split("/") if p not in ("", ".")]
    for n in range(1, len(parts) + 1):
        at = "/".join(parts[:n])
        if (root / at).is_dir():
            continue
        for suffix in archives.SUFFIXES:
            path = _join(root, at + suffix)
            if path.is_file():
                return archives.Archive.at(path), at
        return None
    return None
