"""Which files an export made: names on disk, one a line, so that neither a kill nor a million files lose count of them.

``files-SPLIT.txt`` are those of the split's last export, below the export's folder; ``.files-SPLIT.making`` those of
one under way or killed, each named before it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.storage import files

_BATCH = 100_000


class Ledger:
    """The files of one split's export: within ``with`` each is named (`note`), at the end what others made goes."""

    def __init__(self, out: Path, split: str) -> None:
        self._out = out
        self.path = out / f"files-{split}.txt"
        self._making = out / f".files-{split}.making"

    def __enter__(self) -> Ledger:
        self._out.mkdir(parents=True, exist_ok=True)
        self._f = self._making.open("a", encoding="utf-8")
        if self._f.tell():
            self._f.write("\n")  # the last name may have been cut short
            self._f.flush()
        self._start = self._f.tell()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._f.close()

    def note(self, path: Path) -> None:
        """Name a file that is about to be written."""
        self._f.write(f"{path.relative_to(self._out).as_posix()}\n")
        self._f.flush()

    def settle(self, stays: frozenset[str] = frozenset()) -> None:
        """Remove what former exports made and this one did not, but files whose stem ``stays``; keep the names."""
        self._f.flush()
        new = np.unique(_keys(self._lines(self._making, self._start)))
        kept = []
        former = chain(self._lines(self.path), self._lines(self._making, 0, self._start))
        while some := list(islice(former, _BATCH)):
            for name, old in zip(some, ~np.isin(_keys(some), new), strict=True):
                if old and PurePosixPath(name).stem in stays:
                    kept.append(name)
                elif old:
                    _remove(self._out, name)
        with files.atomic(self.path, "w") as f:
            f.writelines(f"{name}\n" for name in chain(self._lines(self._making, self._start), dict.fromkeys(kept)))
        self._making.unlink()

    def forget(self) -> None:
        """Remove all that former exports made."""
        for name in chain(self._lines(self.path), self._lines(self._making)):
            _remove(self._out, name)
        for path in (self.path, self._making):
            path.unlink(missing_ok=True)

    @staticmethod
    def _lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[str]:
        if not path.exists():
            return
        with path.open("rb") as f:
            f.seek(start)
            for line in f:
                if end is not None and f.tell() > end:
                    return
                yield line.decode("utf-8", "replace").rstrip("\n")


def _keys(names: Iterable[str]) -> NDArray[np.uint64]:
    """8 bytes of a hash for each name: a set of names would take 20 times the memory."""
    return np.fromiter((int.from_bytes(blake2b(n.encode(), digest_size=8).digest()) for n in names), np.uint64)


def _remove(out: Path, name: str) -> None:
    """Remove a file that was made, and the folders that this empties."""
    try:
        path = files.safe_join(out, name)
        path.unlink(missing_ok=True)
    except (ValueError, OSError):  # no name that we wrote, or a folder by now
        return
    for folder in path.parents:
        if folder == out or not _emptied(folder):
            break


def _emptied(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # something lies in it
        return False
    return True
