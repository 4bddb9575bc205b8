"""What a process and all its children cost: wall and CPU seconds, peak memory, bytes asked of and given to storage.

Memory is the sum of proportional set sizes over the tree (shared pages count once), sampled; CPU and bytes are the last
sample of each process, or what the process itself says at its end where that is more.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

EVERY_S = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
MARK = "SCALE-RESULT "


@dataclass
class Cost:
    """One measured run. ``asked``/``given``: bytes of read and write calls; ``disk_*``: what reached the storage."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    base_mb: float = 0.0
    asked: int = 0
    given: int = 0
    disk_read: int = 0
    disk_written: int = 0
    said: dict[str, Any] = field(default_factory=dict)


def io_of(pid: int | str) -> dict[str, int]:
    """The counters of /proc/PID/io; empty when the process is gone or is not ours."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return {}
    return {k: int(v) for k, _, v in (line.partition(": ") for line in lines)}


def pss_of(pid: int) -> int:
    """Proportional set size in bytes, 0 when the process is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def below(pid: int) -> list[int]:
    """A process and all its descendants, from the kernel's own lists (asking every process for its parent is dear)."""
    found = [pid]
    try:
        for p in found:
            for task in Path(f"/proc/{p}/task").glob("*/children"):
                found += map(int, task.read_text().split())
    except OSError:  # one ended while we looked
        return found
    return found


@dataclass
class Tree:
    """The processes below one: their counters as last seen, and the peak of their memory together."""

    root: int
    peak: int = 0
    cpu: dict[int, float] = field(default_factory=dict)
    io: dict[int, dict[str, int]] = field(default_factory=dict)

    def look(self) -> None:
        """Take one sample."""
        total = 0
        for pid in below(self.root):
            total += pss_of(pid)
            if io := io_of(pid):
                self.io[pid] = io
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            self.cpu[pid] = (int(stat[11]) + int(stat[12])) / _TICKS
        self.peak = max(self.peak, total)

    def sum(self, name: str) -> int:
        """One counter of /proc/PID/io over all processes."""
        return sum(io.get(name, 0) for io in self.io.values())


def measured(arguments: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Cost:
    """Run ``python -m arguments`` and watch its tree; it must end with a line that `report` prints.

    Raises:
        RuntimeError: when it fails, with the end of its log.
    """
    env = {**(env or os.environ), "PYTHONPATH": str(Path(__file__).parents[2])}  # found from any folder
    with log.open("w") as f:
        process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=f, stderr=subprocess.STDOUT, env=env)
        tree = Tree(process.pid)
        while process.poll() is None:
            tree.look()
            time.sleep(EVERY_S)
    lines = [x for x in log.read_text().splitlines() if x.startswith(MARK)]
    if process.returncode or not lines:
        raise RuntimeError(f"{' '.join(arguments)}: exit {process.returncode}\n{log.read_text()[-3000:]}")
    cost = Cost(**json.loads(lines[-1].removeprefix(MARK)))
    own = tree.root
    others = {n: sum(io.get(n, 0) for p, io in tree.io.items() if p != own) for n in _COUNTERS.values()}
    cost.cpu_s += sum(s for p, s in tree.cpu.items() if p != own)
    for name, counter in _COUNTERS.items():
        setattr(cost, name, getattr(cost, name) + others[counter])
    cost.peak_mb = max(cost.peak_mb, tree.peak / 1e6)
    return cost


_COUNTERS = {"asked": "rchar", "given": "wchar", "disk_read": "read_bytes", "disk_written": "write_bytes"}


def report(work: Callable[[], dict[str, Any]]) -> None:
    """Run ``work`` in this process and print what it cost from its first call on, for `measured`."""
    before, base = io_of("self"), pss_of(os.getpid()) / 1e6
    start, cpu = time.perf_counter(), time.process_time()
    said = work()
    cost = Cost(time.perf_counter() - start, time.process_time() - cpu, base_mb=base, said=said)
    after = io_of("self")
    for name, counter in _COUNTERS.items():
        setattr(cost, name, after.get(counter, 0) - before.get(counter, 0))
    cost.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(MARK + json.dumps(asdict(cost)), flush=True)
