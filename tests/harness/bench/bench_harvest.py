"""Scan of Objects365 and Open Images against bare parsers and peers, in one run, and memory at two sizes.

``python tests/harness/bench/bench_harvest.py [MB] [turns]``: two generated files of about MB (default 150) each.
Every figure
is of a child process, after its imports: CPU seconds (user and system, all threads) and wall seconds, median over turns
in which the ways alternate, and the child's peak memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.bench import scale_files

CHUNK = 16 * 2**20
BYTES_A_BOX, BOXES_AN_IMAGE, BYTES_A_ROW = 195, 15, 157
JSON_NAME, CSV_NAME = "zhiyuan_objv2_train.json", "oidv6-train-annotations-bbox.csv"


def _scan(source: str) -> Callable[[Path], int]:
    def run(root: Path) -> int:
        import importlib

        module = importlib.import_module(f"ahp_toolkit.sources.{source}")
        return sum(1 for _ in module.scan(root))

    return run


def _list_of(path: Path, key: bytes, decoder: object) -> object:
    """The floor's chunking: find the key, cut at the last brace, stop at the list's end; right for this layout only."""
    with path.open("rb") as f:
        rest = b""
        while key not in rest:
            rest = rest[-64:] + f.read(CHUNK)
        rest = rest[rest.index(key) + len(key) :]
        while True:
            stop = rest.find(b"}]")
            if stop >= 0:
                yield decoder.decode(b"[" + rest[: stop + 1] + b"]")  # type: ignore[attr-defined]
                return
            stop = rest.rfind(b"}")
            yield decoder.decode(b"[" + rest[: stop + 1].lstrip(b",") + b"]")  # type: ignore[attr-defined]
            rest = rest[stop + 1 :].lstrip(b",") + f.read(CHUNK)


def bare_msgspec(root: Path) -> int:
    """Chunked typed msgspec in two passes (images, annotations): humans that are not crowd, fake or reflected."""
    import msgspec

    class Image(msgspec.Struct, gc=False):
        id: int
        file_name: str

    class Annotation(msgspec.Struct, gc=False):
        id: int
        image_id: int
        category_id: int
        bbox: tuple[float, float, float, float]
        iscrowd: int = 0
        isfake: int = 0
        isreflected: int = 0

    path = root / JSON_NAME
    names, kept = {}, []
    for images in _list_of(path, b'"images":[', msgspec.json.Decoder(list[Image])):  # type: ignore[attr-defined]
        names.update({i.id: i.file_name for i in images})
    for found in _list_of(path, b'"annotations":[', msgspec.json.Decoder(list[Annotation])):  # type: ignore[attr-defined]
        kept += [a for a in found if a.category_id == 1 and not (a.iscrowd or a.isfake or a.isreflected)]
    return len(kept)


def json_load(root: Path) -> int:
    with (root / JSON_NAME).open("rb") as f:
        data = json.load(f)
    names = {i["id"]: i["file_name"] for i in data["images"]}
    kept = [a for a in data["annotations"] if a["category_id"] == 1 and not (a["iscrowd"] or a["isfake"])]
    return len(kept) + 0 * len(names)


def pycocotools(root: Path) -> int:
    from pycocotools.coco import COCO

    return len(COCO(str(root / JSON_NAME)).getAnnIds(catIds=[1], iscrowd=False))


_COLUMNS = ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsOccluded", "IsTruncated", "IsGroupOf",
            "IsDepiction", "IsInside"]  # fmt: skip


def bare_pyarrow(root: Path) -> int:
    """The dataset reader with its filter: five MIDs, no group, no depiction."""
    import pyarrow.dataset as ds
    from pyarrow.dataset import field

    wanted = field("LabelName").isin(list(scale_files.PERSON_MIDS))
    wanted &= (field("IsGroupOf") != 1) & (field("IsDepiction") != 1)
    return int(ds.dataset(root / CSV_NAME, format="csv").to_table(columns=_COLUMNS, filter=wanted).num_rows)


def bare_polars(root: Path) -> int:
    import polars as pl

    wanted = pl.col("LabelName").is_in(scale_files.PERSON_MIDS)
    wanted &= (pl.col("IsGroupOf") != 1) & (pl.col("IsDepiction") != 1)
    return len(pl.scan_csv(root / CSV_NAME).filter(wanted).select(_COLUMNS).collect(engine="streaming"))


def pandas_full(root: Path) -> int:
    import pandas as pd

    table = pd.read_csv(root / CSV_NAME)
    return int(table["LabelName"].isin(scale_files.PERSON_MIDS).sum())


def stdlib_csv(root: Path) -> int:
    import csv

    with (root / CSV_NAME).open(newline="") as f:
        return sum(row["LabelName"] in scale_files.PERSON_MIDS for row in csv.DictReader(f))


WAYS: dict[str, Callable[[Path], int]] = {
    "scan objects365": _scan("objects365"),
    "bare chunked typed msgspec": bare_msgspec,
    "json.load": json_load,
    "pycocotools": pycocotools,
    "scan openimages": _scan("openimages"),
    "bare pyarrow dataset": bare_pyarrow,
    "bare polars streaming": bare_polars,
    "pandas read_csv": pandas_full,
    "stdlib csv": stdlib_csv,
}
BARE, PEER = 1.5, 1 / 3  # at most this much of the time of a bare parser, of a peer
JSON_TARGETS = {"bare chunked typed msgspec": BARE, "json.load": PEER, "pycocotools": PEER}
CSV_TARGETS = {
    "bare pyarrow dataset": BARE, "bare polars streaming": BARE, "pandas read_csv": PEER, "stdlib csv": PEER
}  # fmt: skip
PEAK_MB, FLAT = 1000.0, 1.2
_PRELOAD = {
    "scan objects365": "ahp_toolkit.sources.objects365",
    "scan openimages": "ahp_toolkit.sources.openimages",
    "bare chunked typed msgspec": "msgspec",
    "pycocotools": "pycocotools.coco",
    "bare pyarrow dataset": "pyarrow.dataset",
    "bare polars streaming": "polars",
    "pandas read_csv": "pandas",
}


def child(way: str, root: Path) -> None:
    """Run one way and say how long it took, how much memory, and what it found."""
    if way in _PRELOAD:
        __import__(_PRELOAD[way])
    start, cpu = time.perf_counter(), time.process_time()
    found = WAYS[way](root)
    spent = [time.process_time() - cpu, time.perf_counter() - start]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT", json.dumps([*spent, peak, found]))


def measure(way: str, root: Path) -> list[float]:
    """CPU seconds, wall seconds, peak MB and what was found, of one run of a way."""
    out = subprocess.run(
        [sys.executable, __file__, "--child", way, str(root)], check=True, capture_output=True, text=True
    )
    line = next(x for x in out.stdout.splitlines() if x.startswith("RESULT"))
    return list(json.loads(line.removeprefix("RESULT")))


def _word(passed: bool) -> str:
    return "PASS" if passed else "miss"


def _compare(small: Path, large: Path, scan: str, targets: dict[str, float], times: int) -> None:
    """A table of one source: ratios to every other way with their targets, and peak memory at both sizes."""
    rows: dict[str, list[list[float]]] = {way: [] for way in (scan, *targets)}
    for _ in range(times):  # in turns, so that a busy minute of the machine hits all of them
        for way, found in rows.items():
            found.append(measure(way, small))
    middle = {way: [statistics.median(column) for column in zip(*found, strict=True)] for way, found in rows.items()}
    cpu, wall, peak, _ = middle[scan]
    print(f"  {'':28} {'CPU s':>7} {'wall s':>7} {'MB':>6}   scan / this: CPU  wall")
    print(f"  {scan:28} {cpu:7.2f} {wall:7.2f} {peak:6.0f}")
    for way, target in targets.items():
        c, w, mb, _ = middle[way]
        word = _word(cpu / c <= target)
        print(f"  {way:28} {c:7.2f} {w:7.2f} {mb:6.0f} {cpu / c:18.2f} {wall / w:5.2f}   CPU <= {target:.2f}: {word}")
    at_large = measure(scan, large)[2]
    print(f"  peak {peak:.0f} MB, at twice the size {at_large:.0f} MB   < {PEAK_MB:.0f} MB: {_word(at_large < PEAK_MB)}"
          f"   flat (<= {FLAT} times): {_word(at_large / peak <= FLAT)}")  # fmt: skip


def main(size_mb: float = 150.0, times: float = 3) -> None:
    """Print ratios and peaks for files of ``size_mb`` and twice that."""
    with tempfile.TemporaryDirectory() as temp:
        small, large = Path(temp) / "1", Path(temp) / "2"
        for root, factor in ((small, 1), (large, 2)):
            root.mkdir()
            boxes = int(factor * size_mb * 1e6 / BYTES_A_BOX)
            scale_files.write_objects365_json(root / JSON_NAME, boxes // BOXES_AN_IMAGE, boxes)
            scale_files.write_openimages_csv(root / CSV_NAME, int(factor * size_mb * 1e6 / BYTES_A_ROW))
        print("The bare parsers and peers read the same columns and filter the human rows; a scan also groups the rows")
        print("by photo, keeps every neighbour of a human, checks each field, and tells a cut file.")
        print(f"Objects365, {(small / JSON_NAME).stat().st_size / 1e6:.0f} MB")
        _compare(small, large, "scan objects365", JSON_TARGETS, int(times))
        print(f"Open Images, {(small / CSV_NAME).stat().st_size / 1e6:.0f} MB")
        _compare(small, large, "scan openimages", CSV_TARGETS, int(times))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main(*map(float, sys.argv[1:2]))
