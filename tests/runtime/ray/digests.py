"""Builds made by both engines, the digest of each table beside the other's: ``make ray``.

``python -m tests.runtime.ray.digests [--scenes N] [--source NAME=ROOT ...] [--workers N] [--out DIR]``. The sample
world, and
the data roots given, are built from scratch by ``--engine local`` and by ``--engine ray`` (a cluster of this machine);
the table goes to stdout and to DIR/RAY.md. Status 1 where any file differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ahp_toolkit.core import hashing
from ahp_toolkit.sample_world import write_world

ENGINES = ("local", "ray")
#: What the sample world is written as.
SOURCES = ("coco", "voc_sbd", "lip", "objects365", "openimages")
#: Files that say how long it took and who writes; all others are to be the same.
MEASURED = ("timing.json", ".lock")


@dataclass(frozen=True)
class Row:
    """One table of a build: its Parquet files together."""

    stage: str
    split: str
    files: int
    rows: int
    local: str
    ray: str


def words(roots: Mapping[str, Path], out: Path, engine: str, workers: int) -> list[str]:
    """The command line of a build."""
    sources = [w for name, root in roots.items() for w in ("--source", f"{name}={root}")]
    how = ("--review", "provisional", "--workers", workers, "--engine", engine, "-q")
    return [str(w) for w in ("build", *sources, "--out", out, *how)]


def in_world(world: Path) -> dict[str, Path]:
    """The sample world's data roots by their sources."""
    return {name: world / name for name in SOURCES}


def contents(build: Path) -> dict[str, str]:
    """Digest of every file that is to be the same, by its path in the build."""
    found = (p for p in sorted(build.rglob("*")) if p.is_file() and p.name not in MEASURED)
    return {p.relative_to(build).as_posix(): hashing.digest_file(p) for p in found}


def differing(local: Path, ray: Path) -> list[str]:
    """Files that one build has and the other has not, or has otherwise."""
    one, other = contents(local), contents(ray)
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


def tables(local: Path, ray: Path) -> Iterator[Row]:
    """Every table of two builds, in the order of their paths; reports only draw what the other tables say."""
    made = {p.relative_to(build) for build in (local, ray) for p in build.rglob("*.parquet")}
    keys = sorted({(p.parent, p.name == "dropped.parquet") for p in made if p.parts[0] != "report"})
    for folder, dropped in keys:
        stage, *rest = folder.parts
        one, other = (
            sorted(p for p in (build / folder).glob("*.parquet") if (p.name == "dropped.parquet") == dropped)
            for build in (local, ray)
        )
        count = sum(pq.read_metadata(p).num_rows for p in one)
        split = "/".join([*rest, *(["dropped"] if dropped else [])])
        yield Row(stage, split, len(one), count, hashing.digest_files(one), hashing.digest_files(other))


def markdown(data: str, local: Path, ray: Path) -> str:
    """The comparison of two builds of ``data``."""
    lines = [
        f"## {data}\n",
        "| stage | split, table | files | rows | digest local | digest ray | equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in tables(local, ray):
        equal = "yes" if r.local == r.ray else "**no**"
        lines.append(f"| {r.stage} | {r.split} | {r.files} | {r.rows:,} | {r.local[:12]} | {r.ray[:12]} | {equal} |")
    other = differing(local, ray)
    said = f"different: {', '.join(other)}" if other else "all the same"
    return "\n".join([*lines, f"\nAll {len(contents(local))} files (tables, stage marks, report, pictures): {said}.\n"])


def machine() -> str:
    """What the builds ran on."""
    info = Path("/proc/cpuinfo")
    named = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores ({named[0] if named else platform.machine()}), Python {platform.python_version()}"


def main() -> int:
    """Build, compare, write."""
    import ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--source", action="append", default=[], metavar="NAME=ROOT")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/ray"))
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    write_world(given.out / "world", seed=0, scenes=given.scenes)
    data = {f"Sample world: {given.scenes} scenes, {', '.join(SOURCES)}": in_world(given.out / "world")}
    if given.source:
        roots = {name: Path(root) for name, _, root in (s.partition("=") for s in given.source)}
        data[", ".join(f"{root.name} ({name})" for name, root in roots.items())] = roots
    text = (
        "# The same bytes on Ray\n\n"
        f"Made by `make ray` on {machine()}, Ray {ray.__version__}. Each build from scratch, once by `--engine local` "
        "and\n"
        f"once by `--engine ray` (one node), with {given.workers} workers each, `--review provisional`, masks of the "
        "sources.\nA digest is the first 12 of 64 hex digits of sha256 over names and contents of a table's files. "
        f"Left out are\n{' and '.join(MEASURED)}, which hold seconds and processes.\n"
    )
    fine = True
    for number, (name, roots) in enumerate(data.items()):
        local, on_ray = (given.out / f"{number}-{engine}" for engine in ENGINES)
        for engine, out in zip(ENGINES, (local, on_ray), strict=True):
            command = [sys.executable, "-m", "ahp_toolkit.cli.main", *words(roots, out, engine, given.workers)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        text += "\n" + markdown(name, local, on_ray)
        fine = fine and not differing(local, on_ray)
    (given.out / "RAY.md").write_text(text)
    print(text)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
