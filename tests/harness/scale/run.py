"""``make scale``: measure every stage at growing sizes, each point in a process of its own; resumable point by point.

``python -m tests.harness.scale.run [--quick | --full] [--out DIR] [--work DIR] [--only TEXT ...] [--again]``. A
point that
stands in ``DIR/points`` is not measured again. At the end: ``points.json``, ``points.csv``, ``cost.json``, plots as PNG
and one HTML page.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.harness.scale import measure
from tests.harness.scale.points import WORK, Point, points, prepare

#: Annotation file, links and temporary index of the full Objects365; tables and crops of 100,000 humans.
NEEDS_GB = {"quick": 3, "": 8, "full": 30}
_SAID = ("humans", "persons", "photos", "entries", "kept", "boxes", "images", "bytes", "samples", "table_bytes",
         "pixel_bytes", "files", "found", "groups", "candidates", "seconds", "mongo_mb", "mongo_disk",
         "session_mb", "ready_s", "first_s", "key_ms", "worst_key_ms", "grid_s", "server_mb")  # fmt: skip


def child(name: str, work: Path) -> None:
    """Measure one point in this process; imports come first and are not counted as time."""
    point = Point.of(name)
    measure.report(lambda: WORK[point.stage](work, point))


def one(name: str, work: Path, log: Path) -> dict[str, Any]:
    """Prepare and measure one point, each in a process of its own (a crash of one costs only itself)."""
    measure.measured(["tests.harness.scale.run", "--prepare", name, "--work", str(work)], log)
    cost = measure.measured(["tests.harness.scale.run", "--point", name, "--work", str(work)], log)
    p = Point.of(name)
    return {"name": name, "stage": p.stage, "subject": p.subject, "size": p.size} | asdict(cost)


def gather(out: Path) -> list[dict[str, Any]]:
    """All points that have been measured, in the order of stage, subject and size."""
    found = [json.loads(f.read_text()) for f in (out / "points").glob("*.json")]
    return sorted(found, key=lambda r: (list(WORK).index(r["stage"]), r["subject"], r["size"]))


def write_tables(found: list[dict[str, Any]], out: Path) -> None:
    """``points.json`` and ``points.csv``."""
    about = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    (out / "points.json").write_text(json.dumps({"about": about, "points": found}, indent=1))
    plain = ["name", "stage", "subject", "size", "wall_s", "cpu_s", "peak_mb", "base_mb"]
    plain += ["asked", "given", "disk_read", "disk_written"]
    with (out / "points.csv").open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow([*plain, *_SAID])
        for r in found:
            row = [round(r[c], 3) if isinstance(r[c], float) else r[c] for c in plain]
            writer.writerow([*row, *(r["said"].get(c, "") for c in _SAID)])


def _room(work: Path, kind: str) -> None:
    free = shutil.disk_usage(work).free / 1e9
    if free < NEEDS_GB[kind]:
        raise SystemExit(f"{work}: {free:.0f} GB are free, about {NEEDS_GB[kind]} GB are needed; give another --work")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the smallest sizes, a few minutes")
    size.add_argument("--full", action="store_true", help="full annotation files and 100,000 humans, hours")
    parser.add_argument("--out", type=Path, default=Path("out/scale"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ahp-scale")
    parser.add_argument("--only", nargs="*", default=[], help="points whose name holds one of these; any size")
    parser.add_argument("--again", action="store_true", help="measure anew what has been measured")
    parser.add_argument("--keep", action="store_true", help="leave the generated data in --work")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    return parser.parse_args()


def _chosen(a: argparse.Namespace) -> list[Point]:
    named = [Point.of(x) for x in a.only if x.count("/") == 2]
    if named:
        return named
    return [p for p in points(a.quick, a.full) if not a.only or any(x in p.name for x in a.only)]


def main() -> None:
    """Measure, then write tables, costs and plots."""
    a = _arguments()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.prepare:
        measure.report(lambda: prepare(a.work, Point.of(a.prepare)) or {})
        return
    if a.point:
        child(a.point, a.work)
        return
    kind = "quick" if a.quick else "full" if a.full else ""
    _room(a.work, kind)
    (a.out / "points").mkdir(parents=True, exist_ok=True)
    failed = []
    for p in _chosen(a):
        to = a.out / "points" / f"{p.name.replace('/', '-')}.json"
        if to.exists() and not a.again:
            continue
        try:
            r = one(p.name, a.work, to.with_suffix(".log"))
        except RuntimeError as e:
            failed.append(p.name)
            print(e, file=sys.stderr)
            continue
        to.write_text(json.dumps(r))
        print(f"{p.name}: {r['wall_s']:.1f} s, {r['cpu_s']:.1f} s CPU, {r['peak_mb']:.0f} MB {r['said']}", flush=True)
    if not a.keep:
        shutil.rmtree(a.work)
    _finish(a.out)
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def _finish(out: Path) -> None:
    from tests.harness.scale import cost, plots

    found = gather(out)
    write_tables(found, out)
    plan = cost.plan(cost.rates(found))
    (out / "cost.json").write_text(json.dumps(plan, indent=1))
    print(cost.text(plan))
    print(plots.write(found, plan, out))


if __name__ == "__main__":
    main()
