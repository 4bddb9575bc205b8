"""A tiny build of drawn people and occluders, for the training tests: 12 train people, 3 val people with samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import masks
from ahp_toolkit.core.records import Human, ImageRef, Occluder, Sample
from ahp_toolkit.occlusion.densities import PRESETS, assign
from ahp_toolkit.occlusion.place import Settings
from ahp_toolkit.stages.synthesize import Initial, Synth, Task
from ahp_toolkit.storage import files, images, parquet

W, H = 120, 100
COUNTS = {"train": 12, "val": 3}


def drawn(seed: int, scale: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photo RGB [H, W, 3] and its person's parsing uint8 [H, W]."""
    rng = np.random.default_rng(seed)
    y, x = (v // scale for v in np.mgrid[:H, :W])
    cx, cy = rng.integers(45, 75), rng.integers(46, 54)
    head = (x - cx) ** 2 + (y - cy + 26) ** 2 < 64
    body = (abs(x - cx) < 11) & (abs(y - cy + 4) < 14)
    left, right = ((abs(x - cx - d) < 4) & (y >= cy + 10) & (y < cy + 38) for d in (6, -6))
    labels = np.select([head, body, left, right], [13, 5, 16, 17], 0).astype(np.uint8)
    colours = rng.integers(0, 255, (20, 3))
    photo = colours[labels] // 2 + rng.integers(0, 60, (H, W, 3))
    return photo.astype(np.uint8), labels


def thing(seed: int, scale: int = 1) -> NDArray[np.bool_]:
    """An occluder's mask, bool [H, W]."""
    rng = np.random.default_rng([seed, 1])
    y, x = (v // scale for v in np.mgrid[:H, :W])
    return ((x - 60) / rng.integers(8, 30)) ** 2 + ((y - 50) / rng.integers(8, 30)) ** 2 < 1


def make(root: Path, initial_iou: float = 0.8, scale: int = 1) -> Path:
    """Write the build folder and return it; every third person has no parsing. ``scale``: of what is drawn."""
    roots = {"coco": str(root / "data")}
    files.write_json(root / "build.json", {"roots": roots, "seed": 0, "options": {"initial_iou": initial_iou}})
    number = 0
    for split, count in COUNTS.items():
        humans, occluders = [], []
        for k in range(count):
            name = f"{number:04d}"
            photo, labels = drawn(number, scale)
            for stem, pixels in ((name, photo), (f"o{name}", photo[::-1])):
                images.write_png(root / "data" / f"{stem}.png", np.ascontiguousarray(pixels))
            refs = [ImageRef(f"coco/{s}", "coco", f"{s}.png", W, H, photo=f"coco/{s}") for s in (name, f"o{name}")]
            mask, other = masks.encode(labels > 0), masks.encode(thing(number, scale))
            parsing = masks.encode_labels(labels) if k % 3 else None
            humans.append(Human(f"coco/{name}#1", refs[0], mask.box, mask, parsing, "", split, ("test",)))
            occluders.append(Occluder(f"coco/o{name}#2", refs[1], "cup", other.box, other, other.area))
            number += 1
        parquet.write_records(root / "bank" / split / "part-00000.parquet", occluders, Occluder)
        density = PRESETS[split]
        targets = assign(density, 2 * count, 0)
        synth = Synth(split, density, Settings(), Initial(iou=initial_iou), 0, str(root / "bank" / split), roots)
        out = synth([Task(h, tuple(targets[2 * i : 2 * i + 2])) for i, h in enumerate(humans)])
        folder = root / "splits" / split
        parquet.write_records(folder / "part-00000.parquet", out.tables[""], Sample)
        parquet.write_records(folder / "humans" / "part-00000.parquet", out.tables["humans"], Human)
        unique = {o.occluder_id: o for o in out.tables["occluders"]}
        parquet.write_records(folder / "occluders" / "part-00000.parquet", list(unique.values()), Occluder)
    return root
