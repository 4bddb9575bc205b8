"""The points that are measured: what each needs first (not measured), and the work itself.

A point is ``stage/subject/size``: an annotation fraction for what reads a source's annotations, a number of humans for
the stages behind it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahp_toolkit.build import build
from ahp_toolkit.build.config import Config, Harvesting, Reviewing, read
from ahp_toolkit.core.records import SPLITS
from ahp_toolkit.runtime.engines import LocalEngine
from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import parquet
from tests.build.steps import config, made
from tests.harness.scale import generate, pictures

FRACTIONS = (0.01, 0.1, 1.0)
HUMANS = (1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Point:
    """One thing to measure, at one size."""

    stage: str
    subject: str
    size: float

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.subject}/{self.size:g}"

    @classmethod
    def of(cls, name: str) -> Point:
        stage, subject, size = name.split("/")
        return cls(stage, subject, float(size))


# -- what reads annotations -------------------------------------------------------------------------------------------
def _annotations(work: Path, p: Point) -> Path:
    root = work / "annotations" / f"{p.subject}-{p.size:g}"
    if not (root / "made.json").exists():
        generate.write(p.subject, root, p.size)
    return root


def _linked(work: Path, p: Point) -> Path:
    root = _annotations(work, p)
    mark = root / "photos.json"
    if not mark.exists():
        n, mean = pictures.link_all(root, pictures.photos_of(p.subject, root))
        mark.write_text(json.dumps({"photos": n, "bytes": mean}))
    return root


def _made(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "made.json").read_text()))


def _bare(work: Path, p: Point) -> dict[str, Any]:
    from tests.harness.bench import bench_harvest

    way = {"objects365": bench_harvest.bare_msgspec, "openimages": bench_harvest.bare_pyarrow}[p.subject]
    root = _annotations(work, p)
    return {"kept": way(root), **_made(root)}


def _scan(work: Path, p: Point) -> dict[str, Any]:
    root = _annotations(work, p)
    entries = sum(1 for _ in SOURCES.get(p.subject).scan(root, p.subject))
    return {"entries": entries, **_made(root)}


def _harvest(work: Path, p: Point, verify: bool = False) -> dict[str, Any]:
    root, out = _linked(work, p), work / "out" / p.name.replace("/", "-")
    shutil.rmtree(out, ignore_errors=True)
    counts = made(config(out, {p.subject: root}, harvest=Harvesting(verify=verify)), "harvest")["harvest"].counts
    said = {"humans": counts["out"], "persons": counts[f"persons/{p.subject}"], "photos": counts[f"images/{p.subject}"]}
    said |= {"table_bytes": _bytes(out / "harvest"), "files": _files(out / "harvest")}
    shutil.rmtree(out)
    return said | _made(root)


def _verified(work: Path, p: Point) -> dict[str, Any]:
    return _harvest(work, p, verify=True) | json.loads((_linked(work, p) / "photos.json").read_text())


# -- what works on humans ---------------------------------------------------------------------------------------------
def options(work: Path, n: int) -> Config:
    """The build of ``n`` humans."""
    out, roots = work / "builds" / str(n), {"coco": work / "people" / str(n)}
    return config(out, roots, harvest=Harvesting(verify=False), review=Reviewing("provisional"))


def build_upto(work: Path, n: int, last: str) -> Config:
    """The build of ``n`` humans with all stages up to ``last``; those that are up to date are left alone."""
    from tests.harness.scale.people import write_people

    c = options(work, n)
    root = c.sources["coco"].path
    if not (root / "made.json").exists():
        mean = write_people(root, n)
        (root / "made.json").write_text(json.dumps({"bytes": mean}))
    c.out.mkdir(parents=True, exist_ok=True)
    build.begin(c)
    for stage in ("harvest", "segment", "parse", "review", "splits"):
        made(c, stage)
        if stage == last:
            break
    return c


_BEFORE = {"segment": "harvest", "synth": "review", "materialize": "splits", "report": "splits"}


def _segment(work: Path, p: Point) -> dict[str, Any]:
    r = made(options(work, int(p.size)), "segment")["segment"]
    return {"humans": r.counts["out"], "table_bytes": _bytes(r.folder), "files": _files(r.folder)}


def _synth(work: Path, p: Point) -> dict[str, Any]:
    c = options(work, int(p.size))
    results = made(c, "splits")
    counts = [results[split].counts for split in SPLITS]
    folder = c.out / "splits"
    return {
        "humans": sum(n["in"] for n in counts),
        "samples": sum(n["out"] for n in counts),
        "table_bytes": _bytes(folder),
        "files": _files(folder),
    }


def _materialize(work: Path, p: Point) -> dict[str, Any]:
    from ahp_toolkit.stages.materialize import materialize

    out = options(work, int(p.size)).out
    done = materialize(out, read(out).roots, out, SPLITS, "crops", LocalEngine(1))
    # counted one by one: half a million paths at once are 200 MB
    crops = np.sum([_weighed(out / "splits" / split / "crops") for split in SPLITS], axis=0)
    humans = sum(parquet.count_records(out / "splits" / split / "humans") for split in SPLITS)
    samples = sum(r.counts.get("written", 0) for r in done)
    return {
        "humans": humans,
        "samples": samples,
        "pixel_bytes": int(crops[0]),
        "files": int(crops[1]),
    }


def _weighed(folder: Path) -> tuple[int, int]:
    """(bytes, files) of a folder."""
    size = files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            size, files = size + entry.stat().st_size, files + 1
    return size, files


def _report(work: Path, p: Point) -> dict[str, Any]:
    c = options(work, int(p.size))
    page = made(c, "report")["report"].folder / "index.html"
    return {"humans": parquet.count_records(c.out / "parse"), "page_bytes": page.stat().st_size}


def _network(work: Path, p: Point) -> dict[str, Any]:
    """A segmenting network on this machine's CPU, over the first humans of the smallest build, boxes only."""
    from dataclasses import replace

    from ahp_toolkit.core.records import Candidate
    from ahp_toolkit.stages.segment import Segment

    o = options(work, HUMANS[0])
    some = [c for c, _ in zip(parquet.read_records(o.out / "harvest", Candidate), range(int(p.size)), strict=False)]
    part = work / "network" / "part-00000.parquet"
    parquet.write_records(part, [replace(c, mask=None) for c in some], Candidate)
    weights = None if p.subject == "mask_rcnn" else _untrained(work)
    stage = Segment(p.subject, weights, "cpu", o.roots)
    out = stage([str(part)])
    return {"humans": len(some), "found": len(out.tables[""])}


