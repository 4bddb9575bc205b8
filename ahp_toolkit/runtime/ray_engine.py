"""The engine ``ray``: shards on a Ray cluster, worked on by actors that keep their networks, kept by one writer.

* A task carries its items; its answer (a shard as bytes) comes back, and this process alone writes the build folder.
  Photos, tables, weights and pictures that a stage writes itself do not travel: every node must see data roots and
  build folder under the same path. Each worker checks that, and that its code is ours, before it begins.
* At most two tasks a worker are drawn and not done, so memory does not grow with the data.
* A worker that dies, alone or with its node, costs the shard it was at: that is given to another, `ATTEMPTS` times in
  all; what was queued behind it is given away without a charge. Retries are ours, not Ray's: they are bounded and the
  error names the shard.
* A cluster started here listens on the loopback address alone, asks for a token, has no dashboard and sends no usage
  statistics; its logs lie in a temporary folder that is removed at the end.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from ahp_toolkit.core.errors import UserError, require
from ahp_toolkit.runtime.engines import ONE_THREAD, Task, Work
from ahp_toolkit.runtime.ray_start import joined, line
from ahp_toolkit.runtime.ray_worker import Check, Worker, check_of

R = TypeVar("R")
S = TypeVar("S")
#: Times that a shard is begun before its workers' deaths are taken for its own fault.
ATTEMPTS = 4
#: Seconds without a single worker before the command gives up; clusters that grow on demand need minutes.
PATIENCE = 600.0


def connect(workers: int | None, address: str | None, gpus_per_actor: float | None) -> RayEngine:
    """The engine on the Ray cluster at ``address`` (else $RAY_ADDRESS, else one of this machine's own).

    The cluster is joined or started when there is something to do.

    Raises:
        UserError: when Ray is not installed, or does not give out such a share of GPUs.
    """
    if gpus_per_actor is not None and not _given_out(gpus_per_actor):
        raise UserError(f"--gpus-per-actor {gpus_per_actor:g}: expected 0 to 1, or a whole number")
    for package in ("ray", "psutil"):
        require(package, "--engine ray")
    if address in (None, "", "auto"):
        address = os.environ.get("RAY_ADDRESS") or address
    return RayEngine(workers, None if address in ("", "local") else address, gpus_per_actor)


def _given_out(gpus: float) -> bool:
    """Whether Ray gives out so many GPUs: a share of one, or whole ones."""
    return 0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())


class RayEngine:
    """See the module's first lines."""

    def __init__(self, workers: int | None, address: str | None, gpus_per_actor: float | None) -> None:
        self._given, self._address, self._gpus_per_actor = workers, address, gpus_per_actor
        self._closing = ExitStack()
        self._known: Any = None
        self._crew: list[Any] = []
        self._kind = 0.0

    @property
    def _ray(self) -> Any:
        self._known = self._known or joined(self._closing, self._address, self._given)
        return self._known

    @property
    def workers(self) -> int:
        """As many as were asked for, else the CPUs that the cluster has now."""
        return self._given or max(1, int(self._has("CPU")))

    def _has(self, resource: str) -> float:
        return float(self._ray.cluster_resources().get(resource, 0.0))

    def imap(self, work: Work[R, S], tasks: Iterable[Task]) -> Iterator[S]:
        """See `Engine.imap`."""
        gpus, count = self._shape(work)
        if gpus != self._kind:
            self._dismiss()  # two crews at once would wait for each other's CPUs
            self._kind = gpus
        runtime = {"env_vars": ONE_THREAD} if self._address else {}  # our own cluster was born with it
        actor = self._ray.remote(Worker).options(
            num_cpus=1, num_gpus=gpus, runtime_env=runtime, scheduling_strategy="SPREAD", max_restarts=0
        )
        with check_of(work) as check:
            stage: _Stage[R, S] = _Stage(self._ray, work, actor, self._crew, count, check)
            try:
                yield from stage.run(iter(tasks))
            finally:
                self._crew = stage.leave()

    def _shape(self, work: Work[Any, Any]) -> tuple[float, int]:
        """(GPUs a worker, number of workers) for a piece of work."""
        have, asked = self._has("GPU") if work.network else 0.0, self._gpus_per_actor
        gpus = (min(1.0, have) if asked is None else asked) if work.network else 0.0
        if gpus == 0:
            return 0.0, self.workers
        if have < gpus:
            raise UserError(f"--gpus-per-actor {gpus:g}: the Ray cluster has {have:g} GPUs; give 0 to work without")
        return gpus, min(self.workers, int(have / gpus + 1e-9))

    def _dismiss(self) -> None:
        for handle in self._crew:
            self._ray.kill(handle)
        self._crew = []

    def close(self) -> None:
        """Let the workers go; end the cluster, if it was started here."""
        if self._known is not None and self._known.is_initialized():
            self._dismiss()
        self._known = None
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(eq=False)
class _Member:
    """A worker that has begun, with what it was given, oldest first."""

    handle: Any
    queue: deque[_Given] = field(default_factory=deque)


@dataclass(eq=False)
class _Given:
    """A task in flight. ``deaths``: how many workers have died at it."""

    task: Task
    deaths: int
    member: _Member
    ref: Any


class _Stage(Generic[R, S]):
    """One piece of work on a crew of actors."""

    def __init__(self, ray: Any, work: Work[R, S], actor: Any, crew: list[Any], count: int, check: Check) -> None:
        self._ray, self._work, self._actor, self._count = ray, work, actor, count
        self._begin = ray.put(work.fn), check
        self._starting: dict[Any, Any] = {}
        self._ready: list[_Member] = []
        self._flying: dict[Any, _Given] = {}
        self._again: deque[tuple[Task, int]] = deque()
        self._lost = 0
        for handle in crew:
            self._hire(handle)
        for _ in range(count - len(crew)):
            self._hire(actor.remote())

    def run(self, stream: Iterator[Task]) -> Iterator[S]:
        """Everything that was kept."""
        while self._fill(stream) or self._flying:
            for result in self._collect():
                yield self._work.keep(result)

    def _fill(self, stream: Iterator[Task]) -> bool:
        """Give out tasks while a worker has fewer than two; False when there is none left to give."""
        while True:
            member = min(self._ready, key=lambda m: len(m.queue), default=None)
            if member is None or len(member.queue) >= 2 or len(self._flying) >= 2 * self._count:
                return True
            task, deaths = self._again.popleft() if self._again else (next(stream, None), 0)
            if task is None:
                return False
            given = _Given(task, deaths, member, member.handle.do.remote(task))
            member.queue.append(given)
            self._flying[given.ref] = given

    def _collect(self) -> Iterator[R]:
        """Wait for something to happen; yield what was made."""
        refs = [*self._starting, *self._flying]
        done, _ = self._ray.wait(refs, num_returns=1, timeout=PATIENCE)
        if not done and not self._ready:
            raise UserError(
                f"{self._work.label}: no worker of the Ray cluster was ready within {PATIENCE:.0f} s; "
                "see what it is busy with: ray status"
            )
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0) if done else ([], refs)
        for ref in done:
            if ref in self._starting:
                self._welcome(self._starting.pop(ref), ref)
            elif ref in self._flying:  # else its worker's death was seen to already
                yield from self._take(self._flying[ref])

    def _hire(self, handle: Any) -> None:
        self._starting[handle.begin.remote(*self._begin)] = handle

    def _welcome(self, handle: Any, ref: Any) -> None:
        """A worker has begun, or refused, or died over it."""
        try:
            refusal = self._get(ref)
        except self._ray.exceptions.RayError as e:
            self._lost += 1
            if self._lost > 2 * self._count + ATTEMPTS:
                raise UserError(f"{self._work.label}: workers die as they start ({line(e)}); see Ray's logs") from e
            self._hire(self._actor.remote())
        else:
            if refusal:
                raise UserError(refusal)
            self._ready.append(_Member(handle))

    def _take(self, given: _Given) -> Iterator[R]:
        try:
            result: R = self._get(given.ref)
        except self._ray.exceptions.RayError:
            yield from self._bury(given.member)
            return
        given.member.queue.remove(given)
        del self._flying[given.ref]
        yield result

    def _get(self, ref: Any) -> Any:
        """A result; what a stage raised is raised here as it was. Deaths are RayErrors."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as e:
            raise (e.cause if isinstance(e.cause, Exception) else e) from e

    def _bury(self, member: _Member) -> Iterator[R]:
        """A worker is dead: what it had finished counts, the oldest of the rest is charged, all of it is given anew."""
        self._ray.kill(member.handle)
        self._ready.remove(member)
        self._hire(self._actor.remote())
        charge = 1
        for given in member.queue:
            del self._flying[given.ref]
            try:
                yield self._get(given.ref)
            except self._ray.exceptions.RayError as e:
                deaths, charge = given.deaths + charge, 0
                if deaths >= ATTEMPTS:
                    raise UserError(
                        f"{self._work.label}: shard {given.task[0]:05d}: {deaths} workers died at it, the last of "
                        f"{line(e)}; too little memory, or a fault in its data; the same command goes on from here"
                    ) from e
                self._again.append((given.task, deaths))

    def leave(self) -> list[Any]:
        """The workers that go on to the next stage; those in the middle of something (after an error) are ended."""
        for member in self._ready:
            if member.queue:
                self._ray.kill(member.handle)
        return [*(m.handle for m in self._ready if not m.queue), *self._starting.values()]
