"""What a plug-in that can be trained gives to the trainer, and the jitter that their training samples share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.nets.fit import Loss, Settings
from ahp_toolkit.storage.images import Rgb

__all__ = ["Cut", "Loss", "Recipe", "Settings", "by_photo", "jittered", "photo_of", "tinted"]
U8 = NDArray[np.uint8]


class Cut(Protocol):
    """Makes one training sample of a photo and a human; picklable."""

    def __call__(self, photo: Rgb, human: Candidate, rng: np.random.Generator) -> tuple[U8, U8]:
        """Randomly jittered planes uint8 [S, S, C] and target uint8 [S, S]."""


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Args:
        kind: the format of the checkpoint, in which the digit changes when old weights no longer fit.
        arch: a dataclass, with which ``build`` makes the network again.
        net: the network before training.
        imagenet: whether its encoder starts from ImageNet.
        cut: makes the `Cut` for the humans to train on.
        loss: of the network, a batch of planes and of targets.
        ready: the segmenter or parser around a trained network, on a device, for judging.
        parsed: whether it learns body parts, so that only humans with a parsing serve.
    """

    kind: str
    arch: Any
    net: nn.Module
    imagenet: bool
    cut: Callable[[Sequence[Candidate]], Cut]
    loss: Loss
    ready: Callable[[nn.Module, Any], Any]
    parsed: bool = False


def photo_of(human: Candidate) -> str:
    """The key of the photograph a human is in: the same in every dataset."""
    return human.image.photo or human.image.image_id


def by_photo(humans: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """Humans grouped by `photo_of`."""
    found: dict[str, list[Candidate]] = {}
    for h in humans:
        found.setdefault(photo_of(h), []).append(h)
    return found


def jittered(box: Box, rng: np.random.Generator, amount: float = 0.05) -> Box:
    """The box with each edge moved by up to ``amount`` of its size: annotators are not exact."""
    dx0, dy0, dx1, dy1 = rng.uniform(-amount, amount, 4)
    w, h = box.width, box.height
    return Box(box.x0 + dx0 * w, box.y0 + dy0 * h, box.x1 + dx1 * w, box.y1 + dy1 * h)


def tinted(planes: U8, rng: np.random.Generator, amount: float = 0.2) -> None:
    """Mild gain and bias of each colour channel of planes [S, S, 3 or more], in place, by a table."""
    gain = rng.uniform(1 - amount, 1 + amount) * rng.uniform(1 - amount / 3, 1 + amount / 3, 3)
    bias = 255 * rng.uniform(-amount, amount) / 2
    table = (np.arange(256)[:, None] * gain + bias).clip(0, 255).astype(np.uint8)
    planes[:, :, :3] = cv2.LUT(np.ascontiguousarray(planes[:, :, :3]), np.ascontiguousarray(table[None]))
