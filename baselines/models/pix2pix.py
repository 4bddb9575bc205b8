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

from baselines.base import ADAM_GAN, CRITIC, Baseline, Batch, Optimizer, Output, Result, soft_mask
from baselines.layers import losses as L
from baselines.layers.networks import PatchCritic, SkipUNet, halvings
from baselines.training.settings import Settings, Weight, Width, make_settings

PAPER = "Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017"
TASKS = ("mask", "content")
VERSION = 3


@dataclass(frozen=True)
class Pix2PixSettings(Settings):
    """``l1``: lambda of the paper."""

    critic_width: Width = 64
    dropout: bool = True
    l1: Weight = 100.0


def build(task: str, **settings: Any) -> Baseline:
    """The same network for both tasks; only what goes in and out differs."""
    return Pix2Pix("mask" if task == "mask" else "content", make_settings(Pix2PixSettings, settings))


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


class Pix2Pix(Baseline):
    """Conditional GAN from (image, mask) to the amodal mask, or from (image, both masks) to the picture."""

    settings: Pix2PixSettings

    def __init__(self, task: Any, s: Pix2PixSettings) -> None:
        super().__init__(task, s, {"adversarial": 1.0, "l1": s.l1, "critic": 1.0})
        inputs, outputs = (4, 1) if task == "mask" else (5, 3)
        self.net = SkipUNet(inputs, outputs, s.width, halvings(s.size), s.dropout)
        self.critic = PatchCritic(inputs + outputs, s.critic_width)
        self.apply(gaussian_init)
        self.gan = L.Adversarial("bce")

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 2e-4, beta1 = 0.5 (§3.3)."""
        return dict.fromkeys(self.turns(), ADAM_GAN)

    def condition(self, batch: Batch) -> Tensor:
        """What the generator and the critic are given."""
        masks = [batch.given] if self.task == "mask" else [batch.need("modal"), batch.need("amodal")]
        return torch.cat([batch.image, *masks], 1)

    def forward(self, batch: Batch) -> Output:
        """Mask logits, or a picture in [-1, 1]."""
        self.check_input(batch)
        made = self.net(self.condition(batch))
        return Output(amodal=made) if self.task == "mask" else Output(image=made.tanh())

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Adversarial on the condition and the result; l1."""
        if self.task == "mask":
            made, truth = output.need("amodal").sigmoid(), batch.need("amodal")
        else:
            made, truth = output.need("image"), batch.need("target")
        condition = self.condition(batch)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([condition, p], 1)) for p in (truth, made.detach()))
            return {"critic": self.gan.critic(real, fake)}
        fake = self.critic(torch.cat([condition, made], 1))
        return {"adversarial": self.gan.maker(fake), "l1": F.l1_loss(made, truth)}

    def predict(self, batch: Batch) -> Result:
        """The generator's own masks or picture."""
        out = self(batch)
        if self.task == "mask":
            return Result(batch.given, soft_mask(out.need("amodal")))
        return Result(batch.modal, batch.amodal, image=out.need("image"))
