"""The mean person: the training people's mean amodal mask, placed on the box of the initial mask and joined with it.

Each training mask is cut to its own box and resized to SIDE px; a pixel is the person's where over half of the people
have it. A row that every mask model must beat; no training beyond the mean.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from baselines.base import Baseline, Batch, Result
from baselines.training.settings import Settings, make_settings

PAPER = "the training people's mean amodal mask on the initial mask's box"
TASKS = ("mask",)
IN_PAPER = False
VERSION = 1
SIDE = 64  # of the template, px


def build(task: str, **settings: Any) -> Baseline:
    """The mean template."""
    return MeanTemplate(make_settings(Settings, settings))


class MeanTemplate(Baseline):
    """The initial mask, joined with the mean template on its box."""

    template: Tensor
    wants_masks = True

    def __init__(self, s: Settings) -> None:
        super().__init__("mask", s, {})
        self.register_buffer("template", torch.zeros(SIDE, SIDE))

    def prepare(self, masks: Tensor, seed: int = 0) -> None:
        """The mean of the masks, each on its own box.

        Raises:
            UserError: when none of them has a pixel.
        """
        filled = (masks > 0)[(masks > 0).flatten(1).any(1)].float()[:, None]
        if not len(filled):
            raise UserError(f"the mean template needs amodal masks [N, h, w] of training people, got {[*masks.shape]}")
        self.template.copy_(torch.cat([_cut_out(m) for m in filled.split(256)]).mean(0)[0])

    def predict(self, batch: Batch) -> Result:
        """The initial mask and its union with the template."""
        return Result(batch.given, torch.maximum(batch.given, _placed(self.template, batch.given)))


def _box_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and half sizes of the tight boxes of float 0/1 masks [B, 1, H, W], [B, 2] (x, y) in [-1, 1]."""
    ends = []
    for axis in (2, 3):  # columns, rows
        used = masks.amax((1, axis))
        size = used.shape[1]
        ends.append((used.argmax(1) / size, 1 - used.flip(1).argmax(1) / size))
    low, high = (torch.stack([x, y], 1) * 2 - 1 for x, y in zip(*ends, strict=True))
    return (low + high) / 2, (high - low) / 2


def _sampled(picture: Tensor, scale: Tensor, shift: Tensor, side: tuple[int, int]) -> Tensor:
    theta = torch.cat([torch.diag_embed(scale), shift[:, :, None]], 2)
    grid = F.affine_grid(theta, [len(picture), 1, *side], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


def _cut_out(masks: Tensor) -> Tensor:
    """Masks [N, 1, h, w] cut to their own boxes, [N, 1, SIDE, SIDE]."""
    centre, half = _box_of(masks)
    return _sampled(masks, half, centre, (SIDE, SIDE))


def _placed(template: Tensor, masks: Tensor) -> Tensor:
    """The template on the boxes of masks [B, 1, H, W]: soft; 0 for an empty mask."""
    centre, half = _box_of(masks)
    size = (masks.shape[2], masks.shape[3])
    made = _sampled(template.expand(len(masks), 1, -1, -1), 1 / half, -centre / half, size)
    return made * masks.amax((1, 2, 3), keepdim=True)
