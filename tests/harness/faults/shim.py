"""Counts what a process does to the files below a folder, and strikes at the k-th of these events.

Installed by the harness in a child process, never by the product. An event is a file created or opened for writing, a
write, an fsync, a rename, a file or folder made or removed. A kill or an error in a write leaves half of it behind.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The functions of os that are told apart by a path, and whether the path that counts is the second one.
_PATHS = {"replace": 1, "rename": 1, "unlink": 0, "remove": 0, "mkdir": 0, "rmdir": 0}
_DESCRIPTORS = ("fsync", "write", "pwrite", "ftruncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
YEAR = 365.25 * 86400


@dataclass(frozen=True)
class Plan:
    """What happens at event ``at`` (from 1; 0: nothing, events are only counted) of what is done below ``root``.

    ``kind``: count; kill; worker (kill, counted in pool workers only); full (of a real small disk); nospace (each write
    from there on fails as if it were); io; read (files opened for reading are what counts, and fails); clock. ``log``:
    where the number of events and the newest whole file are written.
    """

    root: Path
    log: Path
    kind: str = "count"
    at: int = 0


def fill_disk(folder: Path) -> None:
    """Write until the file system of ``folder`` is full."""
    with real_open(folder / "ballast", "wb", 0) as f:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    f.write(bytes(size))
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    raise


real_open = io.open
_real = {name: getattr(os, name) for name in (*_PATHS, *_DESCRIPTORS, "open", "kill")}
_clocks = {name: getattr(time, name) for name in ("time", "time_ns")}


class Shim:
    """The counter of one process, or of the workers of one pool (they share the file ``plan.log``)."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.root = plan, str(plan.root)
        self._log = _real["open"](plan.log, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def meet(self, path: Any, torn: Callable[[], Any] | None = None) -> None:
        """Count an event, and strike when it is the one; ``torn`` does half of it."""
        name = self.full(path)
        if not name.startswith(self.root) or name.endswith("ballast"):
            return
        if self.plan.kind == "worker" and multiprocessing.parent_process() is None:
            return
        n = self._next()
        if n == self.plan.at:
            self._strike(name, torn)
        if self.plan.kind == "nospace" and self.plan.at and n >= self.plan.at and torn is not None:
            torn()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    def full(self, path: Any) -> str:
        """The absolute name of a path or a descriptor; relative ones are below the root, where the command runs."""
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        name = os.fsdecode(path)
        return name if name.startswith("/") else f"{self.root}/{name}"

    def _next(self) -> int:
        fcntl.lockf(self._log, fcntl.LOCK_EX)
        try:
            n = int(os.pread(self._log, 20, 0).strip(b"\0") or b"0") + 1
            _real["pwrite"](self._log, b"%020d" % n, 0)
        finally:
            fcntl.lockf(self._log, fcntl.LOCK_UN)
        return n

    def note(self, path: Any) -> None:
        """Remember the newest file that was put in its place."""
        name = self.full(path)
        if name.startswith(self.root):
            _real["pwrite"](self._log, name.encode().ljust(400), 20)

    def _strike(self, name: str, torn: Callable[[], Any] | None) -> None:
        kind = self.plan.kind
        if kind == "full":
            fill_disk(self.plan.root)
        elif kind == "clock":
            for name, clock in _clocks.items():
                back = YEAR if name == "time" else int(YEAR * 1e9)
                setattr(time, name, lambda clock=clock, back=back: clock() - back)
        elif kind in ("kill", "worker", "io", "read"):
            if torn is not None:
                torn()
            if kind in ("kill", "worker"):
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)


class _File:
    """A file opened for writing, whose writes are events."""

    def __init__(self, file: Any, name: str, shim: Shim) -> None:
        self._file, self._name, self._shim = file, name, shim

    def write(self, data: Any) -> Any:
        self._shim.meet(self._name, lambda: (self._file.write(data[: len(data) // 2]), self._file.flush()))
        return self._file.write(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *what: Any) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def install(plan: Plan) -> Shim:
    """Patch this process (and those it forks) for good."""
    shim = Shim(plan)

    def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        name = shim.full(file)
        writes = bool(set(mode) & set("wax+"))
        if plan.kind == "read" or not writes or not name.startswith(shim.root):
            if plan.kind == "read" and not writes and not isinstance(file, int):
                shim.meet(name)
            return real_open(file, mode, *args, **more)
        if not isinstance(file, int):
            shim.meet(name)
        return _File(real_open(file, mode, *args, **more), name, shim)

    def low_open(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if bool(flags & _WRITES) != (plan.kind == "read") and more.get("dir_fd") is None:
            shim.meet(path)
        return int(_real["open"](path, flags, *args, **more))

    builtins.open = io.open = opened  # type: ignore[assignment]
    os.open = low_open
    if plan.kind == "read":
        return shim
    for name, which in _PATHS.items():
        setattr(os, name, _by_path(shim, _real[name], which))
    for name in _DESCRIPTORS:
        setattr(os, name, _by_descriptor(shim, name))
    return shim


def _by_path(shim: Shim, real: Callable[..., Any], which: int) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        at = args[which]
        if more.get("dir_fd") is not None:
            at = Path(shim.full(more["dir_fd"])) / at
        shim.meet(at)
        answer = real(*args, **more)
        if which:
            shim.note(at)
        return answer

    return call


def _by_descriptor(shim: Shim, name: str) -> Callable[..., Any]:
    real = _real[name]

    def call(fd: int, *args: Any) -> Any:
        half = (args[0][: len(args[0]) // 2], *args[1:]) if name in ("write", "pwrite") else None
        shim.meet(fd, (lambda: real(fd, *half)) if half is not None else None)
        return real(fd, *args)

    return call
