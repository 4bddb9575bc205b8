"""Four little people behind occluders, drawn here: fixed tensors for the model tests. Not the sample world."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baselines.base import MODELS, Batch

SMALL: dict[str, dict[str, object]] = {
    "deepfillv2": {"width": 8, "critic_width": 4},
    "deeplab": {"encoder": "resnet18"},
    "human_deocclusion": {"width": 8, "critic_width": 4},
    "mask_rcnn": {"backbone": "resnet18", "min_size": 64, "proposals": 8},
    "ovsr": {"width": 8, "critic_width": 4},
    "pcnets": {"width": 8},
    "pix2pix": {"width": 8, "critic_width": 4},
    "segan": {"width": 8},
    "unet": {"width": 16},
}
UNTRAINED = ("initial", "mean_template", "nothing")


def learning() -> list[str]:
    """The models that have parameters."""
    return [n for n in MODELS.names() if n not in UNTRAINED]


def small(name: str, task: str) -> dict[str, object]:
    """Settings that make a model small enough for the suite."""
    found: dict[str, object] = {"size": 64, "vgg": "random/8", **SMALL.get(name, {})}
    if (name, task) == ("human_deocclusion", "mask"):
        found |= {"templates": 4, "clusters": 4}
    if (name, task) in (("pcnets", "content"), ("segan", "content")):
        found |= {"critic_width": 4}
    return found


def batch(count: int = 4, size: int = 64, seed: int = 0) -> Batch:
    """A batch whose people differ in place, colour and occluder."""
    rng = np.random.default_rng(seed)
    people = [_person(rng, size) for _ in range(count)]
    fields = [torch.stack([p[i] for p in people]) for i in range(6)]
    image, given, modal, amodal, parsing, target = fields
    return Batch(image, given, modal, amodal, parsing, target=target)


def _person(rng: np.random.Generator, size: int) -> tuple[Tensor, ...]:
    y, x = np.mgrid[:size, :size] / size
    cx, cy = rng.uniform(0.4, 0.6, 2)
    head = (x - cx) ** 2 + (y - cy + 0.24) ** 2 < 0.01
    body = (abs(x - cx) < 0.14) & (abs(y - cy) < 0.16)
    legs = (abs(abs(x - cx) - 0.08) < 0.05) & (y >= cy + 0.16) & (y < cy + 0.36)
    labels = np.select([head, body, legs], [13, 5, 9], 0)
    colours = rng.uniform(-0.8, 0.8, (20, 3))
    target = colours[labels]
    amodal = labels > 0
    top, left = rng.uniform(0.3, 0.6, 2)
    occluder = (y > top) & (y < top + 0.25) & (x > left - 0.1) & (x < left + 0.2)
    modal = amodal & ~occluder
    image = np.where(occluder[..., None], rng.uniform(-0.8, 0.8, 3), target)
    target = np.where((occluder & ~amodal)[..., None], image, target)
    given = modal & np.roll(modal, 1, 1)  # inaccurate, but within the person: some answers are joined with it
    masks = [torch.tensor(m, dtype=torch.float32)[None] for m in (given, modal, amodal)]
    pictures = [torch.tensor(p, dtype=torch.float32).permute(2, 0, 1) for p in (image, target)]
    return pictures[0], *masks, torch.tensor(labels), pictures[1]
