"""The engine ``ray``: shards on a Ray cluster, made by actors that keep their networks, written by one process.

* A task carries its items and its answer comes back as bytes; this process alone writes the build folder. Photos,
  tables and weights do not travel: every node must see data roots and build folder under the same path. Each worker
  checks that, and that its code is the same, before its first shard.
* Each worker has one task, so memory does not grow with the data.
* A worker that dies, alone or with its node, costs the shard it was making: another worker gets it, `ATTEMPTS` times
  in all. `ray.util.ActorPool` does not say which worker or task died, so this module waits for the tasks itself.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError, require
from ahp_toolkit.runtime.engines import ONE_THREAD, SEEN, Task, Work
from ahp_toolkit.runtime.ray_start import joined, line
from ahp_toolkit.storage import files as disk

R = TypeVar("R")
S = TypeVar("S")
#: Times that a shard is begun before the deaths of its workers count as its own fault.
ATTEMPTS = 4
#: Seconds without a single worker before the command ends; clusters that grow on demand need minutes.
PATIENCE = 600.0
#: Packages whose version may change a byte.
DECIDE = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg", "torch", "torchvision")


def connect(workers: int | None, address: str | None, gpus_per_actor: float | None) -> RayEngine:
    """The engine on the Ray cluster at ``address`` (else $RAY_ADDRESS, else one of this machine's own).

    The cluster is joined or started with the first shard.

    Raises:
        UserError: when Ray is not installed, or does not give out such a share of GPUs.
    """
    gpus = gpus_per_actor
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
        raise UserError(f"--gpus-per-actor {gpus:g}: expected 0 to 1, or a whole number")
    for package in ("ray", "psutil"):
        require(package, "--engine ray")
    if address in (None, "", "auto"):
        address = os.environ.get("RAY_ADDRESS") or address
    return RayEngine(workers, None if address in ("", "local") else address, gpus)


@dataclass(frozen=True)
class _Flight:
    """A task that a worker is at. ``deaths``: how many workers have died at it before."""

    task: Task
    deaths: int
    actor: Any


class RayEngine:
    """See the module."""

    def __init__(self, workers: int | None, address: str | None, gpus_per_actor: float | None) -> None:
        self._workers, self._address, self._gpus_per_actor = workers, address, gpus_per_actor
        self._closing = ExitStack()
        self._joined: Any = None
        self._gpus = 0.0
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._lost = 0

    @property
    def _ray(self) -> Any:
        self._joined = self._joined or joined(self._closing, self._address, self._workers)
        return self._joined

    @property
    def workers(self) -> int:
        """The number that the user gave, else of the CPUs that the cluster has now."""
        return self._workers or max(1, int(self._has("CPU")))

    def _has(self, resource: str) -> float:
        return float(self._ray.cluster_resources().get(resource, 0.0))

    def imap(self, work: Work[R, S], tasks: Iterable[Task]) -> Iterator[S]:
        """See `Engine.imap`."""
        gpus, count = self._shape(work)
        if gpus != self._gpus:
            self._dismiss()  # workers of both kinds would wait for each other's CPUs
            self._gpus = gpus
        with _check_of(work) as check:
            for made in self._made(work.label, self._ray.put((work.fn, check)), iter(tasks), count):
                yield work.keep(made)

    def _shape(self, work: Work[Any, Any]) -> tuple[float, int]:
        """(GPUs a worker, number of workers) for a piece of work."""
        have, wanted = self._has("GPU") if work.network else 0.0, self._gpus_per_actor
        gpus = (min(1.0, have) if wanted is None else wanted) if work.network else 0.0
        if gpus == 0:
            return 0.0, self.workers
        if have < gpus:
            raise UserError(f"--gpus-per-actor {gpus:g}: the Ray cluster has {have:g} GPUs; give 0 to work without")
        return gpus, min(self.workers, int(have / gpus + 1e-9))

    def _made(self, label: str, begun: Any, tasks: Iterator[Task], count: int) -> Iterator[Any]:
        """What the workers make, in the order in which it is ready."""
        flying: dict[Any, _Flight] = {}
        again: deque[tuple[Task, int]] = deque()
        try:
            while True:
                while self._idle and len(flying) < count:
                    task, deaths = again.popleft() if again else (next(tasks, None), 0)
                    if task is None:
                        break
                    actor = self._idle.pop()
                    flying[actor.do.remote(begun, task)] = _Flight(task, deaths, actor)
                if self._idle and not flying:
                    return
                for _ in range(count - len(flying) - len(self._idle) - len(self._starting)):
                    self._hire()
                for ref in self._ready([*flying, *self._starting], label, bool(flying)):
                    if ref in self._starting:
                        self._welcome(ref, label, count)
                        continue
                    flight = flying.pop(ref)
                    try:
                        result = self._get(ref)
                    except self._ray.exceptions.RayError as e:
                        again.append((flight.task, _charged(flight, label, e)))
                    else:
                        self._idle.append(flight.actor)
                        yield result
        finally:
            for flight in flying.values():  # after an error
                self._ray.kill(flight.actor)

    def _ready(self, refs: list[Any], label: str, busy: bool) -> list[Any]:
        done, rest = self._ray.wait(refs, num_returns=1, timeout=None if busy else PATIENCE)
        if not done:
            raise UserError(
                f"{label}: no worker of the Ray cluster was ready within {PATIENCE:.0f} s; see why with: ray status"
            )
        more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0) if rest else ([], [])
        return [*done, *more]

    def _hire(self) -> None:
        runtime = {"env_vars": ONE_THREAD} if self._address else {}  # a cluster of our own has that environment
        options = {"num_cpus": 1, "num_gpus": self._gpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        actor = self._ray.remote(Worker).options(runtime_env=runtime, **options).remote()
        self._starting[actor.ready.remote()] = actor

    def _welcome(self, ref: Any, label: str, count: int) -> None:
        """Take in a worker that has started, or count one that died."""
        actor = self._starting.pop(ref)
        try:
            self._get(ref)
        except self._ray.exceptions.RayError as e:
            self._lost += 1
            if self._lost > 2 * count + ATTEMPTS:
                raise UserError(f"{label}: workers die as they start ({line(e)}); see Ray's logs") from e
        else:
            self._idle.append(actor)

    def _get(self, ref: Any) -> Any:
        """A result; the exception that a stage raised is raised here as it was. Deaths are RayErrors."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as e:
            raise (e.cause if isinstance(e.cause, Exception) else e) from e

    def _dismiss(self) -> None:
        for actor in (*self._idle, *self._starting.values()):
            self._ray.kill(actor)
        self._idle, self._starting = [], {}

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        if self._joined is not None and self._joined.is_initialized():
            self._dismiss()
        self._joined = None
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _charged(flight: _Flight, label: str, e: Exception) -> int:
    """The deaths at a task with this one.

    Raises:
        UserError: when there are too many.
    """
    deaths = flight.deaths + 1
    if deaths >= ATTEMPTS:
        raise UserError(
            f"{label}: shard {flight.task[0]:05d}: {deaths} workers died at it, the last of {line(e)}; too little "
            "memory, or a fault in its data; the same command goes on from here"
        ) from e
    return deaths


class Worker:
    """The actor: one process, one shard at a time; a network that a stage function builds stays in memory."""

    def __init__(self) -> None:
        self._checked: Check | None = None

    def ready(self) -> None:
        """Nothing: it returns when the process has started."""

    def do(self, begun: tuple[Callable[[Task], Any], Check], task: Task) -> Any:
        """One shard; the check of a stage comes before its first."""
        fn, check = begun
        if check != self._checked:
            check()
            self._checked = check
        return fn(task)


@cache
def code_of() -> dict[str, str]:
    """Digest of the toolkit's source files and the versions of what decides bytes, as this process finds them."""
    packages = ("ahp_toolkit", "annotation", "baselines", "benchmark")
    folders = [Path(p) for name in packages if (s := find_spec(name)) for p in s.submodule_search_locations or ()]
    files = [p for folder in folders for p in sorted(folder.rglob("*.py"))]
    found = {"the code of ahp-toolkit": hashing.digest_files(files)[:12], "python": platform.python_version()}
    for name in DECIDE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@dataclass(frozen=True)
class Check:
    """What the command's machine sees: code, working folder, and of each path the name of something in it.

    A worker that saw an empty folder in the place of the photos would drop every person as missing; one with another
    decoder would make other pixels.
    """

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
def _check_of(work: Work[Any, Any]) -> Iterator[Check]:
    """The check of a piece of work; meanwhile the folder that it writes to holds a file that only this run has."""
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
