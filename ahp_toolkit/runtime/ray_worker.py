"""What a worker on another machine checks before it begins: the same code, and the same disk under the same paths.

A worker that saw an empty folder in the place of the photos would drop every person as missing; one with another
decoder would make other pixels. Both end the command with one line instead. Ray itself is not imported here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.runtime.engines import SEEN, Task, Work
from ahp_toolkit.storage import files as disk

OURS = ("ahp_toolkit", "annotation", "baselines", "benchmark")
#: Packages whose version may change a byte.
DECIDE = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg", "torch", "torchvision")


@cache
def code_of() -> dict[str, str]:
    """Digest of our source files and the versions of what decides bytes, as this process finds them."""
    folders = [Path(p) for name in OURS if (s := find_spec(name)) for p in s.submodule_search_locations or ()]
    files = [p for folder in folders for p in sorted(folder.rglob("*.py"))]
    said = {"the code of ahp-toolkit": hashing.digest_files(files)[:12], "python": platform.python_version()}
    for name in DECIDE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            said[name] = importlib.metadata.version(name)
    return said


@dataclass(frozen=True)
class Check:
    """What the command's own machine sees: code, working folder, and of each path something that must be there."""

    host: str
    code: dict[str, str]
    cwd: str
    seen: tuple[tuple[str, str], ...]

    def __call__(self) -> None:
        """Compare with this machine; go to the command's working folder, where relative paths begin.

        Raises:
            UserError: naming the machine and what differs.
        """
        here, mine = socket.gethostname(), code_of()
        for name, version in self.code.items():
            if mine.get(name) != version:
                raise UserError(
                    f"{here}: {name} is {mine.get(name, 'missing')} there and {version} on {self.host}; "
                    "install the same on every node of the Ray cluster"
                )
        for path, inside in self.seen:
            if not os.path.lexists(Path(path) / inside if inside else path):
                raise UserError(
                    f"{here}: does not see {path} as {self.host} does; data roots, the build folder and weights must "
                    "lie under the same path on every node (a shared disk)"
                )
        with contextlib.suppress(OSError):  # absolute paths need none
            os.chdir(self.cwd)


@contextmanager
def check_of(work: Work[Any, Any]) -> Iterator[Check]:
    """The check of a piece of work; the folder that it writes to holds a mark of this very run for the time being."""
    seen = [(str(Path(p).absolute()), _inside(p)) for p in work.sees if "://" not in p]
    mark = Path(work.folder).absolute() / f"{SEEN}{secrets.token_hex(8)}" if work.folder else None
    if mark is not None:
        disk.write_bytes(mark, b"")
        seen.append((str(mark.parent), mark.name))
    try:
        yield Check(socket.gethostname(), code_of(), str(Path.cwd()), tuple(seen))
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)


def _inside(path: str) -> str:
    """The name of something in a folder; empty for a file and for an empty folder."""
    if not Path(path).is_dir():
        return ""
    with os.scandir(path) as entries:
        return next((e.name for e in entries), "")


class Worker:
    """The actor: one process, one shard at a time; what a stage function keeps in memory (a network) stays with it."""

    def __init__(self) -> None:
        self._fn: Callable[[Task], Any] | None = None

    def begin(self, fn: Callable[[Task], Any], check: Check) -> str:
        """Take up a stage; what the check says against it, else nothing.

        A worker that starts late may find the stage ended and its mark gone: nobody then listens.
        """
        try:
            check()
        except UserError as e:
            return str(e)
        self._fn = fn
        return ""

    def do(self, task: Task) -> Any:
        """One shard."""
        assert self._fn is not None
        return self._fn(task)
