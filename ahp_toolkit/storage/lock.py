"""Locks on folders and files, by filelock: the system frees them when their process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ahp_toolkit.core.errors import UserError


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder/.lock``: one command at a time writes a folder.

    Raises:
        UserError: when another process holds it, or the folder cannot be made.
    """
    held = _file_lock(folder / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout as e:
        raise UserError(f"{folder}: another process works on this folder; wait for it, or give another folder") from e
    try:
        yield
    finally:
        held.release()


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for whoever holds it: for work that one process does for many."""
    with _file_lock(path):
        yield


def _file_lock(path: Path) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as e:  # below /proc, or removed meanwhile
        raise UserError(f"{path.parent}: cannot be made there; give another path") from e
    if path.is_symlink():
        raise UserError(f"{path}: a link lies where the lock file belongs; remove it")
    return FileLock(path)
