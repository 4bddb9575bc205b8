"""How a cell is struck: one point is one fault at one seeded place, and what came of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.faults import cells, child
from tests.harness.faults.cells import Cell, Digest, copy
from tests.harness.faults.child import Ended
from tests.harness.faults.shim import Plan

FAULTS = ("kill", "worker", "full", "io", "read", "corrupt", "log", "clock")
SAME, ERROR, FAILED = "same digest", "clear error", "FAILED"


@dataclass
class Stand:
    """A cell made ready: its state before, what an undisturbed run leaves, and how many events it has."""

    cell: Cell
    base: Path
    work: Path
    photos: Path
    wanted: Digest = field(default_factory=dict)
    events: int = 0
    pool_events: int = 0
    reads: int = 0

    @property
    def count_file(self) -> Path:
        return self.base.parent / "events"

    def fresh(self) -> None:
        """The state before the stage."""
        copy(self.base, self.work)
        cells.ACKS.unlink(missing_ok=True)

    def run(self, kind: str = "", at: int = 0) -> Ended:
        """One run, with a fault at event ``at`` if asked for."""
        root = self.photos if kind == "read" else self.work
        plan = Plan(root, self.count_file, kind, at) if kind else None
        work = self.cell.pooled if kind == "worker" or (kind == "count" and at < 0) else self.cell.work
        assert work is not None
        return child.run(
            work, self.work, self.base.parent, plan if at >= 0 else Plan(self.work, self.count_file, "worker", 0)
        )

    def counted(self) -> int:
        """Events of the last run."""
        return int(self.count_file.read_bytes()[:20].strip(b"\0") or b"0")

    def newest(self) -> Path | None:
        """The file that the last run put in its place last."""
        name = self.count_file.read_bytes()[20:].decode().strip()
        return Path(name) if name else None

    def ready(self) -> Stand:
        """Run undisturbed: what it leaves and its number of events."""
        self.fresh()
        ended = self.run("count")
        if ended.code:
            raise RuntimeError(f"{self.cell.name}: the undisturbed run ended with {ended.code}: {ended.said[-2000:]}")
        self.wanted, self.events = self.cell.end(self.work), self.counted()
        if self.cell.pooled is not None:
            self.fresh()
            ended = self.run("count", -1)
            if ended.code or self.cell.end(self.work) != self.wanted:
                raise RuntimeError(f"{self.cell.name}: with two workers: {ended.code} {ended.said[-2000:]}")
            self.pool_events = self.counted()
        return self


def strike(stand: Stand, fault: str, seed: int) -> tuple[str, str]:
    """One point: (what came of it, in words what happened)."""
    rng = random.Random(f"{stand.cell.name}/{fault}/{seed}")
    points: dict[str, Callable[[Stand, random.Random], tuple[str, str]]] = {
        "kill": _killed, "worker": _worker, "full": _full, "io": _io, "read": _read, "corrupt": _corrupt,
        "log": _log, "clock": _clock,
    }  # fmt: skip
    stand.fresh()
    try:
        return points[fault](stand, rng)
    finally:
        (stand.work / "ballast").unlink(missing_ok=True)


def _after(stand: Stand, words: str, error_will_do: bool = False) -> tuple[str, str]:
    """Run the same command again, undisturbed, and judge where it ends."""
    ended = stand.run()
    if error_will_do and ended.is_clear_error:
        return ERROR, f"{words}; then: {ended.said.strip()}"
    if ended.code:
        return FAILED, f"{words}; then {ended.code}: {ended.said.strip()[-800:]}"
    found = stand.cell.end(stand.work)
    if found == stand.wanted:
        return SAME, words
    wrong = sorted(k for k in found.keys() | stand.wanted.keys() if found.get(k) != stand.wanted.get(k))
    return FAILED, f"{words}; other content: {', '.join(wrong[:6])}"


def _killed(stand: Stand, rng: random.Random) -> tuple[str, str]:
    at = rng.randint(1, stand.events)
    ended = stand.run("kill", at)
    words = f"SIGKILL at event {at} of {stand.events}"
    return _after(stand, words) if ended.code == 137 else (FAILED, f"{words}: not killed, {ended.code} {ended.said}")


def _worker(stand: Stand, rng: random.Random) -> tuple[str, str]:
    at = rng.randint(1, stand.pool_events)
    ended = stand.run("worker", at)
    words = f"SIGKILL of a pool worker at event {at} of {stand.pool_events}"
    if not ended.is_clear_error:
        return FAILED, f"{words}: {ended.code} {ended.said[-800:]}"
    return _after(stand, words)


def _refused(stand: Stand, ended: Ended, words: str) -> tuple[str, str] | None:
    """A run that met an error must say so in one line, unless it did not matter."""
    if ended.is_clear_error:
        return None
    if ended.code == 0 and stand.cell.end(stand.work) == stand.wanted:
        return SAME, f"{words}: made no difference"
    return FAILED, f"{words}: {ended.code} {ended.said.strip()[-800:]}"


def _full(stand: Stand, rng: random.Random) -> tuple[str, str]:
    at = rng.randint(1, stand.events)
    words = f"disk full at event {at} of {stand.events}"
    ended = stand.run("full" if os.path.ismount(stand.work.parent) else "nospace", at)
    (stand.work / "ballast").unlink(missing_ok=True)
    return _refused(stand, ended, words) or _after(stand, words)


def _io(stand: Stand, rng: random.Random) -> tuple[str, str]:
    at = rng.randint(1, stand.events)
    words = f"EIO at event {at} of {stand.events}"
    return _refused(stand, stand.run("io", at), words) or _after(stand, words)


def _read(stand: Stand, rng: random.Random) -> tuple[str, str]:
    """A photo that cannot be read just now is not dropped for it."""
    if not stand.reads:
        stand.run("read")
        stand.reads = stand.counted()
        stand.fresh()
    at = rng.randint(1, max(1, stand.reads))
    words = f"EIO when file {at} of {stand.reads} is read"
    return _refused(stand, stand.run("read", at), words) or _after(stand, words)


def damage(path: Path, rng: random.Random) -> str:
    """Flip bytes of a file, cut it, or empty it; returns how."""
    data = bytearray(path.read_bytes())
    how = rng.choice(("flipped", "flipped", "cut", "emptied")) if data else "emptied"
    if how == "flipped":
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data if how == "flipped" else data[: rng.randrange(len(data))] if how == "cut" else b"")
    return f"{path.name} {how}"


def _corrupt(stand: Stand, rng: random.Random) -> tuple[str, str]:
    """The newest file of a killed run, or any file of a finished one."""
    if rng.random() < 0.5:
        at = rng.randint(1, stand.events)
        stand.run("kill", at)
        newest = stand.newest()
        if newest is not None and newest.is_file() and newest.suffix != ".html":
            return _after(stand, f"killed at event {at}, {damage(newest, rng)}", error_will_do=True)
        stand.fresh()
    stand.run()
    path = rng.choice(stand.cell.made(stand.work))
    return _after(stand, f"finished, {damage(path, rng)}", error_will_do=True)


def _log(stand: Stand, rng: random.Random) -> tuple[str, str]:
    """A log or a mark cut anywhere, of a killed or a finished run."""
    if rng.random() < 0.5:
        stand.run("kill", rng.randint(1, stand.events))
    else:
        stand.run()
    found = [p for p in stand.cell.written_logs(stand.work) if p.stat().st_size]
    if not found:
        stand.run()
        found = stand.cell.written_logs(stand.work)
    path = rng.choice(found)
    data = path.read_bytes()
    lines = [i + 1 for i, c in enumerate(data[:-1]) if c == 10]
    at = rng.choice(lines) if lines and rng.random() < 0.5 else rng.randrange(len(data))
    path.write_bytes(data[:at])
    return _after(stand, f"{path.name} cut at byte {at} of {len(data)}", error_will_do=True)


def _clock(stand: Stand, rng: random.Random) -> tuple[str, str]:
    """The clock goes back a year in the middle of a run, which is then killed; files carry times of the future."""
    stand.run("clock", rng.randint(1, stand.events)) if rng.random() < 0.5 else stand.run(
        "kill", rng.randint(1, stand.events)
    )
    now = time.time()
    files = [p for p in stand.work.rglob("*") if p.is_file()]
    for path in files:
        at = now + rng.uniform(-400, 400) * 86400
        os.utime(path, (at, at))
    ended = stand.run("clock", 1)
    if ended.code:
        return FAILED, f"clock back: {ended.code} {ended.said.strip()[-800:]}"
    return _after(stand, "clock back a year, file times shuffled")
