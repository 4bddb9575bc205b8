"""STAGE scenes: scene categories of photos (figure 5b), from a file or by an official Places365 ResNet checkpoint.

The checkpoint is what the Places365 authors publish: ``resnet18_places365.pth.tar`` or ``resnet50_places365.pth.tar``
with its ``categories_places365.txt``; it is loaded with ``weights_only=True``, so it cannot run code.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError, require
from ahp_toolkit.core.records import Dropped, Segmented
from ahp_toolkit.runtime.code import code_digest
from ahp_toolkit.runtime.stage import MAIN, Job, Output, Stage, digest_of
from ahp_toolkit.storage import parquet
from ahp_toolkit.storage.files import read_json
from ahp_toolkit.storage.images import ImageError, Rgb
from ahp_toolkit.storage.photos import Photos

CLASSES = 365
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def read_scenes(path: Path) -> dict[str, str]:
    """Scene by image id from a file a user has.

    Args:
        path: CSV with the columns ``image_id`` and ``scene``; or JSON, ``{image_id: scene}`` or a list of
            ``{"image_id": ..., "scene": ...}``.

    Raises:
        UserError: when it is missing, another kind of file, or a line lacks a column.
    """
    if path.suffix.lower() == ".json":
        return _from_json(path, read_json(path))
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path}: expected a scene file ending in .csv or .json; rename it or convert it")
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            rows: list[dict[str, Any]] = list(csv.DictReader(f))
    except (OSError, ValueError, csv.Error) as e:
        raise UserError(f"{path}: cannot be read as CSV ({e})") from e
    return _from_rows(path, rows, first=2)


def _from_json(path: Path, content: Any) -> dict[str, str]:
    if isinstance(content, list):
        return _from_rows(path, content, first=1)
    if isinstance(content, dict) and all(isinstance(v, str) for v in content.values()):
        return dict(content)
    raise UserError(f'{path}: expected {{"image_id": "scene", ...}} or a list of image_id and scene; mend the file')


def _from_rows(path: Path, rows: Sequence[Any], first: int) -> dict[str, str]:
    found = {}
    for number, row in enumerate(rows, first):
        image_id, scene = (row.get("image_id"), row.get("scene")) if isinstance(row, Mapping) else (None, None)
        if not isinstance(image_id, str) or not isinstance(scene, str):
            raise UserError(f"{path}: record {number}: expected image_id and scene, got {row!r:.80}; mend the record")
        found[image_id] = scene
    return found


def read_categories(path: Path) -> tuple[str, ...]:
    """The 365 scene names of ``categories_places365.txt`` in label order: ``/a/airfield 0`` gives ``airfield``.

    Raises:
        UserError: when the file is missing or does not name each of the 365 labels once.
    """
    try:
        lines = [x.rsplit(maxsplit=1) for x in path.read_text(encoding="utf-8").splitlines() if x.strip()]
        names = {int(number): name[3:] for name, number in lines}
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: expected lines such as '/a/airfield 0' ({e}); take Places365's own file") from e
    if sorted(names) != list(range(CLASSES)) or len(lines) != CLASSES:
        raise UserError(f"{path}: expected {CLASSES} categories, got {len(lines)}; take Places365's own file")
    return tuple(names[i] for i in range(CLASSES))


@dataclass(frozen=True)
class SceneClassifier:
    """Photos to scene names. One photo at a time, so the answer never depends on a batch."""

    model: Any
    categories: tuple[str, ...]
    device: str

    def __call__(self, pixels: Rgb) -> str:
        """The scene of one photo, RGB uint8 [H, W, 3]."""
        import torch

        with torch.inference_mode():
            logits = self.model(torch.from_numpy(_prepare(pixels)).to(self.device))
        return self.categories[int(logits[0].argmax())]


def _prepare(pixels: Rgb) -> NDArray[np.float32]:
    """float32 [1, 3, 224, 224]: 256x256, the middle 224, ImageNet's mean and deviation (Places365's own test rule)."""
    small = cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA)[16:240, 16:240]
    x = (small.astype(np.float32) / np.float32(255) - _MEAN) / _STD
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def places365(weights: Path, categories: Path, device: str = "cpu") -> SceneClassifier:
    """Load a Places365 ResNet-18 or ResNet-50.

    Raises:
        UserError: one line, when torch or a file is missing, or the checkpoint is not such a network's.
    """
    require("torchvision", "the scene classifier")
    import torchvision

    names = read_categories(categories)
    state = _state(weights)
    kind = "resnet50" if "layer1.0.conv3.weight" in state else "resnet18"
    model = getattr(torchvision.models, kind)(num_classes=CLASSES)
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        line = " ".join(str(e).split())[:160]
        raise UserError(f"{weights}: not a Places365 {kind} ({line}); take resnet18_places365.pth.tar") from e
    return SceneClassifier(model.eval().to(device), names, device)


def _state(weights: Path) -> dict[str, Any]:
    from ahp_toolkit.nets.checkpoints import load_torch

    content = load_torch(weights, "the checkpoint resnet18_places365.pth.tar")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(hasattr(v, "shape") for v in state.values()):
        raise UserError(
            f"{weights}: expected a 'state_dict' of tensors, got {type(content).__name__}; download it again"
        )
    return {k.removeprefix("module."): v for k, v in state.items()}


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