def _untrained(work: Path) -> str:
    """A DeepLabV3+ of the paper's size with random weights: as fast as a trained one."""
    from dataclasses import asdict

    from ahp_toolkit.nets import checkpoints
    from ahp_toolkit.segmenters import deeplab

    path = work / "network" / "deeplab.pt"
    if not path.exists():
        net, _ = deeplab.net_of(deeplab.Arch())
        made = checkpoints.Checkpoint(asdict(deeplab.Arch()), net.state_dict(), {})
        checkpoints.save_checkpoint(path, deeplab.KIND, made)
    return str(path)


def _duplicates(work: Path, p: Point) -> dict[str, Any]:
    from ahp_toolkit.stages.deduplicate import find_duplicates

    found = find_duplicates(_photo_table(work, int(p.size)), {})
    return {"photos": int(p.size), "groups": len(found.group), "lost": len(found.lost)}


def _photo_table(work: Path, n: int) -> Path:
    """Photos of two sources with random hashes; a thousandth stands in both, every 5,000th is one plain picture."""
    import pyarrow as pa

    from ahp_toolkit.stages.harvest import Photo
    from ahp_toolkit.storage.parquet import schema_of

    folder = work / "photos" / str(n)
    if (folder / "part-00000.parquet").exists():
        return folder
    schema, plain = schema_of(Photo), np.random.default_rng(6).integers(0, 256, 264, np.uint8)
    for part, first in enumerate(range(0, n, 50_000)):
        k = np.arange(first, min(n, first + 50_000))
        data = np.random.default_rng([7, part]).integers(0, 256, (k.size, 264), np.uint8)
        twice = np.flatnonzero(k % 1000 == 999)
        data[twice] = data[twice - 1]
        data[k % 5000 == 17] = plain
        sources = [("coco", "openimages")[i % 2] for i in k.tolist()]
        names = [f"{s}/{i:012d}" for s, i in zip(sources, k.tolist(), strict=True)]
        columns = [names, sources, names, [d[:8].tobytes() for d in data], [d[8:].tobytes() for d in data]]
        counts = [np.ones(k.size, np.int64), np.zeros(k.size, np.int64)]
        table = pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip([*columns, *counts], schema, strict=True)], schema=schema
        )
        parquet.write_table(folder / f"part-{part:05d}.parquet", table)
    return folder


