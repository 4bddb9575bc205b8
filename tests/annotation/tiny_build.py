"""A build folder of many small people, made quickly: ellipses with heads on a few photos. For tests of the review."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ahp_toolkit.core import masks
from ahp_toolkit.core.records import Candidate, Decision, Flags, ImageRef, Neighbours, Segmented
from ahp_toolkit.storage import files, images, parquet

W, H = 320, 240


def write(root: Path, n: int, photos: int = 4, part: int = 1000, provisional: bool = True) -> list[str]:
    """Write ``n`` candidates over ``photos`` photos below ``root``; returns their ids in order."""
    data = root / "data"
    for i in range(photos):
        images.write_jpeg(data / f"{i}.jpg", _photo(i))
    records = [_one(i, photos) for i in range(n)]
    records.sort(key=lambda s: s.candidate.candidate_id)
    for k in range(0, n, part):
        some = records[k : k + part]
        parquet.write_records(root / "parse" / f"part-{k // part:05d}.parquet", some, Segmented)
        if provisional:
            ruled = [_ruled(s) for s in some if s.candidate.neighbours.count]
            parquet.write_records(root / "decide" / f"part-{k // part:05d}.parquet", ruled, Decision)
    files.write_json(root / "build.json", {"roots": {"coco": str(data)}})
    return [s.candidate.candidate_id for s in records]


def _photo(i: int) -> images.Rgb:
    y, x = np.mgrid[:H, :W]
    sky = np.stack([90 + x * 90 // W, 130 + y * 60 // H, np.full((H, W), 170 + 10 * i)], -1).astype(np.uint8)
    sky[H * 2 // 3 :] = (110, 130, 90)
    rng = np.random.default_rng(i)
    for _ in range(40):
        a, b = rng.integers(0, W), rng.integers(0, H)
        cv2.circle(sky, (int(a), int(b)), int(rng.integers(3, 14)), rng.integers(40, 230, 3).tolist(), -1)
    return sky


def _one(i: int, photos: int) -> Segmented:
    rng = np.random.default_rng([7, i])
    labels = np.zeros((H, W), np.uint8)
    x, y, r = int(rng.integers(40, W - 40)), int(rng.integers(90, H - 70)), int(rng.integers(8, 18))
    cv2.ellipse(labels, (x, y + 2 * r), (r // 2, 2 * r), 0, 0, 360, 9, -1)
    cv2.ellipse(labels, (x, y), (r, 2 * r), 0, 0, 360, 5, -1)
    cv2.circle(labels, (x, y - 5 * r // 2), r * 2 // 3, 13, -1)
    mask = masks.encode(labels > 0)
    photo = i % photos
    image = ImageRef(f"coco/{photo:06d}", "coco", f"{photo}.jpg", W, H, f"photo{photo}")
    near = Neighbours(i % 3, 0.1 * (i % 3), 0.05 * (i % 3), 0.02 * (i % 5), False)
    flags = Flags(crowd=False, occluded=i % 4 == 0)
    parsing = masks.encode_labels(labels) if i % 2 else None
    candidate = Candidate(f"{image.image_id}#{i:06d}", image, mask.box, mask, parsing, flags, near)
    parser = "source_parsing" if parsing else ""
    return Segmented(candidate, mask, 1.0, "source_mask@none", 0, parsing, parser)


def _ruled(s: Segmented) -> Decision:
    return Decision(s.candidate.candidate_id, "discard", "rule", s.mask.digest, "occluded", provisional=True)
