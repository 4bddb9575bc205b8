"""Scene categories of photos (figure 5b): from a file, or from an official Places365 ResNet checkpoint.

The checkpoint is what the Places365 authors publish: ``resnet18_places365.pth.tar`` or ``resnet50_places365.pth.tar``
with its ``categories_places365.txt``; it is loaded with ``weights_only=True``, so it cannot run code.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError, require
from ahp_toolkit.storage.files import read_json
from ahp_toolkit.storage.images import Rgb

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


def _from_json(path: Path, said: Any) -> dict[str, str]:
    if isinstance(said, list):
        return _from_rows(path, said, first=1)
    if isinstance(said, dict) and all(isinstance(v, str) for v in said.values()):
        return dict(said)
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

    said = load_torch(weights, "the checkpoint resnet18_places365.pth.tar")
    state = said.get("state_dict", said) if isinstance(said, dict) else None
    if not isinstance(state, dict) or not all(hasattr(v, "shape") for v in state.values()):
        raise UserError(f"{weights}: expected a 'state_dict' of tensors, got {type(said).__name__}; download it again")
    return {k.removeprefix("module."): v for k, v in state.items()}
