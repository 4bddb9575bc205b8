"""COCO's scan against the floor (bare typed msgspec over the same file) and against json.load: time and peak memory.

    python -m tests.harness.bench.bench_coco [megabytes]

The file is made in a temporary folder: official layout, annotations in no order of images, about 540 bytes each. Every
way runs in a process of its own, three times; the median is shown.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from ahp_toolkit.sources import coco

PER_IMAGE = 7


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    iscrowd: int
    bbox: tuple[float, float, float, float]
    segmentation: msgspec.Raw


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[dict[str, str | int]]


def make(root: Path, megabytes: int) -> Path:
    """Write an instances file of about ``megabytes`` MB."""
    rng = np.random.default_rng(0)
    number = megabytes * 1_000_000 // 575
    images = max(1, number // PER_IMAGE)
    owner = rng.integers(1, images + 1, number).tolist()
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True)
    outlines = [np.round(rng.uniform(0, 480, 2 * int(rng.integers(6, 55))), 2).tolist() for _ in range(997)]
    with path.open("w") as f:
        f.write('{"info": {}, "licenses": [{"id": 1, "name": "BY"}], "images": [')
        f.write(", ".join(json.dumps(_image(n)) for n in range(1, images + 1)))
        f.write('], "annotations": [')
        for n, image in enumerate(owner):
            f.write((", " if n else "") + json.dumps(_annotation(n, image, outlines[n % len(outlines)])))
        f.write('], "categories": [{"supercategory": "person", "id": 1, "name": "person"}]}')
    return path


def _image(n: int) -> dict[str, object]:
    flickr = f"http://farm1.staticflickr.com/1/{n}_0_z.jpg"
    return {"license": 1, "file_name": f"{n:012d}.jpg", "height": 480, "width": 640, "flickr_url": flickr, "id": n}


def _annotation(n: int, image: int, outline: list[float]) -> dict[str, object]:
    head = {"segmentation": [outline], "area": 702.1057499999998, "iscrowd": 0, "image_id": image}
    return {**head, "bbox": [473.07, 395.93, 38.65, 28.67], "category_id": 1, "id": n + 1}


def bare(path: Path) -> int:
    """The floor: decode the file into typed structs, outlines raw."""
    return len(msgspec.json.decode(path.read_bytes(), type=_File).annotations)


def scan(path: Path) -> int:
    """What the toolkit does: index, group by photo, one picklable entry a photo."""
    return sum(len(e.payload.annotations) for e in coco.scan(path.parents[1]))


def plain(path: Path) -> int:
    """The usual way."""
    with path.open() as f:
        return len(json.load(f)["annotations"])


def _measure(way: Callable[[Path], int], path: Path, pipe: multiprocessing.connection.Connection) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    count = way(path)
    seconds = time.perf_counter() - start
    pipe.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, count))


def measured(way: Callable[[Path], int], path: Path) -> tuple[float, float, int]:
    """(s, MB of peak memory above the start, annotations) of one run in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure, args=(way, path, there))
    process.start()
    result = here.recv()
    process.join()
    return result


def main() -> None:
    """Print the ratios."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder), megabytes)
        size = path.stat().st_size / 1e6
        rows = {}
        for way in (bare, scan, plain):
            runs = [measured(way, path) for _ in range(3)]
            rows[way.__name__] = tuple(statistics.median(r[i] for r in runs) for i in range(3))
        assert len({r[2] for r in rows.values()}) == 1
    print(f"COCO instances file of {size:.0f} MB, {int(rows['bare'][2])} annotations")
    for name, (seconds, memory, _) in rows.items():
        print(f"{name:6} {seconds:7.3f} s  {seconds / rows['bare'][0]:5.2f} x bare  peak {memory:6.0f} MB")


if __name__ == "__main__":
    main()
