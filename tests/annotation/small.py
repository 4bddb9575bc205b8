"""A small build folder up to the parse stage: people as rectangles on small photos, several to a photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ahp_toolkit.core.masks import encode
from ahp_toolkit.core.records import Candidate, Decision, Flags, ImageRef, Neighbours, Occluder, Segmented
from ahp_toolkit.decisions import log
from ahp_toolkit.decisions.candidates import Candidates
from ahp_toolkit.decisions.state import Decisions
from ahp_toolkit.storage import files, images, parquet
from annotation.session.session import KeyPress, Session

W, H = 96, 80


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    m = np.zeros((H, W), bool)
    m[y0:y1, x0:x1] = True
    return m


def person(photo: int, k: int = 0, source: str = "coco", **changes) -> Segmented:
    """Person ``k`` of a photo."""
    x = 8 + 24 * k
    mask = encode(rectangle(x, 12, x + 14, 56 + photo % 7))
    name = f"{source}/{photo:06d}"
    image = ImageRef(name, source, f"{photo:06d}.png", W, H, name)
    near = Neighbours(mask_contact=0.0)
    candidate = Candidate(f"{name}#{k}", image, mask.box, mask, None, Flags(), near)
    inner = {key: changes.pop(key) for key in ("flags", "neighbours") if key in changes}
    return replace(Segmented(replace(candidate, **inner), mask, 0.9, "source_mask@source", 0), **changes)


def write(root: Path, people: list[Segmented], photos: bool = False) -> Path:
    """ROOT/parse in two parts, build.json, and with ``photos`` pixels for every photo."""
    half = len(people) // 2
    for i, part in enumerate((people[:half], people[half:])):
        parquet.write_records(root / "parse" / f"part-{i:05d}.parquet", part, Segmented)
    files.write_json(root / "parse" / "stage.json", {"name": "parse", "key_digest": "k", "key": {}, "counts": {},
                                                     "dropped": {}, "digest": "d" * 64, "shards": 2})  # fmt: skip
    sources = sorted({p.candidate.image.source for p in people})
    files.write_json(root / "build.json", {"roots": {s: str(root / "data" / s) for s in sources}, "seed": 0})
    if photos:
        for p in {p.candidate.image.path: p for p in people}.values():
            images.write_png(root / "data" / p.candidate.image.source / p.candidate.image.path, picture(p))
    return root


def picture(p: Segmented) -> np.ndarray:
    """RGB uint8: a gradient with the person in one colour."""
    y, x = np.mgrid[:H, :W]
    rgb = np.stack([x * 2, y * 3, np.full((H, W), 90)], -1).astype(np.uint8)
    rgb[p.mask.decode()] = (200, 60, 40)
    return rgb


def occluder(image: ImageRef, box: tuple[int, int, int, int], name: str, label: str = "chair") -> Occluder:
    """A rectangle that can occlude."""
    mask = encode(rectangle(*box))
    return Occluder(name, image, label, mask.box, mask, mask.area)


def say(root: Path, reviewer: str, candidate_id: str, verdict: str, mask_digest: str = "", **more) -> Decision:
    """Append one decision to a reviewer's log: on the candidate's current mask unless ``mask_digest`` names another."""
    if not mask_digest:
        mask_digest = Decisions(root).refresh().case(candidate_id).current
    if not mask_digest:
        mask_digest = Candidates(root).mask_digests([candidate_id]).get(candidate_id, "0" * 16)
    if more.get("corrected") and verdict != "refine":
        mask_digest = more["corrected"].digest
    d = Decision(candidate_id, verdict, reviewer, mask_digest, at=more.pop("at", log.now()), **more)
    log.append(log.path_of(root, reviewer), d, sync=False)
    return d


def decide(session: Session, *args, **more) -> dict:
    """Send a key press to a session; the arguments are those of `KeyPress`."""
    return session.decide(KeyPress(*args, **more))
