"""The README's pictures, made by the program on the sample world: ``make pictures`` after ``make demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from ahp_toolkit.core import crops, hashing
from ahp_toolkit.core.records import Sample
from ahp_toolkit.sample_world import gallery
from ahp_toolkit.stages.report import renderer_of
from ahp_toolkit.storage import images, parquet
from tests.harness.bench.guide_pictures import guide_pictures
from tests.harness.bench.story_pictures import story_pictures

SIZE, ROWS = 150, 4


def samples(root: Path) -> images.Rgb:
    """Rows of val samples from all four bins: occluded, modal, amodal, invisible, recovered, given."""
    render = renderer_of(root)
    found = sorted(
        parquet.read_records(root / "splits" / "val", Sample), key=lambda s: hashing.unit_hash("readme", s.digest)
    )
    rows = []
    for wanted in range(ROWS):
        sample = next(s for s in found if s.bin == wanted)
        p = render(sample)
        masks = [p.modal, p.amodal, p.invisible, sample.given.mask.decode()]
        grey = [np.where(crops.crop_labels(m, sample.crop, SIZE), 255, 24).astype(np.uint8) for m in masks]
        tiles = [np.repeat(g[:, :, None], 3, axis=2) for g in grey]
        occluded, recovered = (crops.crop_image(i, sample.crop, SIZE) for i in (p.image, p.recovered))
        rows.append(np.hstack([occluded, *tiles[:3], recovered, tiles[3]]))
    return np.vstack(rows)


def main() -> None:
    """Write docs/pictures/world.png, samples.png and story_*.png (from the demo) and the guide's pictures."""
    guide_pictures(Path("annotation/guide"))
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo")
    out = Path("docs/pictures")
    story_pictures(demo, out)
    gallery(out / "world.png")
    world = images.read(out / "world.png")
    small = cv2.resize(world, (1000, round(world.shape[0] * 1000 / world.shape[1])), interpolation=cv2.INTER_AREA)
    palette = cv2.medianBlur(np.asarray(small, np.uint8), 3)  # sensor noise does not compress
    (out / "world.png").write_bytes(images.encode(np.asarray(palette & 0xF8, np.uint8), ".png", [16, 9]))
    rows = np.asarray(cv2.medianBlur(samples(demo), 3) & 0xF8, np.uint8)
    (out / "samples.png").write_bytes(images.encode(rows, ".png", [16, 9]))


if __name__ == "__main__":
    main()
