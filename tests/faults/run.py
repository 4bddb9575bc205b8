"""``make faults``: every stage, every fault, 50 seeded points each; the table as Markdown and JSON.

Goes on where it was stopped: what stands in ``points.jsonl`` is not tried again. Disks are full for real where a small
tmpfs can be mounted (as root), else writes fail with ENOSPC from the seeded point on.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from . import cells
from .cells import Cell
from .strikes import ERROR, FAILED, FAULTS, SAME, Stand, strike

NEEDS = {"segment": "harvest", "parse": "segment", "review": "parse", "splits": "review"}
SIZE_MB = 48
MODULES = {
    "build": (
        "ahp_toolkit.stages.report", "ahp_toolkit.stages.plots", "ahp_toolkit.stages.exports.cocoa",
        "ahp_toolkit.stages.exports.webdataset",
    ),
    "review": ("annotation.session", "tests.review.tiny_build"),
    "bench": (
        "baselines.commands", "baselines.train", "baselines.predict", "baselines.models.pix2pix", "benchmark.commands",
        "benchmark.score", "tests.training.world", "torch.utils.tensorboard",
    ),
}  # fmt: skip
SCENES = 10
BENCH = ("train", "predict", "score")
READERS = ("harvest", "splits", "materialize", "report", "export cocoa", "export webdataset", *BENCH)
APP = "App session"
SHARD = 8  # items: a small world still has several shards a stage


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of its own at ``folder``; where none can be mounted the folder as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield folder
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def warm(group: str, folder: Path, sources: Path) -> None:
    """Import and compile in this process what a group's children will need, and no more: small processes fork fast."""
    import cv2

    cv2.setNumThreads(0)
    if group == "bench":
        import torch

        torch.set_num_threads(1)
    if group == "build":
        _warm_build(folder, sources)
    for name in MODULES[group]:
        importlib.import_module(name)


def _warm_build(folder: Path, sources: Path) -> None:
    import pyarrow as pa

    from ahp_toolkit.cli import ahp
    from ahp_toolkit.core.pipeline import Job

    pa.set_cpu_count(1)
    Job.size_of = lambda self, number: min(SHARD, self.shard_size)  # type: ignore[method-assign]
    if not (sources / "coco").exists():
        cells.world(sources, SCENES)
    here = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        ahp([*cells.build_args(sources), "--stop-after", "splits"], standalone_mode=False)
        ahp(["build", "export", "--root", "out", "--split", "val", "--format", "kins"], standalone_mode=False)
    finally:
        os.chdir(here)


class Bench:
    """The cells with their bases, made when they are first needed."""

    def __init__(self, home: Path, disk: Path) -> None:
        self.home, self.work = home, disk / "w"
        self.work.mkdir(parents=True, exist_ok=True)
        self.sources = home / "world"
        self._warm: set[str] = set()
        found = [*cells.build_cells(self.sources), cells.review_cell(), *cells.bench_cells()]
        self.cells: dict[str, Cell] = {c.name: c for c in found}
        self._stands: dict[str, Stand] = {}

    def has(self, name: str, fault: str) -> bool:
        """Whether a cell can meet a fault."""
        cell = self.cells[name]
        if fault == "read":
            return name in READERS
        return not (fault == "worker" and cell.pooled is None) and not (fault == "log" and not cell.logs)

    def group(self, name: str) -> str:
        """Which cells a cell is tried together with."""
        return "bench" if name in BENCH else "review" if name == "decisions" else "build"

    def stand(self, name: str) -> Stand:
        """A cell with its reference."""
        group = self.group(name)
        if group not in self._warm:
            warm(group, self.home / "warm", self.sources)
            self._warm.add(group)
        if name not in self._stands:
            photos = self.work / "b" if name in BENCH else self.sources
            self._stands[name] = Stand(self.cells[name], self._base(name), self.work, photos).ready()
        return self._stands[name]

    def _base(self, name: str) -> Path:
        """The state before a stage."""
        base = self.home / "base" / name.replace(" ", "_")
        if base.exists():
            shutil.rmtree(base)
        base.mkdir(parents=True)
        before = NEEDS.get(name, "splits" if name in ("materialize", "report") or "export" in name else None)
        bench = {"predict": "train", "score": "predict"}
        if name in bench:
            before = bench[name]
        if before is not None:
            stand = self.stand(before)
            stand.fresh()
            stand.run()
            cells.copy(self.work, base)
        elif name == "train":
            cells.copy(self.home / "empty", self.work) if (self.home / "empty").exists() else None
            for old in self.work.iterdir():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            cells.bench_base(self.work)  # roots are absolute paths: it is made where it is used
            cells.copy(self.work, base)
        elif name == "decisions":
            for old in self.work.iterdir():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            cells.review_base(self.work)
            cells.copy(self.work, base)
        return base


