"""Engines: do a piece of work on every shard, in this process, in a pool of processes (``local``) or on ``ray``.

A command makes its engine once (`engine_options.make_engine`). Shards, and so the bytes, do not
depend on it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from ahp_toolkit.core.errors import UserError

R = TypeVar("R")
S = TypeVar("S")
#: A shard: its number, and what the work takes.
Task = tuple[int, Any]
#: Every worker computes on one thread: shards are what runs side by side.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
#: Files that begin so in a working folder are marks for workers to see; they mean nothing once their command has ended.
SEEN = ".seen-"


def same(result: Any) -> Any:
    """What a worker made, as it is."""
    return result


@dataclass(frozen=True)
class Work(Generic[R, S]):
    """What is done with every shard.

    Args:
        label: the stage's name, for errors.
        fn: runs in a worker; picklable.
        keep: stores what ``fn`` made: in the same worker on ``local``, where the command runs on ``ray`` (one writer).
        network: whether ``fn`` runs a network, so that an engine may give its workers a GPU.
        folder: where the command writes; workers must see it under the same path.
        sees: files and folders that are read, to be seen likewise.
    """

    label: str
    fn: Callable[[Task], R]
    keep: Callable[[R], S] = same
    network: bool = False
    folder: str = ""
    sees: tuple[str, ...] = ()

    def whole(self, task: Task) -> S:
        """Make and keep one shard."""
        return self.keep(self.fn(task))


class Engine(Protocol):
    """Where shards are worked on."""

    @property
    def workers(self) -> int:
        """How many shards are worked on at a time."""

    def imap(self, work: Work[R, S], tasks: Iterable[Task]) -> Iterator[S]:
        """What was kept, in the order in which it is ready; at most ``2 * workers`` tasks are drawn and not done.

        Raises:
            UserError: the one that a worker raised; when workers die too often.
        """

    def close(self) -> None:
        """Let the workers go."""

    def __enter__(self) -> Self:
        """For ``with``: ends in `close`."""

    def __exit__(self, *_: object) -> None:
        """See `close`."""


@contextmanager
def using(engine: Engine | None, workers: int) -> Iterator[Engine]:
    """The engine, or where there is none a local one of so many workers for the time being."""
    if engine is not None:
        yield engine
        return
    with LocalEngine(workers) as own:
        yield own


class LocalEngine:
    """This process (one worker), or a pool of processes that is born with the first stage and serves all of them."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def imap(self, work: Work[R, S], tasks: Iterable[Task]) -> Iterator[S]:
        """See `Engine.imap`."""
        stream = iter(tasks)
        head = list(itertools.islice(stream, 2 if self.workers > 1 else 0))
        if len(head) < 2:  # one task alone is not worth a pool
            yield from map(work.whole, itertools.chain(head, stream))
            return
        self._pool = self._pool or _pool(self.workers)
        try:
            yield from _bounded(self._pool, work.whole, itertools.chain(head, stream), 2 * self.workers)
        except BrokenProcessPool as e:
            self.close()  # waits for the pool's thread: at Python's exit it would be met half closed
            raise UserError(
                "a worker process died (killed, or out of memory); run the same command again, with fewer --workers"
            ) from e

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(error[1], KeyboardInterrupt):
            for worker in multiprocessing.active_children():  # else the end waits for the shards they are at
                worker.terminate()
        self.close()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the time being: processes started inside are born with them."""
    saved = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for k, v in saved.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = v


def _end_with_parent() -> None:
    """A worker whose command was killed would wait for work for ever, with all its memory; Ctrl+C is the command's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _pool(workers: int) -> ProcessPoolExecutor:
    # forkserver: no threads of the parent (torch, numba) are copied into a worker; it is born with this environment
    with environment(ONE_THREAD):
        context = multiprocessing.get_context("forkserver")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
        list(pool.map(abs, range(workers)))
        return pool


def _bounded(pool: ProcessPoolExecutor, fn: Callable[[Task], S], tasks: Iterable[Task], limit: int) -> Iterator[S]:
    running: set[Future[S]] = set()
    try:
        for task in tasks:
            running.add(pool.submit(fn, task))
            if len(running) >= limit:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (f.result() for f in ready)
        while running:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (f.result() for f in ready)
    finally:
        for f in running:
            f.cancel()
