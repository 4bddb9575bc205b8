"""Folders at addresses: work is done in a local folder, which is uploaded when something is finished.

A unit is a folder with a completion mark (``stage.json``, ``run.json``, ``score.json``, ``export.json``). Before files
of a unit are replaced at the address its mark is removed, and the new mark is the last file to be uploaded: a reader
finds a whole unit or an unfinished one, never a mixture. Logs of decisions (``*.jsonl``) are
united by the id of their lines on both sides: no line is ever removed.

One writer an address: two commands that write at the same address at the same time are not kept apart.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.storage import files, locations, remote
from ahp_toolkit.storage.lock import lock
from ahp_toolkit.storage.remote import Stored

MARKS = ("stage.json", "run.json", "score.json", "export.json")
THREADS = 8


class Known(NamedTuple):
    """A file that was the same on both sides: local size (bytes) and time of change (ns), the store's tag."""

    size: int
    changed: int
    tag: str


class _Pair:
    """A working folder and its address, with what was the same on both sides when they last met."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address, self.path = folder, address.rstrip("/"), beside(folder) / "record.json"
        record = files.read_json(self.path) if self.path.exists() else {}
        if record.get("address", self.address) != self.address:
            raise UserError(f"{folder}: is the working folder of {record['address']}; give another one for {address}")
        self.known = {name: Known(*values) for name, values in record.get("files", {}).items()}
        self.met = bool(record)

    def save(self) -> None:
        record = {"address": self.address, "files": {name: list(k) for name, k in sorted(self.known.items())}}
        files.write_json(self.path, record)

    def local(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every finished local file, by its name below the folder."""
        found = {}
        for base, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".") or name.endswith(".written")]
            for path in (Path(base, name) for name in names if _is_synced(name)):
                with suppress(FileNotFoundError):
                    if not path.is_symlink():
                        found[path.relative_to(self.folder).as_posix()] = _state(path)
        return found

    def stored(self) -> dict[str, Stored]:
        """What lies at the address, by its name below it."""
        start = len(self.address) + 1
        found = {s.address[start:]: s for s in remote.listing(self.address, deep=True) if not s.folder}
        return {name: s for name, s in found.items() if _is_synced(name.rpartition("/")[2])}

    def is_same(self, name: str, stored: Stored | None) -> bool:
        """Whether the store's file is the one that was last known."""
        return stored is not None and name in self.known and self.known[name].tag == stored.tag

    def is_unchanged(self, name: str, state: tuple[int, int] | None) -> bool:
        """Whether the local file is the one that was last known."""
        return state is not None and name in self.known and self.known[name][:2] == state

    def fetch(self, name: str, stored: Stored) -> None:
        path = self.folder / name
        if _is_log(name):
            _join_logs(path, b"".join(remote.blocks(stored.address, stored.size)))
            if path.stat().st_size != stored.size:  # lines that the address does not have yet
                self.known[name] = Known(-1, -1, stored.tag)
                return
        elif not (path.is_file() and stored.md5 and remote.md5_of(path) == stored.md5):
            with files.atomic(path) as f:
                for block in remote.blocks(stored.address, stored.size):
                    f.write(block)
        self.known[name] = Known(*_state(path), stored.tag)

    def send(self, name: str, stored: Stored | None) -> None:
        path, address = self.folder / name, f"{self.address}/{name}"
        if _is_log(name) and stored is not None and not self.is_same(name, stored):
            _join_logs(path, b"".join(remote.blocks(stored.address, stored.size)))
        state = _state(path)
        if stored is None or not stored.md5 or remote.md5_of(path) != stored.md5:
            remote.upload(address, path)
            stored = remote.stat(address)
        self.known[name] = Known(*state, stored.tag if stored else "")


def upload(folder: Path, address: Path) -> None:
    """Upload what is finished in a working folder; nothing where ``address`` is a local path.

    Raises:
        StorageError: when the store does not answer; the same call goes on where it ended.
    """
    if not isinstance(address, locations.Remote):
        return
    pair = _Pair(folder, str(address))
    here, there = pair.local(), pair.stored()
    new = [n for n, state in here.items() if not (pair.is_unchanged(n, state) and pair.is_same(n, there.get(n)))]
    old = [n for n in there if n in pair.known and n not in here and not _is_log(n)]
    if not new and not old:
        return
    try:
        marks = {_unit(n, here.keys() | there.keys()) for n in (*new, *old) if not _is_log(n)} & there.keys()
        for mark in marks:
            pair.known.pop(mark, None)
        pair.save()  # killed from here on, the local unit is the newer one
        remote.delete([f"{pair.address}/{mark}" for mark in sorted(marks)])
        there = {name: s for name, s in there.items() if name not in marks}
        new += [mark for mark in marks if mark in here and mark not in new]
        _each(lambda n: pair.send(n, there.get(n)), [n for n in new if not _is_mark(n)])
        remote.delete([f"{pair.address}/{name}" for name in old if name in there])
        _each(lambda n: pair.send(n, there.get(n)), [n for n in new if _is_mark(n)])
        pair.known = {name: k for name, k in pair.known.items() if name not in old}
    finally:
        pair.save()