def points_of(path: Path) -> list[dict[str, object]]:
    """What was tried so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, object]]) -> str:
    """The fault table as Markdown: points tried: same digest / clear error / FAILED."""
    names = list(dict.fromkeys(str(r["stage"]) for r in rows))
    faults = [f for f in (*FAULTS, "database") if any(r["fault"] == f for r in rows)]
    found = Counter((r["stage"], r["fault"], r["end"]) for r in rows)
    lines = ["| stage | " + " | ".join(faults) + " |", "|---" * (len(faults) + 1) + "|"]
    for name in names:
        said = []
        for fault in faults:
            same, error, failed = (found[name, fault, end] for end in (SAME, ERROR, FAILED))
            tried = same + error + failed
            said.append(f"{tried}: {same} / {error} / {f'**{failed}**' if failed else 0}" if tried else "–")
        lines.append(f"| {name} | " + " | ".join(said) + " |")
    total = Counter(r["end"] for r in rows)
    words = f"{total[SAME]} ended with the same digests, {total[ERROR]} with one clear error, {total[FAILED]} FAILED."
    lines += ["", f"{len(rows)} points: {words}"]
    bad = [f"- {r['stage']}, {r['fault']}, seed {r['seed']}: {r['words']}" for r in rows if r["end"] == FAILED]
    return "\n".join([*lines, "", *bad]) + "\n"


def _note(log: Path, name: str, fault: str, seed: int, point: Callable[[int], tuple[str, str]]) -> None:
    begun = time.monotonic()
    end, words = point(seed)
    row = {"stage": name, "fault": fault, "seed": seed, "end": end, "words": words}
    with log.open("a") as f:
        f.write(json.dumps(row | {"s": round(time.monotonic() - begun, 2)}) + "\n")
    if end == FAILED:
        sys.stderr.write(f"{name}, {fault}, {seed}: {words}\n")


def main() -> int:
    """Run what is missing; exit status 1 when a point failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/faults"))
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--stage", action="append", help="only these")
    parser.add_argument("--fault", action="append", choices=[*FAULTS, "database"], help="only these")
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    log = given.out / "points.jsonl"
    done = {(r["stage"], r["fault"], r["seed"]) for r in points_of(log)}
    if given.fault != ["database"] and given.stage != [APP]:
        _cells(given, log, done)
    if (not given.fault or "database" in given.fault) and (not given.stage or APP in given.stage):
        _database(given, log, done)
    (given.out / "table.md").write_text(table(points_of(log)))
    rows = points_of(log)
    (given.out / "table.json").write_text(json.dumps(rows, indent=1))
    sys.stdout.write(table(rows))
    return int(any(r["end"] == FAILED for r in rows))


def _cells(given: argparse.Namespace, log: Path, done: set[tuple[object, ...]]) -> None:
    with small_disk(given.out / "disk") as disk:
        bench = Bench(given.out, disk)
        for group, seed in itertools.product(("review", "build", "bench"), range(given.points)):
            for name in (c for c in bench.cells if c in (given.stage or bench.cells) and bench.group(c) == group):
                for fault in (f for f in FAULTS if f in (given.fault or FAULTS)):
                    if (name, fault, seed) not in done and bench.has(name, fault):
                        _note(log, name, fault, seed, functools.partial(strike, bench.stand(name), fault))
            (given.out / "table.md").write_text(table(points_of(log)))


def _database(given: argparse.Namespace, log: Path, done: set[tuple[object, ...]]) -> None:
    from .database import database

    missing = [seed for seed in range(given.points) if (APP, "database", seed) not in done]
    if not missing:
        return
    with database(given.out / "database") as held:
        for seed in missing:
            _note(log, APP, "database", seed, held.strike)


if __name__ == "__main__":
    sys.exit(main())
