"""pix2pix (Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, §3, §6).

U-Net-256 generator with skips and dropout, conditional 70x70 PatchGAN, adversarial + 100 x l1, Adam 2e-4 with
beta1 = 0.5, weights N(0, 0.02). Ours differs: the mask task ends in a sigmoid (l1 of soft masks) instead of tanh; the
depth follows the crop (8 halvings at 256 px, 6 at 64); at test time dropout is off and batch norm uses its running
statistics, so that one input has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.base import ADAM_GAN, CRITIC, Baseline, Batch, ContentBaseline, MaskBaseline, Optimizer, Output
from baselines.layers import losses as L
from baselines.layers.networks import PatchCritic, SkipUNet, halvings
from baselines.training.settings import (
    Settings,
    SharedContentSettings,
    SharedMaskSettings,
    Weight,
    Width,
    make_settings,
)

PAPER = "Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017"
TASKS = ("mask", "content")
IN_PAPER = True
VERSION = 3


@dataclass(frozen=True)
class Pix2PixSettings(Settings):
    """``l1``: lambda of the paper."""

    critic_width: Width = 64
    dropout: bool = True
    l1: Weight = 100.0


@dataclass(frozen=True)
class MaskSettings(Pix2PixSettings, SharedMaskSettings):
    """From (image, initial mask) to masks."""


@dataclass(frozen=True)
class ContentSettings(Pix2PixSettings, SharedContentSettings):
    """From (image, both masks) to the picture."""


def build(task: str, **settings: Any) -> Baseline:
    """The same network for both tasks; only what goes in and out differs."""
    if task == "mask":
        return MaskModel(make_settings(MaskSettings, settings))
    return ContentModel(make_settings(ContentSettings, settings))


def gaussian_init(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases for convolutions, N(1, 0.02) scales for norms (Isola et al., §6.2)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


GAN = L.Adversarial("bce")


def players(s: Pix2PixSettings, inputs: int, outputs: int, judged: int) -> tuple[SkipUNet, PatchCritic]:
    """Generator and critic, which judges ``judged`` channels beside the inputs."""
    net = SkipUNet(inputs, outputs, s.width, halvings(s.size), s.dropout)
    return net.apply(gaussian_init), PatchCritic(inputs + judged, s.critic_width).apply(gaussian_init)


class MaskModel(MaskBaseline):
    """Conditional GAN from (image, initial mask) to the amodal mask; the critic judges that mask."""

    settings: MaskSettings

    def __init__(self, s: MaskSettings) -> None:
        super().__init__(s, {"adversarial": 1.0, "l1": s.l1, "critic": 1.0}, s.l1)
        self.net, self.critic = players(s, 4, self.heads, 1)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 2e-4, beta1 = 0.5 (§3.3)."""
        return dict.fromkeys(self.turns(), ADAM_GAN)

    def forward(self, batch: Batch) -> Output:
        """Mask logits."""
        self.check_input(batch)
        return self.masks(self.net(torch.cat([batch.image, batch.given], 1)), batch.given)

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Adversarial on the condition and the mask; l1 of soft masks."""
        made, truth = output.need("amodal").sigmoid(), batch.need("amodal")
        condition = torch.cat([batch.image, batch.given], 1)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([condition, p], 1)) for p in (truth, made.detach()))
            return {"critic": GAN.discriminator(real, fake)}
        fake = self.critic(torch.cat([condition, made], 1))
        terms = {"adversarial": GAN.generator(fake), "l1": F.l1_loss(made, truth)}
        return terms | self.modal_term(output, batch.need("modal"))

    def modal_term(self, output: Output, truth: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """l1, as of the amodal mask."""
        return {} if output.modal is None else {"modal": F.l1_loss(output.modal.sigmoid(), truth)}


class ContentModel(ContentBaseline):
    """Conditional GAN from (image, both masks) to the picture."""

    settings: ContentSettings

    def __init__(self, s: ContentSettings) -> None:
        super().__init__(s, {"adversarial": 1.0, "l1": s.l1, "critic": 1.0})
        self.net, self.critic = players(s, 5, 3, 3)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 2e-4, beta1 = 0.5 (§3.3)."""
        return dict.fromkeys(self.turns(), ADAM_GAN)

    def condition(self, batch: Batch) -> Tensor:
        """What the generator and the critic are given."""
        return torch.cat([batch.image, batch.need("modal"), batch.need("amodal")], 1)

    def forward(self, batch: Batch) -> Output:
        """A picture in [-1, 1]."""
        self.check_input(batch)
        return Output(image=self.net(self.condition(batch)).tanh())

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Adversarial on the condition and the picture; l1."""
        made, truth, condition = output.need("image"), batch.need("target"), self.condition(batch)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([condition, p], 1)) for p in (truth, made.detach()))
            return {"critic": GAN.discriminator(real, fake)}
        fake = self.critic(torch.cat([condition, made], 1))
        return {"adversarial": GAN.generator(fake), "l1": self.l1(made, truth, batch)}
