"""A working folder and the address it is published to: each finished file is one whole object.

A build writes its working folder as ever, by atomic renames. Beside it this module puts every finished file as one
whole object: pictures and tables first, then the marks that say they stand (``shard-*.json``, then other JSON, then
``stage.json``), then stale objects go. A stage that is replaced loses its ``stage.json`` first, so what lies in the
store is at each moment an unfinished stage or a whole one, never a mixture. What was sent is kept in
``.published.json`` and compared by MD5: nothing goes up twice, and what was renamed is copied inside the store.

A folder that was not the last to write (`lease`) is first made the same as the store. One that was is made whole again:
what a cache cleaner took is fetched, and only what ahp itself removed goes from the store too. A log of what people
said only ever grows, here and in the store: it is written over one that it begins with, and over no other.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.storage import files, lease, remote
from ahp_toolkit.storage.remote import Stored

T = TypeVar("T")
R = TypeVar("R")
RECORD, HOLD = ".published.json", ".publishing"
EVERY_S = 2.0
THREADS = 8
_LAST = ("stage.json", "run.json", "score.json", "export.json")
_PARTIAL = re.compile(r"\.[^/]+-[0-9a-f]{16}")  # a stage's unfinished work (`pipeline.Job.partial`)


class Sent(NamedTuple):
    """A file as it stands in the store: size, and time of change (ns) of the local file it was, and its MD5 (hex)."""

    size: int
    changed: int
    md5: str

    @property
    def mark(self) -> tuple[int, int]:
        """What tells cheaply that the local file is still the same."""
        return self.size, self.changed


class Mirror:
    """A working folder and the address that it is published to; ``own``: in our cache, whatever a cleaner took."""

    def __init__(self, root: str, folder: Path, own: bool = False) -> None:
        self.root, self.folder = root, folder
        said = files.read_json(folder / RECORD) if (folder / RECORD).exists() else {}
        if said.get("address", root) != root:
            raise UserError(f"{folder}: is the working folder of {said['address']}; give another one for {root}")
        self.known = own or bool(said)
        self.id = str(said.get("work") or uuid.uuid4().hex)
        self.whole = bool(said.get("whole"))
        self.ended = bool(said.get("ended"))  # the last command published all, removals included
        self.guard: Callable[[], None] = lambda: None  # raises when the address is no longer ours to write
        self.sent = {k: Sent(*v) for k, v in dict(said.get("files", {})).items()}

    def _save(self) -> None:
        about = {"address": self.root, "work": self.id, "whole": self.whole, "ended": self.ended}
        files.write_json(self.folder / RECORD, about | {"files": {k: list(v) for k, v in sorted(self.sent.items())}})

    def stands(self, held: lease.Held) -> bool:
        """Whether this folder was the last to write, so that nothing there is newer."""
        return self.whole and held.work == self.id

    # -- from the store ------------------------------------------------------------------------------------------------
    def bring_back(self, before: lease.Held | None) -> None:
        """Make the folder at least as new as the store; ``before`` is the lease before ours.

        Raises:
            UserError: when files of this folder that are not ours would be lost, when a log here and the stored one
                each have words that the other lacks, or when nobody has written at the address yet and it holds other
                things than a build that was copied there.
        """
        listed = self._listed()
        if listed and before is None and not any(k == "build.json" or k.rpartition("/")[2] in _LAST for k in listed):
            raise UserError(
                f"{self.root}: expected an empty address or a build, found {len(listed)} other objects such as "
                f"{min(listed)}; give another one"
            )
        last = not listed or (before is not None and self.stands(before))
        if not last:
            self._check_own()
            self.whole = False
            self._save()
        self._forget(listed)
        self._fetch({k: s for k, s in listed.items() if _words(k)})  # what may be refused comes first
        if last:
            self._adopt(listed)
            self._fetch({k: s for k, s in listed.items() if not (self.folder / k).exists() and self._lost(k)})
        else:
            self._fetch(listed)
            self._drop(k for k in self._walk() if k not in listed and not _words(k))
        self.whole, self.ended = True, False
        self._save()

    def lacking(self) -> list[str]:
        """What was published, and is neither here nor was removed by a command."""
        return [k for k in self.sent if not (self.folder / k).exists() and (_words(k) or self._lost(k))]

    def mend(self) -> None:
        """Fetch what is `lacking`: a cleaner took it from the cache."""
        listed = self._listed()
        self._forget(listed)
        self._fetch({k: listed[k] for k in self.lacking()})
        self._save()

    def _lost(self, name: str) -> bool:
        """Whether a published file that is missing here was taken by somebody else, not removed by a killed command."""
        if self.ended:
            return True
        folders = name.split("/")[:-1]
        if any(map(_PARTIAL.fullmatch, folders)):
            return False
        for n in range(len(folders), 0, -1):
            mark = "/".join([*folders[:n], _LAST[0]])
            if mark in self.sent:  # a stage that was replaced has another mark, or none
                path = self.folder / mark
                return path.exists() and _mark(path) == self.sent[mark].mark
        return True

    def fetch_finished(self) -> None:
        """Fetch what is finished (no work in progress), as it stands at one moment.

        Raises:
            UserError: when there is nothing, or a writer changes it all the time.
        """
        for _ in range(3):
            listed = {k: s for k, s in self._listed().items() if not k.startswith(".") and "/." not in k}
            if not listed:
                raise UserError(f"{self.root}: expected a build there, found nothing; make one with ahp build --out")
            self._check_own()
            self.whole = False
            self._forget(listed)
            self._fetch(listed)
            again = self._listed()
            if all(again.get(k) == s for k, s in listed.items()):
                self._drop(k for k in self._walk() if k not in listed and not _words(k))
                self._save()
                return
        raise UserError(f"{self.root}: changes while it is read; wait for its writer")

    def _listed(self) -> dict[str, Stored]:
        start = len(self.root.rstrip("/")) + 1
        found = {s.address[start:]: s for s in remote.listing(self.root, deep=True) if not s.folder}
        return {k: s for k, s in found.items() if lease.FOLDER not in k.split("/") and _fits(k)}

    def _check_own(self) -> None:
        """That nothing of somebody's is lost when the folder becomes what is in the store."""
        if not self.known and self._walk():
            raise UserError(f"{self.folder}: expected an empty folder to work in for {self.root}, it holds other files")

    def _fetch(self, listed: dict[str, Stored]) -> None:
        def fetch(item: tuple[str, Stored]) -> None:
            name, stored = item
            if _words(name):
                return self._join(name, stored)
            path = self.folder / name
            had = self.sent.get(name)
            same = path.is_file() and path.stat().st_size == stored.size
            if not (same and stored.md5 and stored.md5 == remote.md5_of(path)):
                with files.atomic(path) as f:
                    for block in remote.blocks(stored.address, stored.size):
                        f.write(block)
                when = int(stored.modified * 1e9)
                os.utime(path, ns=(when, when))
                had = None
            mark = _mark(path)
            self.sent[name] = had if had and had.mark == mark else Sent(*mark, stored.md5 or remote.md5_of(path))

        _parallel(fetch, listed.items())

    def _join(self, name: str, stored: Stored) -> None:
        """Append to a log here what it lacks of the stored one: somebody may have put words there beside us.

        Raises:
            UserError: when each has words that the other lacks.
        """
        path = self.folder / name
        mark = _mark(path) if path.is_file() else (-1, -1)
        if not (path.is_file() and stored.md5 and stored.md5 == remote.md5_of(path)):
            mark = -1, -1
            _grow(path, b"".join(remote.blocks(stored.address, stored.size)), stored.address)
        self.sent[name] = Sent(*mark, stored.md5)

    def _forget(self, listed: dict[str, Stored]) -> None:
        """What is not there has not been sent."""
        for name in set(self.sent) - set(listed):
            del self.sent[name]

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            path = self.folder / name
            path.unlink(missing_ok=True)
            with suppress(OSError):  # up to the first folder that holds something
                for folder in path.relative_to(self.folder).parents:
                    if folder.parts:
                        (self.folder / folder).rmdir()

    def _adopt(self, listed: dict[str, Stored]) -> None:
        """Take for sent what a killed process has sent and not written down."""
        for name, mark in self._walk().items():
            stored = listed.get(name)
            if stored and name not in self.sent and stored.md5 and stored.size == mark[0]:
                if stored.md5 == remote.md5_of(self.folder / name):
                    self.sent[name] = Sent(*mark, stored.md5)
                else:
                    self.sent[name] = Sent(-1, -1, stored.md5)
            elif stored and name in self.sent and stored.md5 and self.sent[name].md5 != stored.md5:
                self.sent[name] = Sent(-1, -1, stored.md5)

    # -- to the store --------------------------------------------------------------------------------------------------
    def step(self) -> float:
        """Publish what is finished; gives the seconds to wait until the next time."""
        start = time.monotonic()
        self.sync()
        return max(EVERY_S, 5 * (time.monotonic() - start))

    def finish(self) -> None:
        """Publish everything; called when nobody writes any more.

        Raises:
            StorageError: when files still change.
        """
        for _ in range(5):
            if self.sync():
                self.ended = True
                self._save()
                return
        raise StorageError(f"{self.folder}: still changes, though its work is done; run the same command again")

    def sync(self) -> bool:
        """One round; False where something changed meanwhile and another round is needed."""
        first = self._walk()
        now = self._walk()  # what a mark of the first look speaks of is there at the second
        new = {k: m for k, m in now.items() if k not in self.sent or self.sent[k].mark != m}
        gone = [k for k in self.sent if k not in now and k not in first and not _words(k)]
        if not new and not gone:
            return first == now
        before = dict(self.sent)
        try:
            self.guard()
            self._uncommit(new, gone)
            stable = {s.md5: k for k, s in self.sent.items() if s.size > 0 and k not in new}
            whole = self._send_all([k for k in new if not k.endswith(".json")], now, stable)
            marks = [k for k in new if k.endswith(".json") and first.get(k) == now[k]] if whole else []
            self.guard()  # pictures may have taken long
            for rank in (0, 1, 2):
                whole = whole and self._send_all([k for k in marks if _rank(k) == rank], now, stable)
            if whole and gone:
                self.guard()
                _parallel(lambda k: remote.delete([f"{self.root}/{k}"]), gone)
                for k in gone:
                    self.sent.pop(k, None)
        finally:
            if self.sent != before:
                self._save()
        return whole and first == now and now.keys() <= self.sent.keys()  # a mark may have been taken away

    def _uncommit(self, new: Iterable[str], gone: Iterable[str]) -> None:
        """Take the ``stage.json`` of a stage away before anything of it is replaced."""
        stages = {k.rpartition("/")[0]: k for k in self.sent if k.endswith("/stage.json")}
        old = (k for k in new if k in self.sent and not _words(k))
        replaced = [k for k in old if self.sent[k].md5 != _md5(self.folder / k)]
        for name in [*replaced, *gone]:
            folder = name.rpartition("/")[0]
            while folder and folder not in stages:
                folder = folder.rpartition("/")[0]
            mark = stages.pop(folder, None)
            if mark is not None:
                remote.delete([f"{self.root}/{mark}"])
                self.sent.pop(mark, None)

    def _send_all(self, names: list[str], now: dict[str, tuple[int, int]], stable: dict[str, str]) -> bool:
        """Send files; False where one is gone or has changed since the look. ``stable``: objects by MD5, to copy."""
        return all(_parallel(lambda k: self._send(k, now[k], stable), sorted(names)))

    def _send(self, name: str, mark: tuple[int, int], stable: dict[str, str]) -> bool:
        path, to = self.folder / name, f"{self.root}/{name}"
        try:
            if _words(name) and (stored := remote.stat(to)) is not None:
                self._join(name, stored)
            md5 = remote.md5_of(path)
            sent = self.sent.get(name)
            same = sent is not None and sent.md5 == md5
            if not same and not (md5 in stable and self._copied(stable[md5], to)):
                md5 = remote.upload(to, path)
            self.sent[name] = Sent(*mark, md5)
            return _mark(path) == mark
        except FileNotFoundError:
            return False

    def _copied(self, source: str, to: str) -> bool:
        """Whether the store had the same content under another name, and copied it."""
        try:
            remote.copy(f"{self.root}/{source}", to)
        except FileNotFoundError:
            return False
        return True

    def _walk(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every finished file below the folder, by relative name."""
        found: dict[str, tuple[int, int]] = {}
        todo = [""]
        while todo:
            base = todo.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder / base) as entries:
                for e in entries:
                    name = f"{base}/{e.name}" if base else e.name
                    if not _fits(name) or e.is_symlink():
                        continue
                    if e.is_dir():
                        todo.append(name)
                        continue
                    with suppress(FileNotFoundError):
                        said = e.stat()
                        found[name] = said.st_size, said.st_mtime_ns
        return found


def _fits(name: str) -> bool:
    """Whether a file or folder is published: no locks, nothing half written or on its way out, nothing of one machine.

    Of one machine alone are who is asked what at the moment, and how much of a log its disk has acknowledged.
    """
    last = name.rpartition("/")[2]
    half = last.startswith(".") and (last.endswith((".tmp", "-replaced", ".jsonl.end")) or last == ".lock")
    return not (half or last == "leases.jsonl" or name in (RECORD, HOLD) or name.startswith(f"{HOLD}/"))


def _words(name: str) -> bool:
    """Whether a file is a log of what people said, which nobody can make again: it is never removed."""
    return name.endswith(".jsonl")


def _grow(path: Path, there: bytes, address: str) -> None:
    """Append to a log what follows in the same log at an address; in place, since reviewers may be writing on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # as they do
        f.seek(0)
        here = f.read()
        if there.startswith(here):
            f.write(there[len(here) :])
            f.flush()
            os.fsync(f.fileno())
        elif not here.startswith(there):
            raise UserError(
                f"{path}: has words that {address} lacks, and lacks words that it has; move it and .{path.name}.end "
                f"away, run the same command again, then append the lines that only yours has"
            )


def _rank(name: str) -> int:
    last = name.rpartition("/")[2]
    return 0 if last.startswith("shard-") else 2 if last in _LAST else 1


def _mark(path: Path) -> tuple[int, int]:
    said = path.stat()
    return said.st_size, said.st_mtime_ns


def _md5(path: Path) -> str:
    try:
        return remote.md5_of(path)
    except FileNotFoundError:
        return ""


def _parallel(fn: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """A function over items by a few threads; the first error is raised when all of them are done."""
    todo = list(items)
    if len(todo) < 2:
        return [fn(i) for i in todo]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(fn, todo))
