"""Engines: map a picklable function over tasks, in this process or in a pool of processes."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from .errors import UserError

T = TypeVar("T")
R = TypeVar("R")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def imap(fn: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[R]:
    """Results in the order in which they are ready; at most ``2 * workers`` tasks are in memory at once."""
    stream = iter(tasks)
    head = list(itertools.islice(stream, 2 if workers > 1 else 0))
    if len(head) < 2:  # one task alone is not worth a pool
        yield from map(fn, itertools.chain(head, stream))
        return
    try:
        yield from _bounded(_pool(workers), fn, itertools.chain(head, stream), 2 * workers)
    except BrokenProcessPool as e:
        _pool.cache_clear()
        raise UserError(
            "a worker process died (killed, or out of memory); run the same command again, with fewer --workers"
        ) from e


@functools.cache
def _pool(workers: int) -> ProcessPoolExecutor:
    """One pool for all stages of a run: workers import what they need once."""
    # forkserver: no threads of the parent (torch, numba) are copied into a worker; it is born with this environment
    saved = {k: os.environ.get(k) for k in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
        list(pool.map(abs, range(workers)))
        return pool
    finally:
        for k, v in saved.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = v


def _bounded(pool: ProcessPoolExecutor, fn: Callable[[T], R], tasks: Iterable[T], limit: int) -> Iterator[R]:
    running: set[Future[R]] = set()
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
