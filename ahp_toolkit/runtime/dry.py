"""A dry run (``ahp build plan``): the first thing that would be made stops the call instead of being made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_dry: ContextVar[bool] = ContextVar("dry", default=False)


class Would(Exception):
    """What a dry run came upon: ``name`` would be made in ``folder``, of ``total`` items, some ``shards`` done."""

    def __init__(self, name: str, folder: Path, total: int | None = None, shards: int = 0) -> None:
        super().__init__(name)
        self.name, self.folder, self.total, self.shards = name, folder, total, shards


@contextmanager
def dry_run() -> Iterator[None]:
    """Inside, `stop` raises `Would`: whoever would write calls it first."""
    token = _dry.set(True)
    try:
        yield
    finally:
        _dry.reset(token)


def running() -> bool:
    """Whether this is a dry run: then nothing may be tidied up either."""
    return _dry.get()


def anew() -> str:
    """What is, or in a dry run would be, done with a stage that no longer stands."""
    return "would be made anew" if running() else "made anew"


def stop(name: str, folder: Path, total: int | None = None, shards: int = 0) -> None:
    """Say that ``name`` is about to be made.

    Raises:
        Would: in a dry run.
    """
    if _dry.get():
        raise Would(name, folder, total, shards)