def download(address: Path, folder: Path, writes: bool = False) -> None:
    """Make a working folder at least as new as its address. What only the folder has finished stays.

    Args:
        writes: whether the address is written later: then it must be empty, or hold what this toolkit wrote.

    Raises:
        UserError: when the folder holds files that were never at the address, the address holds other files than a
            build's, or it changes all the time.
        StorageError: when the store does not answer.
    """
    pair = _Pair(folder, str(address))
    for _ in range(3):
        here, there = pair.local(), pair.stored()
        if writes and there and not any(_is_mark(name) or name == "build.json" for name in there):
            raise UserError(
                f"{address}: expected an empty address or a build, found {len(there)} other objects such as "
                f"{min(there)}; give another one"
            )
        if here and not pair.met and folder != folder_of(address):
            raise UserError(f"{folder}: expected an empty folder to work in for {address}, it holds other files")
        try:
            _take_over(pair, here, there)
        finally:
            pair.save()
        pair.met = True
        if pair.stored() == there:
            return
    raise UserError(f"{address}: changes while it is read; wait for its writer")


def _take_over(pair: _Pair, here: Mapping[str, tuple[int, int]], there: Mapping[str, Stored]) -> None:
    """Fetch what is newer at the address; remove what is no longer there and was not changed here."""
    every = here.keys() | there.keys()
    unit_of = {name: _unit(name, every) for name in every}
    newer = {mark for mark in set(unit_of.values()) if mark and _is_newer_here(pair, mark, here, there)}
    wanted, removed = [], []
    for name, mark in unit_of.items():
        if _is_log(name):
            wanted += [name] if (name in there and not pair.is_same(name, there[name])) or name not in here else []
        elif mark in newer:
            continue
        elif name not in there:
            # a local file of a unit that is another one in the store, or one that another machine removed
            replaced = mark in there and not pair.is_same(mark, there[mark])
            removed += [name] if replaced or pair.is_unchanged(name, here.get(name)) else []
        elif name not in here or not pair.is_same(name, there[name]):
            wanted.append(name)
    marks = [name for name in wanted if _is_mark(name)]
    for mark in marks:
        (pair.folder / mark).unlink(missing_ok=True)
    _each(lambda n: pair.fetch(n, there[n]), [n for n in wanted if n in there and not _is_mark(n)])
    for name in removed:
        (pair.folder / name).unlink(missing_ok=True)
        pair.known.pop(name, None)
    _each(lambda n: pair.fetch(n, there[n]), [n for n in marks if n in there])


def _is_newer_here(pair: _Pair, mark: str, here: Mapping[str, tuple[int, int]], there: Mapping[str, Stored]) -> bool:
    """Whether a unit was finished here and not uploaded yet, and nobody else has replaced it at the address."""
    if mark not in here or pair.is_unchanged(mark, here[mark]):
        return False
    return mark not in there or pair.is_same(mark, there[mark])


def _unit(name: str, every: Collection[str]) -> str:
    """The mark of the outermost unit that a file belongs to; '' for a file of its own."""
    folders = name.split("/")[:-1]
    for n in range(len(folders) + 1):
        found = next((mark for m in MARKS if (mark := "/".join([*folders[:n], m])) in every), "")
        if found:
            return found
    return ""


def _is_mark(name: str) -> bool:
    return name.rpartition("/")[2] in MARKS


def _is_log(name: str) -> bool:
    return name.endswith(".jsonl")


