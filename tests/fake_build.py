"""A small build folder made by hand: ellipses for people, squares for occluders. For tests that only look at builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import crops, masks
from ahp_toolkit.core.records import (
    Candidate,
    Decision,
    Dropped,
    Flags,
    Given,
    Human,
    ImageRef,
    Neighbours,
    Occluder,
    Placement,
    Sample,
    Segmented,
)
from ahp_toolkit.storage import files, images, parquet

SOURCES = ("coco", "openimages")
W, H = 160, 120
EVIL = "<script>alert('x')</script>&\"'"


def ellipse(cx: float, cy: float, rx: float, ry: float, h: int = H, w: int = W) -> NDArray[np.bool_]:
    """bool [h, w] ellipse."""
    y, x = np.mgrid[:h, :w]
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def photo(seed: int) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]: a gradient with a person-coloured ellipse."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    base = np.stack([x * 255 / W, y * 255 / H, np.full((H, W), rng.integers(60, 200))], -1).astype(np.uint8)
    base[person(seed)] = rng.integers(90, 255, 3)
    return base


def person(seed: int) -> NDArray[np.bool_]:
    """The person of a photo, bool [H, W]."""
    rng = np.random.default_rng([seed, 1])
    return ellipse(rng.integers(60, 100), 60, rng.integers(12, 22), rng.integers(30, 48))


@dataclass(frozen=True)
class Pixels:
    """What `render` gives."""

    image: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    amodal: NDArray[np.bool_]
    recovered: NDArray[np.uint8]


def render_of(root: Path) -> Callable[[Sample], Pixels]:
    """A renderer of this folder's samples: a grey square where the person is hidden."""

    def render(sample: Sample) -> Pixels:
        source = files.read_json(root / "build.json")["roots"][sample.image.source]
        pixels = images.read(Path(source) / sample.image.path)
        modal, amodal = sample.modal.decode(), sample.amodal.decode()
        shown = pixels.copy()
        shown[amodal & ~modal] = 128
        return Pixels(shown, modal, amodal, pixels)

    return render


def _parsing(mask: NDArray[np.bool_]) -> masks.LabelMap:
    labels = np.where(mask, 5, 0).astype(np.uint8)
    labels[: H // 3][mask[: H // 3]] = 13
    return masks.encode_labels(labels)


def _sample(human: Human, k: int, split: str, n: int) -> Sample:
    amodal = human.mask.decode()
    box = human.box
    cut = box.y0 + box.height * (0.96, 0.85, 0.65)[k]
    modal = amodal & (np.mgrid[:H, :W][0] < cut)
    ratio = 1 - modal.sum() / amodal.sum()
    return Sample(
        f"{human.human_id}~{k}", split, human.human_id, human.image, (Placement("coco/occ#1", 5, 6),), n + k,
        Given(masks.encode(modal), "source_mask@0"), masks.encode(modal), human.mask,
        crops.square_around(box, 1.4), float(ratio), k, "d" * 64, provisional=human.provisional,
    )  # fmt: skip


def make(root: Path, photos: int = 8, provisional: bool = True, evil: bool = False, split: str = "val") -> Path:
    """Write a whole build folder below ``root`` and return it; photo 0 of the first source is missing on disk."""
    out, data = root / "build", root / "data"
    candidates, segmented, decisions, humans, dropped = [], [], [], [], []
    counts: dict[str, int] = {}
    for source in SOURCES:
        for i in range(photos):
            name = f"{i:04d}.jpg"
            mark = EVIL.replace("/", "-") if evil and i == 1 else ""
            image = ImageRef(f"{source}/{i:04d}{mark}", source, f"img/{name}", W, H, licence="CC BY 4.0")
            if i or source != SOURCES[0]:
                images.write_jpeg(data / source / "img" / name, photo(i))
            mask = masks.encode(person(i))
            cid = f"{source}/{i:04d}{mark}#{i}"
            c = Candidate(cid, image, mask.box, mask, None, Flags(), Neighbours())
            candidates.append(c)
            segmented.append(Segmented(c, mask, 0.9, "source_mask@0", 0, _parsing(person(i)) if i % 2 else None, "p@1"))
            verdict = ("preserve", "preserve", "refine", "discard")[i % 4]
            why = "" if i % 4 < 2 else "occluded"
            decisions.append(Decision(cid, verdict, "rule", mask.digest, why, provisional=provisional))
            scene = ("kitchen", "street")[i % 2]
            human = (cid, image, mask.box, mask, segmented[-1].parsing, scene, split, ("rule",), verdict, provisional)
            if verdict != "discard":
                humans.append(Human(*human))
            else:
                dropped.append(Dropped(cid, "review", "occluded", EVIL if evil else "rule said so", source))
        counts |= {f"persons/{source}": photos + 2, f"candidates/{source}": photos, f"images/{source}": photos}
    small = [Dropped(f"{s}/x#{k}", "harvest", "small", "200 px, at least 300", s) for s in SOURCES for k in range(2)]
    _write(out, "harvest", candidates, Candidate, small, counts)
    occluder = masks.encode(ellipse(20, 20, 9, 9))
    parquet.write_records(
        out / "harvest/occluders/part-00000.parquet",
        [Occluder("coco/occ#1", candidates[1].image, "cup", occluder.box, occluder, occluder.area)],
        Occluder,
    )
    _write(out, "segment", segmented, Segmented, [])
    _write(out, "parse", segmented, Segmented, [])
    _write(out, "review", humans, Human, dropped)
    parquet.write_records(out / "review/decisions/part-00000.parquet", decisions, Decision)
    readable = [h for h in humans if h.verdict == "preserve"]
    samples = [_sample(h, k, split, 10 * n) for n, h in enumerate(readable) for k in range(3)]
    _write(out, f"splits/{split}", samples, Sample, [])
    parquet.write_records(out / f"splits/{split}/humans/part-00000.parquet", humans, Human)
    roots = {s: str(data / s) for s in SOURCES}
    files.write_json(out / "build.json", {"roots": roots, "seed": 7, "options": {"min_area": 300, "gutter": 5}})
    return out


def _write(out: Path, name: str, records: list, cls: type, dropped: list, counts: dict[str, int] | None = None) -> None:
    parquet.write_records(out / name / "part-00000.parquet", records, cls)
    parquet.write_records(out / name / "dropped.parquet", dropped, Dropped)
    reasons: dict[str, int] = {}
    for d in dropped:
        reasons[f"{d.source}/{d.reason}"] = reasons.get(f"{d.source}/{d.reason}", 0) + 1
    key = {"options": {}} | ({"density": "val"} if name.startswith("splits/") else {})
    said = {"name": name, "key_digest": "k", "key": key, "digest": "0" * 64, "shards": 1}
    said |= {"counts": {"in": len(records), **(counts or {})}, "dropped": reasons}
    files.write_json(out / name / "stage.json", said)
