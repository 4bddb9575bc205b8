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

from ahp_toolkit.export.formats import FORMATS
from tests.harness.faults import cells, networks, reviewed
from tests.harness.faults.cells import Cell
from tests.harness.faults.strikes import ERROR, FAILED, FAULTS, SAME, Stand, strike

SIZE_MB = 48
MODULES = {
    "build": (
        "ahp_toolkit.report.page", "ahp_toolkit.report.plots", "annotation.exchange.commands",
        "ahp_toolkit.decisions.votes",
        *(f"ahp_toolkit.export.formats.{name}" for name in FORMATS.names()),
    ),
    "review": ("annotation.session.session", "tests.annotation.tiny_build", *reviewed.MODULES),
    "networks": networks.MODULES,
    "bench": (
        "baselines.commands", "baselines.training.train", "baselines.inference.predict", "baselines.models.pix2pix",
        "benchmark.commands",
        "benchmark.grading.score", "benchmark.boards.report", "tests.baselines.training.world",
        "torch.utils.tensorboard",
        "ahp_toolkit.cli.bench.paper_commands", "ahp_toolkit.cli.bench.paper_page", "baselines.inference.complete",
        "baselines.data.people",
    ),
}  # fmt: skip
SCENES = 10
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
    if group in ("bench", "networks"):
        import torch

        torch.set_num_threads(1)
    if group in ("build", "networks"):
        _warm_build(folder, sources)
    for name in MODULES[group]:
        importlib.import_module(name)
    if group == "review":
        reviewed.warm(folder / "review")
    if group == "networks":
        networks.shrink()
    if group == "bench":
        networks.shrink_paper()


def _warm_build(folder: Path, sources: Path) -> None:
    import pyarrow as pa

    from ahp_toolkit.cli.main import ahp
    from ahp_toolkit.runtime.stage import Job

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
        found = [
            cells.review_cell(), *reviewed.review_cells(), *cells.build_cells(self.sources), *reviewed.compose_cells(),
            *networks.trainer_cells(self.sources), networks.resegment_cell(), *cells.bench_cells(),
            *networks.bench_more_cells(),
        ]  # fmt: skip
        self.cells: dict[str, Cell] = {c.name: c for c in found}
        self._stands: dict[str, Stand] = {}

    def has(self, name: str, fault: str) -> bool:
        """Whether a cell can meet a fault."""
        cell = self.cells[name]
        if fault == "read":
            return cell.reads
        if fault in ("corrupt", "log") and cell.single:
            return False
        return not (fault == "worker" and cell.pooled is None) and not (fault == "log" and not cell.logs)

    def stand(self, name: str) -> Stand:
        """A cell with its reference."""
        cell = self.cells[name]
        if cell.group not in self._warm:
            warm(cell.group, self.home / "warm", self.sources)
            self._warm.add(cell.group)
        if name not in self._stands:
            photos = self.work / cell.photos if cell.photos else self.sources
            self._stands[name] = Stand(cell, self._base(cell), self.work, photos).ready()
        return self._stands[name]

    def _base(self, cell: Cell) -> Path:
        """The state before a stage."""
        base = self.home / "base" / cell.name.replace(" ", "_")
        if cell.before:
            stand = self.stand(cell.before)
            stand.fresh()
            stand.run()
        else:
            cells.clear(self.work)
        if cell.prepare is not None:
            cell.prepare(self.work)
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
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
        for group, seed in itertools.product(("review", "build", "networks", "bench"), range(given.points)):
            for name in (c for c in bench.cells if c in (given.stage or bench.cells) and bench.cells[c].group == group):
                for fault in (f for f in FAULTS if f in (given.fault or FAULTS)):
                    if (name, fault, seed) not in done and bench.has(name, fault):
                        _note(log, name, fault, seed, functools.partial(strike, bench.stand(name), fault))
            (given.out / "table.md").write_text(table(points_of(log)))


def _database(given: argparse.Namespace, log: Path, done: set[tuple[object, ...]]) -> None:
    from tests.harness.faults.database import database

    missing = [seed for seed in range(given.points) if (APP, "database", seed) not in done]
    if not missing:
        return
    with database(given.out / "database") as held:
        for seed in missing:
            _note(log, APP, "database", seed, held.strike)


if __name__ == "__main__":
    sys.exit(main())
