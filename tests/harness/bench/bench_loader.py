"""Training samples a second on one core: the crop cache against a plain PIL + NumPy loader, on the same drawn people.

The plain loader opens two photos with PIL, resizes person and occluder with PIL, pastes with NumPy and retries until
the ratio lies in its bin; it has the same simulated initial mask. CPU time, so that a busy machine changes little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from ahp_toolkit.core.records import Human, Occluder
from ahp_toolkit.occlusion.densities import PRESETS
from ahp_toolkit.occlusion.initial_mask import simulate
from ahp_toolkit.stages.synthesize import protocol_crop
from ahp_toolkit.storage import parquet
from baselines.data.cache import build_cache
from baselines.data.samples import Draw, TrainData, worker_init
from tests.baselines.training import world

SIZE, COUNT = 256, 120


def plain(root: Path, humans: list[Human], things: list[Occluder], index: int) -> np.ndarray:
    """One sample the plain way, float32 [H, W, 9]."""
    rng = np.random.default_rng(index)
    human, thing = humans[index % len(humans)], things[int(rng.integers(len(things)))]
    photo = np.array(Image.open(root / "data" / human.image.path).convert("RGB"))
    other = np.array(Image.open(root / "data" / thing.image.path).convert("RGB"))
    mask, cut = human.mask.decode(), thing.mask.decode()
    labels = human.parsing.decode() if human.parsing is not None else np.zeros(mask.shape, np.uint8)
    low, high = PRESETS["train"].interval(int(rng.integers(3)))
    for _ in range(100):
        scale = float(rng.uniform(0.5, 1.6))
        size = max(1, int(mask.shape[1] * scale)), max(1, int(mask.shape[0] * scale))
        alpha = np.array(Image.fromarray(cut).resize(size, Image.Resampling.NEAREST))
        full = np.zeros((3 * mask.shape[0], 3 * mask.shape[1]), bool)
        dy, dx = int(rng.integers(0, 2 * mask.shape[0])), int(rng.integers(0, 2 * mask.shape[1]))
        y1, x1 = min(dy + size[1], full.shape[0]), min(dx + size[0], full.shape[1])
        full[dy:y1, dx:x1] = alpha[: y1 - dy, : x1 - dx]
        cover = full[mask.shape[0] : 2 * mask.shape[0], mask.shape[1] : 2 * mask.shape[1]]
        if low <= (cover & mask).sum() / mask.sum() < high:
            break
    colours = np.zeros((*full.shape, 3), np.uint8)
    pixels = np.array(Image.fromarray(other).resize(size))
    colours[dy:y1, dx:x1] = pixels[: y1 - dy, : x1 - dx]
    colours = colours[mask.shape[0] : 2 * mask.shape[0], mask.shape[1] : 2 * mask.shape[1]]
    image = np.where(cover[..., None], colours, photo)
    box = tuple(int(v) for v in protocol_crop(human.mask.box, index))
    pictures = [np.array(Image.fromarray(p).crop(box).resize((SIZE, SIZE))) for p in (image, photo)]
    planes = [
        np.array(Image.fromarray(p.astype(np.uint8)).crop(box).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        for p in (mask & ~cover, mask, labels)
    ]
    planes.append(simulate(planes[0] > 0, index).astype(np.uint8))
    return np.concatenate([*(p / 127.5 - 1 for p in pictures), np.stack(planes, -1)], -1).astype(np.float32)


def rate(make: Callable[[int], object]) -> float:
    """Samples a second of CPU time, best of three rounds."""
    for i in range(8):
        make(i)
    best = 0.0
    for _ in range(3):
        begun = time.process_time()
        for i in range(COUNT):
            make(i)
        best = max(best, COUNT / (time.process_time() - begun))
    return best


def main() -> None:
    """Print both rates and their ratio, for people drawn at the size of COCO's photographs."""
    worker_init(0)
    world.W, world.H = 640, 480
    with tempfile.TemporaryDirectory() as folder:
        root = world.make(Path(folder), scale=5)
        humans = list(parquet.read_records(root / "splits" / "train" / "humans", Human))
        things = list(parquet.read_records(root / "bank" / "train", Occluder))
        slow = rate(lambda i: plain(root, humans, things, i))
        print(f"plain PIL + NumPy            {slow:8.0f} samples/s of {SIZE} px, one core")
        cache = build_cache(root, 448, quiet=True)
        for size in (256, 128, 64):
            fast = rate(TrainData(cache, Draw(PRESETS["train"], size)).draw)
            note = f"{fast / slow:6.1f} times (wanted: 10)" if size == SIZE else ""
            print(f"crop cache, {size:3d} px           {fast:8.0f} samples/s {note}")


if __name__ == "__main__":
    main()
