"""One builder a folder: the second is refused with the owner's name; a dead owner's lock is taken over by itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ahp_toolkit.core.errors import UserError


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder/.lock`` (flock: the kernel frees it when its process dies).

    Raises:
        UserError: when another process holds it, with its host, pid and start.
    """
    _made(folder)
    fd = _opened(folder / ".lock")
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(f"{folder}: in use by {_owner(fd)}; wait for it, or build into another folder") from e
        os.ftruncate(fd, 0)
        mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        os.pwrite(fd, json.dumps(mine).encode(), 0)
        yield
    finally:
        os.close(fd)


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for whoever holds it: for work that one process does for many."""
    _made(path.parent)
    fd = _opened(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _made(folder: Path) -> None:
    """The folder, made with those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as e:  # below /proc, or removed meanwhile
        raise UserError(f"{folder}: cannot be made there; give another path") from e


def _opened(path: Path) -> int:
    """The lock file; a link in its place would have its target cut to nothing."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise UserError(f"{path}: a link stands where the lock file belongs; remove it") from e
        raise


def _owner(fd: int) -> str:
    try:
        said = json.loads(os.pread(fd, 4096, 0))
        return f"process {said['pid']} on {said['host']} since {said['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
