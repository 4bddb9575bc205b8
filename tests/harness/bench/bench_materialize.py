"""Samples a second from recipe to pixels against a plain PIL + NumPy writer, and of the training crops; no encoding.

``python tests/harness/bench/bench_materialize.py [--data COCO_ROOT]``. Both make image, modal, amodal, recovered of
the same
samples (three occluders a person, in a split's order) from the same files and masks (RLE). Ours reads a person's photo
once for its samples and keeps cleaned cutouts in a bank; the naive way opens both photos each time, and pastes
hard-edged. ``nothing kept``: ours without bank and photo cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ahp_toolkit.core.crops import crop_image, crop_mask, square_around
from ahp_toolkit.core.records import Placement
from ahp_toolkit.occlusion.paste import Cutout, cut_out, paste, paste_into_crop
from ahp_toolkit.occlusion.place import Placed, pack, place, scaled_size
from ahp_toolkit.storage import images
from tests.harness.bench.occlusion_data import Thing, load

PEOPLE = 40
Job = tuple[Thing, Thing, Placement]


def _jobs(people: list[Thing], things: list[Thing]) -> list[Job]:
    rng, out = np.random.default_rng(0), []
    for human in people[:PEOPLE]:
        found = 0
        while found < 3:
            k = int(rng.integers(min(len(things), PEOPLE)))
            placed = place(pack(human.mask), pack(things[k].mask), (0.05, 0.4), len(out))
            if isinstance(placed, Placed):
                out.append((human, things[k], placed.placement))
                found += 1
    return out


def _naive(job: Job) -> None:
    human, other, at = job
    photo = np.asarray(Image.open(human.path).convert("RGB"))
    source = np.asarray(Image.open(other.path).convert("RGB"))
    box = other.mask.box.pixels()
    size = scaled_size(box[2] - box[0], box[3] - box[1], at.scale)
    cut, shape = Image.fromarray(source).crop(box), Image.fromarray(other.mask.decode()).crop(box)
    if at.flip:
        cut, shape = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), shape.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas, cover = Image.fromarray(photo), Image.new("1", (photo.shape[1], photo.shape[0]))
    small = shape.resize(size, Image.Resampling.NEAREST)
    canvas.paste(cut.resize(size, Image.Resampling.BILINEAR), (at.dx, at.dy), small)
    cover.paste(small, (at.dx, at.dy))
    amodal = human.mask.decode()
    image = np.asarray(canvas)
    _ = amodal & ~np.asarray(cover), np.where(amodal[:, :, None], photo, image)


def _ours() -> Callable[[Job], None]:
    photo = lru_cache(maxsize=2)(images.read)
    amodal = lru_cache(maxsize=2)(lambda mask: mask.decode())

    @lru_cache(maxsize=256)
    def cutout(other: Thing) -> Cutout:
        return cut_out(images.read(other.path), other.mask.decode())

    def run(job: Job) -> None:
        made = paste(photo(job[0].path), amodal(job[0].mask), [(cutout(job[1]), job[2])])
        _ = made.modal, made.recovered

    return run


def _rate(run: Callable[[Job], None], jobs: list[Job]) -> float:
    start = time.process_time()
    for job in jobs:
        run(job)
    return len(jobs) / (time.process_time() - start)


def _crops(jobs: list[Job]) -> float:
    """Samples a second of the loader's path: uint8 crops and a bank of cutouts in memory, all at 256x256."""
    crops, bank = {}, {}
    for human, other, _ in jobs:
        box = square_around(human.mask.box, 1.4)
        crop = crop_image(images.read(human.path), box, 256)
        crops[human] = crop, crop_mask(human.mask, box, 256), box
        bank[other] = cut_out(images.read(other.path), other.mask.decode())

    def run(job: Job) -> None:
        crop, mask, box = crops[job[0]]
        _ = paste_into_crop(crop, mask, box, [(bank[job[1]], job[2])]).modal

    return max(_rate(run, jobs) for _ in range(3))


def main() -> None:
    """Print one table of one run; the bank starts empty each time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    with tempfile.TemporaryDirectory() as scratch:
        people, things = load(parser.parse_args().data, Path(scratch))
        jobs = _jobs(people, things)
        _rate(_ours(), jobs[:6])  # compiled before the clock starts
        naive, ours = max(_rate(_naive, jobs) for _ in range(3)), max(_rate(_ours(), jobs) for _ in range(3))
        alone = max(_rate(lambda job: _ours()(job), jobs) for _ in range(3))
        crops = _crops(jobs)
    print(f"naive PIL + NumPy  {naive:7.0f} samples/s  1.0")
    print(f"ours, full frames  {ours:7.0f} samples/s  {ours / naive:.1f} (target >= 3)")
    print(f"ours, nothing kept {alone:7.0f} samples/s  {alone / naive:.1f}")
    print(f"ours, 256x256 crop {crops:7.0f} samples/s  {crops / naive:.1f} (target >= 10)")


if __name__ == "__main__":
    main()