def _is_synced(name: str) -> bool:
    """Whether a file is for others too: no lock, no unfinished file, no list of candidates leased to reviewers."""
    return not name.startswith(".") and name != "leases.jsonl"


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _join_logs(path: Path, there: bytes) -> None:
    """Append the lines of a log at an address whose id is not in the local log; reviewers may be writing on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # as whoever appends a decision does
        f.seek(0)
        here = f.read()
        f.truncate(here.rfind(b"\n") + 1)  # a line that a crash cut short was never acknowledged
        known = set(map(_line_id, here.splitlines()))
        new = [line for line in there.splitlines() if line and _line_id(line) not in known]
        f.write(b"".join(line + b"\n" for line in new))
        f.flush()
        os.fsync(f.fileno())


def _line_id(line: bytes) -> object:
    with suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict) and isinstance(value.get("id"), str):
            return value["id"]
    return line


def _each(fn: Callable[[str], None], names: Iterable[str]) -> None:
    """A function over names by a few threads; the first error is raised when all of them are done."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fn, sorted(names)))


def folder_of(address: Path) -> Path:
    """The working folder of an address in the cache."""
    return files.cache_folder() / "work" / f"{address.name}-{hashing.digest_value(str(address))[:16]}"


def beside(folder: Path) -> Path:
    """The folder beside a working folder with its lock and what is known of each file at the address."""
    whole = folder.absolute()
    return whole.with_name(f".{whole.name}.sync")


@contextmanager
def working(out: Path, work: Path | None = None, build: bool = False) -> Iterator[Path]:
    """The folder to write for an output root: a local one itself; for an address its working folder, then uploaded.

    Args:
        out: a local path or an address.
        work: the working folder of an address; default: one in the cache.
        build: whether a build must lie at the address already.

    Raises:
        UserError: when another process works in the folder, it belongs to something else, or there is no build.
        StorageError: when the store does not answer; what is in the working folder stays.
    """
    if not isinstance(out, locations.Remote):
        if work is not None:
            raise UserError(f"--work {work}: is for an --out in an object store, {out} is a local folder")
        yield out
        return
    if build:
        _check_build(out, remote.stat(f"{out}/build.json") is not None)
    folder = work or folder_of(out)
    with naming(out), lock(beside(folder)):
        download(out, folder, writes=True)
        yield folder
        upload(folder, out)


def reading(root: Path) -> Path:
    """The local folder to read for a root: a local one itself; for an address its working folder, downloaded.

    Raises:
        UserError: when there is nothing, or it changes all the time.
        StorageError: when the store does not answer.
    """
    if not isinstance(root, locations.Remote):
        return root
    folder = folder_of(root)
    check_there(root)
    with naming(root), lock(beside(folder)):
        download(root, folder)
    return folder


@contextmanager
def reading_and_working(root: Path, out: Path | None) -> Iterator[tuple[Path, Path]]:
    """The local folders of a build to read and of ``out`` to write; without ``out``, the build's own for both.

    Raises:
        UserError: when ``root`` is no build; then nothing is written at another address.
    """
    if out is None:
        with working(root, build=True) as folder:
            yield folder, folder
        return
    if isinstance(root, locations.Remote):
        _check_build(root, remote.stat(f"{root}/build.json") is not None)
    read = reading(root)
    _check_build(root, (read / "build.json").exists())
    with naming(root), working(out) as folder:
        yield read, folder


def _check_build(root: Path, there: bool) -> None:
    if not there:
        raise UserError(
            f"{root}: expected a build folder (build.json), found none; make one with ahp build --out {root}"
        )


def check_there(*roots: Path | None) -> None:
    """Raises `UserError` for an address at which nothing lies, before a command writes at another."""
    for root in roots:
        if isinstance(root, locations.Remote) and not root.exists():
            raise UserError(f"{root}: expected something to read there, found nothing; look at the address")


@contextmanager
def naming(*roots: Path | None) -> Iterator[None]:
    """Errors inside name an address as the user did, not its working folder in the cache.

    Logs of decisions keep their local path: a log may hold lines that are nowhere else.
    """
    try:
        yield
    except (UserError, StorageError) as e:
        for root in roots:
            if isinstance(root, locations.Remote):
                folder = re.escape(str(folder_of(root)))
                e.args = (str(root).join(re.split(rf"{folder}(?!\S*\.jsonl)", str(e))),)
        raise


def local_to(out: Path, folder: Path) -> Callable[[Path], Path]:
    """Where a path lies locally while ``folder`` is the working folder of ``out``: inside it, or downloaded."""

    def here(path: Path) -> Path:
        inside = isinstance(path, locations.Remote) and path.is_relative_to(out)
        return folder / path.relative_to(out) if inside else reading(path)

    return here


def shown(out: Path, folder: Path, path: Path) -> Path:
    """Where a user finds a file of the working ``folder`` of ``out``: in a store, its address."""
    return out / path.relative_to(folder) if isinstance(out, locations.Remote) else path