def _push(work: Path, p: Point) -> dict[str, Any]:
    from tests.harness.scale.review_app import push

    return push(work, int(p.size))


def _app(work: Path, p: Point) -> dict[str, Any]:
    from tests.harness.scale.review_page import opened

    return opened(work, int(p.size))


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _files(folder: Path) -> int:
    return sum(1 for f in folder.rglob("*") if f.is_file())


WORK: dict[str, Callable[[Path, Point], dict[str, Any]]] = {
    "bare": _bare,
    "scan": _scan,
    "harvest": _harvest,
    "verify": _verified,
    "duplicates": _duplicates,
    "segment": _segment,
    "network": _network,
    "synth": _synth,
    "materialize": _materialize,
    "report": _report,
    "push": _push,
    "app": _app,
}


def prepare(work: Path, p: Point) -> None:
    """Make what a point needs, and clear what it makes."""
    if p.stage in ("bare", "scan"):
        _annotations(work, p)
    elif p.stage in ("harvest", "verify"):
        _linked(work, p)
    elif p.stage == "duplicates":
        _photo_table(work, int(p.size))
    elif p.stage == "network":
        build_upto(work, HUMANS[0], "harvest")
        _untrained(work)
    elif p.stage in ("push", "app"):
        _prepare_review(work, p)
    else:
        _prepare_build(work, p)


def _prepare_review(work: Path, p: Point) -> None:
    from tests.annotation import tiny_build

    root, database = work / "review" / f"{p.size:g}", work / "review" / f"db-{int(p.size)}"
    if not (root / "build.json").exists():
        tiny_build.write(root, int(p.size), photos=40)
    if p.stage == "push":
        shutil.rmtree(database, ignore_errors=True)
    elif not database.exists():
        _push(work, p)


def _prepare_build(work: Path, p: Point) -> None:
    build_upto(work, int(p.size), _BEFORE[p.stage])
    out = options(work, int(p.size)).out
    clear = {"segment": ["segment"], "synth": ["splits"], "report": ["report"], "materialize": []}[p.stage]
    for name in clear:
        shutil.rmtree(out / name, ignore_errors=True)
    if p.stage == "materialize":
        for split in SPLITS:
            shutil.rmtree(out / "splits" / split / "crops", ignore_errors=True)
            shutil.rmtree(out / "splits" / split / ".crops.written", ignore_errors=True)


def points(quick: bool, full: bool) -> Iterator[Point]:
    """The points of a run, small ones first: ``quick`` for minutes, ``full`` with the largest."""
    n = 1 if quick else 3 if full else 2
    for k in range(n):
        for source in ("objects365", "openimages", "coco"):
            ways = ("scan", "harvest") if source == "coco" else ("bare", "scan", "harvest")
            yield from (Point(way, source, FRACTIONS[k]) for way in ways)
        if k == 0:
            yield Point("verify", "objects365", FRACTIONS[0])
            yield Point("network", "deeplab", 8 if quick else 32)
        for stage in ("segment", "synth", "materialize", "report"):
            yield Point(stage, "people", HUMANS[k])
        yield Point("duplicates", "photos", 20_000 * 10**k)
        yield from (Point(stage, "candidates", 1_000 * 10**k) for stage in ("push", "app"))
