"""Stage functions that workers import: what they do, they do once a shard, and some of it kills their process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.runtime.stage import MAIN, Job, Output


@dataclass(frozen=True)
class Item:
    name: str
    value: int


def complain(task):
    raise UserError("give a number")


def divide(task):
    return 1 // 0


def where(task):
    """The GPUs that Ray gave this worker, and its process."""
    import ray

    return ",".join(ray.get_runtime_context().get_accelerator_ids()["GPU"]), os.getpid()


@dataclass(frozen=True)
class Square:
    """Squares numbers, drops every third; leaves a line with its process and node.

    ``kill``: shard -> deaths at it. ``doomed``: a node whose workers stay at a shard until they die; the others' wait
    over their first until one is there.
    """

    trace: str
    pause: float = 0.0
    kill: dict[int, int] = field(default_factory=dict)
    doomed: str = ""
    roots: dict[str, str] = field(default_factory=dict)

    def __call__(self, items: Sequence[int]) -> Output:
        with Path(self.trace).open("a") as f:
            f.write(f"{items[0]} {os.getpid()} {_node()}\n")
        deaths = self.kill.get(items[0], 0)
        if sum(line.split()[0] == str(items[0]) for line in Path(self.trace).read_text().splitlines()) <= deaths:
            time.sleep(0.5)  # the answer before this one is on its way
            os.kill(os.getpid(), signal.SIGKILL)
        if self.doomed:
            self._wait_for_doom()
        time.sleep(self.pause)
        kept = [Item(f"n{i}", i * i) for i in items if i % 3]
        return Output({MAIN: kept}, [Dropped(f"n{i}", "square", "third") for i in items if i % 3 == 0])

    def _wait_for_doom(self, seconds: float = 300.0) -> None:
        end, here = time.monotonic() + seconds, _node()
        while here == self.doomed or f" {self.doomed}\n" not in Path(self.trace).read_text():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing happened on node {self.doomed}")
            time.sleep(0.05)


class Double(Square):
    """The stage function over numbered tasks, as engines call it."""

    def __call__(self, task):
        return super().__call__(task[1])


def _node() -> str:
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray is not None and ray.is_initialized() else "-"


def job(folder: Path, name: str = "square", **how) -> Job:
    """A stage of two numbers a shard."""
    fn = Square(str(folder / f"{name}.trace"), **how)
    return Job(name, folder / name, fn, {MAIN: Item}, {"v": 1}, shard_size=2)


def calls(folder: Path, name: str = "square") -> list[list[str]]:
    """(first item, process, node) of every call so far."""
    path = folder / f"{name}.trace"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
