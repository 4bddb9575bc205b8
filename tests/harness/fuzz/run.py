"""The fuzzing harness: ``python -m tests.harness.fuzz.run --n 100000``; see `main` for its options.

Each target runs in a child process with a limit on memory (2 GiB above what it holds after importing); a watchdog kills
a child that stays at one input for too long. A child that dies is started again behind the input that killed it, so one
defect does not hide others. ``--only 123 --targets coco`` feeds in one input again, in the foreground.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tests.harness.fuzz.check import Target
from tests.harness.fuzz.mutate import numbered
from tests.harness.fuzz.targets import TARGETS

MEMORY = 2 * 2**30
CPU_LIMIT, WALL_LIMIT = 30.0, 300.0  # seconds at one input: computing, and in all (a blocked one computes nothing)
SCRATCH = "/dev/shm"
PACKAGES = ("ahp_toolkit", "annotation", "baselines", "benchmark")
KEEP = 20  # crashes of a target that are told in full


def make(name: str, folder: Path) -> Target:
    """The target, with its valid examples below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return TARGETS[name](folder)


# --- the child ------------------------------------------------------------------------------------------------------


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Child:
    """One stretch of inputs; what it finds is written out every second, so that a death loses little."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.name = args, args.child
        self.target = make(self.name, folder / "work")
        self.beat = os.open(folder / "beat", os.O_RDWR | os.O_CREAT)
        self.said = folder / f"said-{args.start}.json"
        self.kinds: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.crashes: list[tuple[int, str]] = []
        self.slow, self.slow_at, self.done, self.failed = 0.0, -1, args.start, 0

    def run(self) -> None:
        for n in range(min(20, self.args.stop)):  # lazy imports and buffers, before memory is limited
            self.one(n, count=False)
        self.kinds, self.reasons, self.crashes, self.failed = Counter(), Counter(), [], 0
        self.slow, self.base, self.rss = 0.0, _virtual(), _peak()
        resource.setrlimit(resource.RLIMIT_AS, (self.base + MEMORY, self.base + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        written, self.began = time.monotonic(), time.process_time()
        for n in range(self.args.start, self.args.stop):
            os.pwrite(self.beat, n.to_bytes(8, "little"), 0)
            self.one(n)
            self.done = n + 1
            if time.monotonic() - written > 1:
                if os.getppid() == 1:  # the harness is gone
                    return
                self.write()
                written = time.monotonic()
        self.write()

    def one(self, n: int, count: bool = True) -> None:
        begin = time.process_time()
        try:
            out = self.target.step(numbered(self.name, self.args.seed, n), count)
            self.kinds[out.kind] += 1
            self.reasons.update(out.reasons)
        except Exception as e:  # noqa: BLE001  whatever comes out is what is looked for
            self.kinds["crash"] += 1
            self.failed += 1
            if len(self.crashes) < KEEP:
                where = traceback.extract_tb(e.__traceback__)
                ours = [f for f in where if any(f"/{p}/" in f.filename for p in PACKAGES)] or where
                place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
                self.crashes.append((n, f"{place}: {type(e).__name__}: {str(e)[:200]}"))
        took = time.process_time() - begin
        if took > self.slow:
            self.slow, self.slow_at = took, n

    def write(self) -> None:
        said = {
            "start": self.args.start, "done": self.done, "kinds": self.kinds, "reasons": self.reasons,
            "crashes": self.crashes, "slow": self.slow, "slow_at": self.slow_at, "rss": _peak(), "base": self.rss,
            "cpu": time.process_time() - self.began,
        }  # fmt: skip
        temp = self.said.with_suffix(".tmp")
        temp.write_text(json.dumps(said))
        temp.replace(self.said)


# --- the parent -----------------------------------------------------------------------------------------------------


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _watch(child: subprocess.Popen[bytes], beat: Path) -> str:
    """Wait for a child; '' when it ended well, else how it died."""
    at, cpu, wall = b"", 0.0, time.monotonic()
    while child.poll() is None:
        time.sleep(0.2)
        now = beat.read_bytes() if beat.exists() else b""
        if now != at:
            at, cpu, wall = now, _cpu(child.pid), time.monotonic()
        elif at and (_cpu(child.pid) - cpu > CPU_LIMIT or time.monotonic() - wall > WALL_LIMIT):
            child.kill()
            child.wait()
            return "hang"
    code = child.returncode
    return "" if code == 0 else signal.Signals(-code).name if code < 0 else f"exit {code}"


def fuzz(name: str, count: int, seed: int) -> dict[str, Any]:
    """Run one target over ``count`` inputs; what it found."""
    found: dict[str, Any] = {"target": name, "kinds": Counter(), "reasons": Counter(), "crashes": [], "deaths": []}
    found |= {"inputs": 0, "slow": 0.0, "slow_at": -1, "rss": 0, "grown": 0, "cpu": 0.0}
    start = 0
    with tempfile.TemporaryDirectory(prefix="ahp-fuzz-", dir=SCRATCH if Path(SCRATCH).is_dir() else None) as temp:
        folder = Path(temp)
        env = {**os.environ, "TMPDIR": temp, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONHASHSEED": "0"}
        while start < count:
            (folder / "beat").unlink(missing_ok=True)
            command = [sys.executable, "-m", "tests.harness.fuzz.run", "--child", name, "--scratch", temp]
            command += ["--start", str(start), "--stop", str(count), "--seed", str(seed)]
            with (folder / "stderr").open("ab") as errors:
                child = subprocess.Popen(command, env=env, stdout=errors, stderr=errors)
                death = _watch(child, folder / "beat")
            said = folder / f"said-{start}.json"
            if said.exists():
                _add(found, json.loads(said.read_text()))
            if not death:
                break
            if not (folder / "beat").exists():
                raise SystemExit(f"{name}: the child died at its start: {(folder / 'stderr').read_text()[-2000:]}")
            at = int.from_bytes((folder / "beat").read_bytes(), "little")
            found["deaths"].append((at, death))
            found["inputs"] = max(found["inputs"], at + 1)
            start = at + 1
    return found


def _add(found: dict[str, Any], said: dict[str, Any]) -> None:
    found["kinds"].update(said["kinds"])
    found["reasons"].update(said["reasons"])
    found["crashes"] += said["crashes"]
    found["inputs"] = max(found["inputs"], said["done"])
    found["cpu"] += said["cpu"]
    found["rss"] = max(found["rss"], said["rss"])
    found["grown"] = max(found["grown"], said["rss"] - said["base"])
    if said["slow"] > found["slow"]:
        found["slow"], found["slow_at"] = said["slow"], said["slow_at"]


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """What two rounds of one target found."""
    out = {"target": a["target"], **{k: max(a[k], b[k]) for k in ("rss", "grown")}}
    out |= {k: a[k] + b[k] for k in ("kinds", "reasons", "crashes", "deaths", "inputs", "cpu")}
    worst = max((a, b), key=lambda r: r["slow"])
    return out | {k: worst[k] for k in ("slow", "slow_at")}


HEAD = (
    "target", "inputs", "inputs per CPU s", "accepted", "some dropped", "refused", "distinct reasons", "crashes",
    "hangs or deaths", "slowest input (CPU s)", "peak RSS (MB)", "grown by (MB)",
)  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """The fuzz table as Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for r in results:
        k = r["kinds"]
        cells = [r["target"], f"{r['inputs']:,}", f"{r['inputs'] / max(r['cpu'], 1e-9):,.0f}"]
        cells += [f"{k.get(n, 0):,}" for n in ("accepted", "dropped", "refused")]
        cells += [str(len(r["reasons"])), str(k.get("crash", 0)), str(len(r["deaths"]))]
        cells += [f"{r['slow']:.2f} (#{r['slow_at']})", f"{r['rss'] / 1e6:.0f}", f"{r['grown'] / 1e6:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    total = sum(r["inputs"] for r in results)
    bad = sum(r["kinds"].get("crash", 0) + len(r["deaths"]) for r in results)
    lines.append(f"\n{total:,} inputs in all, {bad} crashes, hangs or deaths.")
    return "\n".join(lines)


def defects(results: list[dict[str, Any]]) -> list[str]:
    """What was found, a line each; one example of each place."""
    out = []
    for r in results:
        seen: Counter[str] = Counter()
        for n, what in r["crashes"]:
            if seen[what.split(" ")[0]] < 2:
                out.append(f"{r['target']} #{n}: {what}")
            seen[what.split(" ")[0]] += 1
        out += [f"{r['target']} #{n}: {how}" for n, how in r["deaths"]]
    return out


def main() -> None:
    """The command line; exit status 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="inputs a target; slow targets take a share of it")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, with commas between")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round has its own")
    parser.add_argument("--rounds", type=int, default=1, help="all targets in turn, so often")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--only", type=int, help="feed in this one input again, in the foreground")
    for hidden in ("--child", "--scratch"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--start", "--stop"):
        parser.add_argument(hidden, type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("error", RuntimeWarning)
    if args.child:
        _Child(args, Path(args.scratch)).run()
        return
    if args.only is not None:
        with tempfile.TemporaryDirectory() as temp:
            target = make(args.targets, Path(temp))
            print(target.step(numbered(args.targets, args.seed, args.only), True))
        return
    found: dict[str, dict[str, Any]] = {}
    for seed in range(args.seed, args.seed + args.rounds):
        for name in args.targets.split(","):
            made = fuzz(name, max(1, round(args.n * TARGETS[name].share / args.rounds)), seed)
            made["crashes"] = [(f"{n} --seed {seed}", what) for n, what in made["crashes"]]
            made["deaths"] = [(f"{n} --seed {seed}", how) for n, how in made["deaths"]]
            found[name] = _joined(found[name], made) if name in found else made
            print(table([made]).splitlines()[2], *defects([made]), sep="\n", flush=True)
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                text = [table([*found.values()]), "", *(f"- {d}" for d in defects([*found.values()])), ""]
                args.out.write_text("\n".join(text))
    results = [*found.values()]
    print(table(results))
    sys.exit(bool(defects(results)))


if __name__ == "__main__":
    main()
