"""Output roots in object stores: the work is done in a local folder, and what is finished there is published.

While a build works in its folder as ever, a thread publishes it (`mirror`) and another keeps the lease (`lease`). Who
only reads fetches what is finished. Local roots are handed through.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import StorageError, UserError
from ahp_toolkit.runtime import signals
from ahp_toolkit.storage import files, lease, locations, remote
from ahp_toolkit.storage.lock import lock
from ahp_toolkit.storage.mirror import HOLD, Mirror


@contextmanager
def naming(*roots: Path | None) -> Iterator[None]:
    """Errors inside name an address as the user did, not the folder in the cache that stands for it.

    Logs of what people said keep their local path: it may hold words that are nowhere else.
    """
    try:
        yield
    except (UserError, StorageError) as e:
        for root in roots:
            if isinstance(root, locations.Remote):
                folder = re.escape(str(folder_of(root)))
                e.args = (str(root).join(re.split(rf"{folder}(?!\S*\.jsonl)", str(e))),)
        raise


@contextmanager
def working(out: Path, work: Path | None = None, build: bool = False) -> Iterator[Path]:
    """The folder to write for an output root: a local one itself; for an address, a folder that is published to it.

    Args:
        out: a local path or an address.
        work: the working folder of an address; default: one in the cache.
        build: whether a build must stand at the address already; where there is none, nothing is written.

    Raises:
        UserError: when somebody else writes there, ``work`` belongs to something else, or ``build`` is not there.
        StorageError: when the store fails for good; what is in the working folder stays.
    """
    if not isinstance(out, locations.Remote):
        if work is not None:
            raise UserError(f"--work {work}: is for an --out in an object store, {out} is a local folder")
        yield out
        return
    if build:
        _expect(out, remote.stat(f"{out}/build.json") is not None)
    folder = work or folder_of(out)
    with naming(out), lock(folder / HOLD):
        mirror = Mirror(str(out), folder, own=work is None)
        mine, before = lease.acquire(str(out), mirror.id)
        mirror.guard = mine.guard
        try:
            _brought_back(mirror, mine, before)
            with _published(mirror, mine):
                yield folder
        finally:
            with suppress(StorageError):  # else it ends by itself
                mine.release()


def _expect(root: Path, there: bool) -> None:
    if not there:
        raise UserError(
            f"{root}: expected a build folder (build.json), found none; make one with ahp build --out {root}"
        )


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
    read = reading(root)
    _expect(root, (read / "build.json").exists())
    with naming(root), working(out) as folder:
        yield read, folder


def _brought_back(mirror: Mirror, mine: lease.Lease, before: lease.Held | None) -> None:
    try:
        mirror.bring_back(before)
    except UserError:
        if before is None:  # a lease there would make the address look like ours the next time
            mine.withdraw()
        raise


def reading(root: Path) -> Path:
    """The local folder to read for a root: a local one itself; for an address, what is finished there, fetched.

    Raises:
        UserError: when there is nothing, or it changes all the time.
    """
    if not isinstance(root, locations.Remote):
        return root
    folder = folder_of(root)
    with naming(root):
        if _lacking(root, folder) is not None:
            with lock(folder / HOLD):
                mend = _lacking(root, folder)  # another process may have fetched it meanwhile
                if mend is not None:
                    mend()
    return folder


def _lacking(root: Path, folder: Path) -> Callable[[], None] | None:
    """What makes a folder in the cache fit to be read; None where it is."""
    mirror, held = Mirror(str(root), folder, own=True), lease.newest(str(root))
    if held is None or not mirror.stands(held):
        return mirror.fetch_finished
    return mirror.mend if held.over and mirror.lacking() else None  # a living owner removes what he likes


def check_there(*roots: Path | None) -> None:
    """Raises `UserError` for an address at which nothing lies, before a command writes at another."""
    for root in roots:
        if isinstance(root, locations.Remote) and not root.exists():
            raise UserError(f"{root}: expected something to read there, found nothing; mend the address")


def folder_of(out: Path) -> Path:
    """The working folder of an address in the cache."""
    return files.cache_folder() / "work" / f"{out.name}-{hashing.digest_value(str(out))[:16]}"


@contextmanager
def _published(mirror: Mirror, mine: lease.Lease) -> Iterator[None]:
    """Publish and renew in the background; a failure there interrupts the work, and is raised in its place."""
    failed: list[Exception] = []
    stop = threading.Event()

    def run(step: Callable[[], float]) -> None:
        pause = 0.0
        while not stop.wait(pause):
            try:
                pause = step()
            except Exception as e:  # noqa: BLE001  whatever it is, the work must not go on unpublished
                failed.append(e)
                if len(failed) == 1 and not stop.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def renew() -> float:
        mine.renew()
        return lease.RENEW_S

    threads = [threading.Thread(target=run, args=(s,), daemon=True) for s in (mirror.step, renew)]
    for t in threads:
        t.start()
    done = False
    try:
        try:
            yield
            done = True
        finally:
            stop.set()
            for t in threads:
                t.join()
            if done and not failed:
                mirror.finish()
            elif not failed:
                with suppress(StorageError):  # what stopped the work is the error to show
                    mirror.sync()
    except BaseException:
        if not failed:  # else our own interrupt, or what a library made of it
            raise
    if failed:
        signals.answered()
        raise failed[0]


def local_to(out: Path, folder: Path) -> Callable[[Path], Path]:
    """Where a path lies locally while ``folder`` is the working folder of ``out``: inside it, or fetched to be read."""

    def here(path: Path) -> Path:
        inside = isinstance(path, locations.Remote) and path.is_relative_to(out)
        return folder / path.relative_to(out) if inside else reading(path)

    return here


def shown(out: Path, folder: Path, path: Path) -> Path:
    """Where somebody finds a file of the working ``folder`` of ``out``: in a store, its address."""
    return out / path.relative_to(folder) if isinstance(out, locations.Remote) else path
