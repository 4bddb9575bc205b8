"""STAGE scenes: a scene category for the photo of every candidate, by a Places365 classifier (figure 5b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ahp_toolkit.core import hashing
from ahp_toolkit.core.records import Dropped, Segmented
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage, digest_of
from ahp_toolkit.stages.scenes import SceneClassifier, places365
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

STAGE = "scenes"


@dataclass(frozen=True, slots=True)
class SceneLabel:
    """The most likely scene category of one photo."""

    image_id: str
    scene: str


@dataclass(frozen=True)
class Classify:
    """The stage function. Items: paths of Segmented parts; ``weights`` and ``categories`` are Places365's own files."""

    weights: str
    categories: str
    device: str
    roots: dict[str, str]

    def __call__(self, items: Sequence[str]) -> Output:
        """One part: each photo once."""
        out, photos = Output({MAIN: []}), Photos(self.roots)
        classify = _classifier(self.weights, self.categories, self.device)
        images = {s.candidate.image.image_id: s.candidate.image for p in items for s in _read(p)}
        for image_id, image in sorted(images.items()):
            try:
                out.tables[MAIN].append(SceneLabel(image_id, classify(photos.read(image))))
            except ImageError as e:
                out.dropped.append(Dropped(image_id, STAGE, f"image_{e.reason}", str(e), image.source))
        return out


def _read(part: str) -> list[Segmented]:
    return list(parquet.read_records(Path(part), Segmented))


@cache
def _classifier(weights: str, categories: str, device: str) -> SceneClassifier:
    from ahp_toolkit.nets.devices import pick_device

    return places365(Path(weights), Path(categories), str(pick_device(device)))


def stage(out: Path, files: tuple[Path, Path], device: str, roots: Mapping[str, str]) -> Stage:
    """Scenes of all photos by Places365's files (weights, categories), into ``out``/scenes."""
    weights, categories = (str(p.resolve()) for p in files)
    key = {"files": [hashing.digest_file(p) for p in files], "input": digest_of(out / "parse")}
    key |= {"code": code_digest(__name__)}
    fn = Classify(weights, categories, device, dict(roots))
    job = Job(STAGE, out / "scenes", fn, {MAIN: SceneLabel}, key, shard_size=1, unit="part", network=True)
    return Stage(job, [str(p) for p in parquet.parts(out / "parse")])
