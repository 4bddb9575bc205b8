"""DeepFill v2 (Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, §3 and figure 3).

Gated convolutions throughout; a coarse stage with dilations; a refinement stage of two branches, one dilated, one with
contextual attention (Yu et al. 2018); SN-PatchGAN with the hinge loss; l1 of both stages. Ours differs: the user's
sketch channel carries the person's visible mask, which the task allows every model to see; the hole is the
invisible mask; the second stage sees both masks beside the picture (the published one the picture alone). Without them
the generator has the published code's 4.05 M parameters (the paper says 4.1 M), with them 4,057,278.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.base import CRITIC, Baseline, Batch, ContentBaseline, Optimizer, Output, composite
from baselines.layers import losses as L
from baselines.layers.attention import ContextualAttention
from baselines.layers.networks import GatedConv2d, SNPatchCritic
from baselines.training.settings import SharedContentSettings, Width, make_settings

PAPER = "Yu et al., Free-Form Image Inpainting with Gated Convolution, ICCV 2019"
TASKS = ("content",)
IN_PAPER = True
VERSION = 3


@dataclass(frozen=True)
class DeepfillSettings(SharedContentSettings):
    """``width``: features of the first layer after gating (the published 48 before it)."""

    width: Width = 24
    critic_width: Width = 64


def build(task: str, **settings: Any) -> Baseline:
    """Coarse-to-fine painting for "content"."""
    return Deepfill(make_settings(DeepfillSettings, settings))


class Up(nn.Module):
    """Nearest-neighbour doubling, then a gated convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = GatedConv2d(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, 2 H, 2 W]."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _encoder(inputs: int, c: int, second: int, fourth: int) -> list[nn.Module]:
    """To stride 4, with ``second`` and ``fourth`` features after the two layers of stride 2, and 4 c at the end."""
    return [
        GatedConv2d(inputs, c, 5),
        GatedConv2d(c, second, 3, 2),
        GatedConv2d(second, 2 * c),
        GatedConv2d(2 * c, fourth, 3, 2),
        GatedConv2d(fourth, 4 * c),
    ]


def _dilated(c: int) -> list[nn.Module]:
    """A plain layer and four dilated ones."""
    return [GatedConv2d(4 * c, 4 * c, dilation=d) for d in (1, 2, 4, 8, 16)]


def _decoder(inputs: int, c: int) -> list[nn.Module]:
    return [
        GatedConv2d(inputs, 4 * c),
        GatedConv2d(4 * c, 4 * c),
        Up(4 * c, 2 * c),
        GatedConv2d(2 * c, 2 * c),
        Up(2 * c, c),
        GatedConv2d(c, max(c // 2, 4)),
        nn.Conv2d(max(c // 2, 4), 3, 3, padding=1),
        nn.Tanh(),
    ]


class Refinement(nn.Module):
    """The second stage: both branches to stride 4, joined, and one decoder. The plain branch is the narrower one."""

    def __init__(self, inputs: int, c: int) -> None:
        super().__init__()
        self.plain = nn.Sequential(*_encoder(inputs, c, c, 2 * c), *_dilated(c))
        match = GatedConv2d(4 * c, 4 * c, positive=True)  # positive features: a cosine of 0 is no resemblance
        self.before = nn.Sequential(*_encoder(inputs, c, c, 4 * c), match)
        self.attention = ContextualAttention()
        self.after = nn.Sequential(GatedConv2d(4 * c, 4 * c), GatedConv2d(4 * c, 4 * c))
        self.decoder = nn.Sequential(*_decoder(8 * c, c))

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        """[B, inputs, H, W] to a picture [B, 3, H, W] in [-1, 1]."""
        copied = self.after(self.attention(self.before(x), F.max_pool2d(hole, 4)))
        return self.decoder(torch.cat([self.plain(x), copied], 1))


class Deepfill(ContentBaseline):
    """Coarse and refined pictures in [-1, 1]; the refined one is the answer."""

    settings: DeepfillSettings

    def __init__(self, s: DeepfillSettings) -> None:
        super().__init__(s, {"adversarial": 1.0, "l1_coarse": 1.0, "l1": 1.0, "critic": 1.0})
        c = s.width
        self.coarse = nn.Sequential(*_encoder(5, c, 2 * c, 4 * c), *_dilated(c), *_decoder(4 * c, c))
        self.fine = Refinement(5, s.width)
        self.critic = SNPatchCritic(5, s.critic_width)
        self.gan = L.Adversarial("hinge")

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 1e-4, beta1 = 0.5."""
        return dict.fromkeys(self.turns(), Optimizer("adam", 1e-4, betas=(0.5, 0.999)))

    def forward(self, batch: Batch) -> Output:
        """The coarse picture's hole is pasted into the input of the second stage."""
        self.check_input(batch)
        hole = batch.invisible
        masks = torch.cat([hole, batch.need("modal")], 1)
        known = batch.image * (1 - hole)
        coarse = self.coarse(torch.cat([known, masks], 1))
        fine = self.fine(torch.cat([composite(known, coarse, hole), masks], 1), hole)
        return Output(image=fine, extra={"coarse": coarse})

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Hinge on the composite beside its masks; l1 of both stages."""
        fine, truth, hole = output.need("image"), batch.need("target"), batch.invisible
        masks = torch.cat([hole, batch.need("modal")], 1)
        shown = composite(batch.image, fine, hole)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([p, masks], 1)) for p in (truth, shown.detach()))
            return {"critic": self.gan.discriminator(real, fake)}
        return {
            "adversarial": self.gan.generator(self.critic(torch.cat([shown, masks], 1))),
            "l1_coarse": self.l1(output.extra["coarse"], truth, batch),
            "l1": self.l1(fine, truth, batch),
        }
