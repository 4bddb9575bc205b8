"""PCNets (Zhan et al., "Self-Supervised Scene De-occlusion", CVPR 2020): PCNet-M (§3.2) and PCNet-C (§3.3).

PCNet-M learns from two cases: an eraser in front of the person, whose hidden part must come back, and an eraser
behind, where nothing may be added (``front`` = 0.8 of the first, the published setting). Its loss weighs pixels inside
the eraser 5 times. Ours differs where this project's task does:

- No occluder is segmented here and no order is known, so the eraser is all that is not the given mask: the published
  rule without order truth, where every neighbour may occlude, with everything else as the neighbour.
- Case 1 is the occluded photograph with its given mask, the one that it is handed at test time (``learn_from="modal"``
  takes the true visible mask); case 2 is the picture in which the same occluder lies behind, with the whole mask.
- The image is an input beside the masks, whole; the published code (``use_rgb``, off in its COCOA run) feeds it to an
  encoder of its own and, in training, erased under the eraser. The mask's two classes are one logit.
- The rate is the recipe's, without steps: theirs falls to a tenth at 32k and again at 48k of 56k.

PCNet-C: partial-convolution U-Net of image and visible mask, loss weights and a tenth of the rate for the critic as
published; the critic sees the picture and the visible mask. The published pictures are divided by ImageNet's deviation,
ours lie in [-1, 1]: the weights of what is measured in their units (hole, valid, total variation) are multiplied by the
ratio, 2.2. Ours differs: the critic's picture is the composite (theirs is the raw output), its Adam has betas
(0.9, 0.999) (theirs (0, 0.9)), and the total variation is that of the hole dilated by a pixel, as in Liu et al. (theirs
that of the whole composite).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from baselines.base import (
    CRITIC,
    GENERATOR,
    Baseline,
    Batch,
    ContentBaseline,
    MaskBaseline,
    Optimizer,
    Output,
    composite,
)
from baselines.layers import losses as L
from baselines.layers.networks import PatchCritic, UNet
from baselines.layers.pconv import PartialUNet, partial_levels
from baselines.layers.synced import drawn
from baselines.training.settings import (
    OneOf,
    Share,
    SharedContentSettings,
    SharedMaskSettings,
    Threshold,
    Weight,
    Width,
    make_settings,
)

PAPER = "Zhan et al., Self-Supervised Scene De-occlusion, CVPR 2020"
TASKS = ("mask", "content")
IN_PAPER = True
VERSION = 2
UNIT = 0.5 / 0.225  # ours is half of [0, 1], theirs ImageNet's deviation, the mean of its three


@dataclass(frozen=True)
class MaskSettings(SharedMaskSettings):
    """PCNet-M. ``front``: share of case 1; ``threshold``: the published one, inside the eraser."""

    width: Width = 32
    front: Share = 0.8
    learn_from: Annotated[str, OneOf(("given", "modal"))] = "given"
    inside: Weight = 5.0
    threshold: Threshold = 0.2


@dataclass(frozen=True)
class ContentSettings(SharedContentSettings):
    """PCNet-C, with the published loss weights, in the published units (see `UNIT`).

    ``loss="hole"`` takes l1 as a mean over the invisible pixels and leaves out the term of the valid ones.
    """

    critic_width: Width = 64
    hole: Weight = 6.0
    valid: Weight = 1.0
    tv: Weight = 0.1
    perceptual: Weight = 0.1
    style: Weight = 250.0
    adversarial: Weight = 0.1


def build(task: str, **settings: Any) -> Baseline:
    """PCNet-M for "mask", PCNet-C for "content"."""
    if task == "mask":
        return PCNetM(make_settings(MaskSettings, settings))
    return PCNetC(make_settings(ContentSettings, settings))


class PCNetM(MaskBaseline):
    """Partial completion of masks."""

    settings: MaskSettings

    def __init__(self, s: MaskSettings) -> None:
        super().__init__(s, {"mask": 1.0})
        self.net = UNet(5, s.width)
        self.head = nn.Conv2d(s.width, self.heads, 1)

    def optimizers(self) -> dict[str, Optimizer]:
        """SGD with momentum, 1e-3, weight decay 1e-4 (published)."""
        return {GENERATOR: Optimizer("sgd", 1e-3, weight_decay=1e-4)}

    def forward(self, batch: Batch) -> Output:
        """In training each person is one of the two cases, drawn from torch's generator; else always case 1."""
        self.check_input(batch)
        image, mask, seen = batch.image, batch.given, batch.modal
        if self.training:
            mask = mask if self.settings.learn_from == "given" else batch.need("modal")
            chance = drawn(len(image), lambda n: torch.rand(n, device=image.device))
            behind = chance[:, None, None, None] >= self.settings.front
            image = torch.where(behind, batch.need("target"), image)
            mask = torch.where(behind, batch.need("amodal"), mask)
            seen = torch.where(behind, batch.need("amodal"), batch.need("modal"))
        eraser = 1 - mask
        logits = self.head(self.net(torch.cat([mask, eraser, image], 1)))
        return self.masks(logits, mask, eraser=eraser, **({} if seen is None else {"seen": seen}))

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Cross-entropy with the whole person as truth in both cases, heavier inside the eraser."""
        weight = 1 + (self.settings.inside - 1) * output.extra["eraser"]
        mask = L.mask_ce(output.need("amodal"), batch.need("amodal"), weight)
        return {"mask": mask} | (self.modal_term(output, output.extra["seen"], weight) if self.heads == 2 else {})


class PCNetC(ContentBaseline):
    """Partial completion of content."""

    settings: ContentSettings

    def __init__(self, s: ContentSettings) -> None:
        weights = {k: getattr(s, k) for k in ("perceptual", "style", "adversarial")}
        weights |= {k: getattr(s, k) * UNIT for k in ("hole", "valid", "tv")}
        super().__init__(s, weights | {"critic": 1.0})
        self.net = PartialUNet(4, 3, s.width, partial_levels(s.size))
        self.critic = PatchCritic(4, s.critic_width, norm="spectral")
        self.gan = L.Adversarial("bce")

    def facts(self) -> dict[str, str]:
        """Which VGG the perceptual and style losses used."""
        return {"perceptual": L.vgg16(self.settings.vgg).label}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 1e-4; the critic a tenth of it."""
        maker = Optimizer("adam", 1e-4)
        return {CRITIC: replace(maker, lr=1e-5), GENERATOR: maker}

    def forward(self, batch: Batch) -> Output:
        """Paint the hole."""
        self.check_input(batch)
        valid = 1 - batch.invisible
        return Output(image=self.net(torch.cat([batch.image * valid, batch.need("modal")], 1), valid))

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Liu et al.'s inpainting loss and the adversarial term; perceptual and style on both pictures."""
        raw, truth, hole, modal = output.need("image"), batch.need("target"), batch.invisible, batch.need("modal")
        shown = composite(batch.image, raw, hole)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([p, modal], 1)) for p in (truth, shown.detach()))
            return {"critic": self.gan.discriminator(real, fake)}
        vgg = L.vgg16(self.settings.vgg)
        pair = [L.perceptual(vgg, picture, truth) for picture in (raw, shown)]
        whole = self.settings.loss == "whole"
        return {
            "hole": L.masked_l1(raw, truth, hole) if whole else self.l1(raw, truth, batch),
            **({"valid": L.masked_l1(raw, truth, 1 - hole)} if whole else {}),
            "tv": L.total_variation(shown, hole),
            "perceptual": pair[0][0] + pair[1][0],
            "style": pair[0][1] + pair[1][1],
            "adversarial": self.gan.generator(self.critic(torch.cat([shown, modal], 1))),
        }
