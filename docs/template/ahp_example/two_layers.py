"""A model: two convolutions from picture and initial mask to the whole person."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Baseline, Batch, Output, Result
from baselines.layers.aids import soft_mask
from baselines.layers.losses import mask_ce
from baselines.training.settings import Settings, make_settings

PAPER = "an example"
TASKS = ("mask",)
VERSION = 1


class TwoLayers(Baseline):
    """``weights`` names the factor of each loss."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("mask", settings, {"mask": 1.0})
        width = settings.width
        self.net = nn.Sequential(nn.Conv2d(4, width, 7, padding=3), nn.ReLU(), nn.Conv2d(width, 1, 7, padding=3))

    def forward(self, batch: Batch) -> Output:
        """Mask logits [B, 1, H, W]."""
        return Output(amodal=self.net(torch.cat([batch.image, batch.given], 1)))

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Cross-entropy of the whole mask."""
        return {"mask": mask_ce(output.need("amodal"), batch.need("amodal"))}

    def predict(self, batch: Batch) -> Result:
        """The whole person as a soft mask in [0, 1]; the visible part is the initial mask."""
        return Result(batch.given, soft_mask(self(batch).need("amodal")))


def build(task: str, **settings: Any) -> Baseline:
    """The model with its settings checked."""
    return TwoLayers(make_settings(Settings, settings))
