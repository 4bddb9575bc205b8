"""A plain U-Net for both tasks (Ronneberger et al., MICCAI 2015), which the paper does not compare.

Masks: PCNet-M's U-Net on image and initial mask, one head, cross-entropy. Content: the same network on the picture
without its hole and both masks, l1 over the hole; no partial convolutions, no critic. Whatever a method claims to bring
must show against it at the same schedule and with the same aids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from baselines.base import ADAM, Baseline, Batch, ContentBaseline, MaskBaseline, Optimizer, Output
from baselines.layers import losses as L
from baselines.layers.networks import UNet
from baselines.training.settings import OneOf, SharedContentSettings, SharedMaskSettings, Width, make_settings

PAPER = "Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"
TASKS = ("mask", "content")
IN_PAPER = False
VERSION = 1


@dataclass(frozen=True)
class MaskSettings(SharedMaskSettings):
    """``width``: channels of the first level."""

    width: Width = 32


@dataclass(frozen=True)
class ContentSettings(SharedContentSettings):
    """``width``: channels of the first level."""

    width: Width = 32
    loss: Annotated[str, OneOf(("hole", "whole"))] = "hole"


def build(task: str, **settings: Any) -> Baseline:
    """One U-Net for either task."""
    if task == "mask":
        return MaskModel(make_settings(MaskSettings, settings))
    return ContentModel(make_settings(ContentSettings, settings))


class MaskModel(MaskBaseline):
    """Image and initial mask to the amodal mask."""

    def __init__(self, s: MaskSettings) -> None:
        super().__init__(s, {"mask": 1.0})
        self.net = nn.Sequential(UNet(4, s.width), nn.Conv2d(s.width, self.heads, 1))

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 1e-4."""
        return dict.fromkeys(self.turns(), ADAM)

    def forward(self, batch: Batch) -> Output:
        """Mask logits."""
        self.check_input(batch)
        return self.masks(self.net(torch.cat([batch.image, batch.given], 1)), batch.given)

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Cross-entropy."""
        mask = L.mask_ce(output.need("amodal"), batch.need("amodal"))
        return {"mask": mask, **self.modal_term(output, batch.need("modal"))}


class ContentModel(ContentBaseline):
    """The picture without its hole, and both masks, to the picture."""

    def __init__(self, s: ContentSettings) -> None:
        super().__init__(s, {"l1": 1.0})
        self.net = nn.Sequential(UNet(5, s.width), nn.Conv2d(s.width, 3, 1))

    def forward(self, batch: Batch) -> Output:
        """A picture in [-1, 1]."""
        self.check_input(batch)
        known = batch.image * (1 - batch.invisible)
        return Output(image=self.net(torch.cat([known, batch.need("modal"), batch.need("amodal")], 1)).tanh())

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """l1."""
        return {"l1": self.l1(output.need("image"), batch.need("target"), batch)}
