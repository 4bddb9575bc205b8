"""SeGAN (Ehsani et al., "SeGAN: Segmenting and Generating the Invisible", CVPR 2018, §3).

The segmentor: a ResNet-18 on image and visible mask gives the mask of the full object at a quarter of the resolution
(58x58 of 224 there). The painter: a U-Net generator given what is visible and where the object is, with a conditional
patch discriminator, adversarial + 100 x l1 of the object alone, a mean over the whole crop. Ours differs: the
segmentor's cross-entropy weighs all pixels alike unless asked (the published code, github.com/ehsanik/SeGAN,
SettingsParser.lua: 1, 5 and 3 over the regions' mean pixel counts), since theirs made a weaker baseline of it: an
invisible IoU of .22 in place of .31 after `debug` on the sample world; its rate is a constant 1e-2 with momentum 0.9
(theirs plain SGD at 1e-3, falling every 20k iterations); random weights unless ``pretrained`` (theirs is ImageNet's
ResNet-18); the segmentor's fully connected layer is a linear map from each cell of the last feature to its 8x8
sub-pixels, so that any size works; the two networks are trained each for its own task (the published training joins
them at the end); the masks are inputs of the painter instead of a colour painted into the image, and the picture around
the object stays, which theirs paints in one colour; initial weights are torch's (the published painter and critic:
N(0, 0.02)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from baselines.base import (
    ADAM_GAN,
    CRITIC,
    GENERATOR,
    Baseline,
    Batch,
    ContentBaseline,
    MaskBaseline,
    Optimizer,
    Output,
)
from baselines.layers import losses as L
from baselines.layers.networks import PatchCritic, SkipUNet, halvings
from baselines.training.settings import SharedContentSettings, SharedMaskSettings, Weight, Width, make_settings

PAPER = "Ehsani et al., SeGAN: Segmenting and Generating the Invisible, CVPR 2018"
TASKS = ("mask", "content")
IN_PAPER = True
VERSION = 3
REGION_PX = (37_000, 27_000, 12_000)  # mean pixel counts of background, visible, invisible, published (norm2D_cvpr)
PUBLISHED = {"background": 1 / REGION_PX[0], "visible": 5 / REGION_PX[1], "invisible": 3 / REGION_PX[2]}


@dataclass(frozen=True)
class SegmentorSettings(SharedMaskSettings):
    """The ResNet-18 segmentor. ``background``, ``visible``, ``invisible``: its weight of one pixel of a region.

    Only their ratios count (see `region_weights`); equal ones, the default, give the plain cross-entropy. `PUBLISHED`
    are the published ones. ``pretrained``: it starts from torchvision's ImageNet weights.
    """

    background: Weight = 1.0
    visible: Weight = 1.0
    invisible: Weight = 1.0
    pretrained: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.background, self.visible, self.invisible)
        if max(weights) == 0:
            raise UserError(f"background, visible and invisible must not all be 0, got {weights}")


@dataclass(frozen=True)
class PainterSettings(SharedContentSettings):
    """``l1``: its weight, of a mean over the crop."""

    critic_width: Width = 64
    l1: Weight = 100.0


def build(task: str, **settings: Any) -> Baseline:
    """The segmentor for "mask", the painter for "content"."""
    if task == "mask":
        return Segmentor(make_settings(SegmentorSettings, settings))
    return Painter(make_settings(PainterSettings, settings))


def region_weights(s: SegmentorSettings) -> tuple[float, float, float]:
    """Weights of a background, a visible and an invisible pixel, their mean 1 over the published pixel counts."""
    given = (s.background, s.visible, s.invisible)
    scale = sum(REGION_PX) / sum(n * w for n, w in zip(REGION_PX, given, strict=True))
    return given[0] * scale, given[1] * scale, given[2] * scale


class Segmentor(MaskBaseline):
    """Full mask from image and visible mask."""

    settings: SegmentorSettings

    def __init__(self, s: SegmentorSettings) -> None:
        super().__init__(s, {"mask": 1.0})
        self.regions = region_weights(s)
        self.net = torchvision.models.resnet18(weights="DEFAULT" if s.pretrained else None)
        first, self.net.conv1 = self.net.conv1, nn.Conv2d(4, 64, 7, 2, 3, bias=False)
        if s.pretrained:  # the mask's filters start as red's, as published
            with torch.no_grad():
                self.net.conv1.weight.copy_(torch.cat([first.weight, first.weight[:, :1]], 1))
        self.net.avgpool, self.net.fc = nn.Identity(), nn.Identity()
        self.head = nn.Conv2d(512, 64 * self.heads, 1)

    def optimizers(self) -> dict[str, Optimizer]:
        """SGD with momentum 0.9, constant 1e-2: the network is alone and batch-normalised."""
        return {GENERATOR: Optimizer("sgd", 1e-2)}

    def forward(self, batch: Batch) -> Output:
        """Mask logits, computed at a quarter of the resolution."""
        self.check_input(batch)
        r = self.net
        x = r.maxpool(r.relu(r.bn1(r.conv1(torch.cat([batch.image, batch.given], 1)))))
        x = F.pixel_shuffle(self.head(r.layer4(r.layer3(r.layer2(r.layer1(x))))), 8)
        logits = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        return self.masks(logits, batch.given)

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Cross-entropy of the full mask, weighted by region."""
        around, seen, hidden = self.regions
        truth, modal = batch.need("amodal"), batch.need("modal")
        weight = torch.where(modal > 0, seen, torch.where(truth > 0, hidden, around))
        return {"mask": L.mask_ce(output.need("amodal"), truth, weight), **self.modal_term(output, modal, weight)}


class Painter(ContentBaseline):
    """The object's hidden appearance, by a conditional GAN."""

    settings: PainterSettings

    def __init__(self, s: PainterSettings) -> None:
        super().__init__(s, {"adversarial": 1.0, "l1": s.l1, "critic": 1.0})
        self.net = SkipUNet(5, 3, s.width, halvings(s.size))
        self.critic = PatchCritic(8, s.critic_width)
        self.gan = L.Adversarial("bce")

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 2e-4, beta1 = 0.5, as pix2pix."""
        return dict.fromkeys(self.turns(), ADAM_GAN)

    def condition(self, batch: Batch) -> Tensor:
        """The image without the hidden region, the visible and the full mask."""
        return torch.cat([batch.image * (1 - batch.invisible), batch.need("modal"), batch.need("amodal")], 1)

    def forward(self, batch: Batch) -> Output:
        """A picture in [-1, 1] of which only the object counts."""
        self.check_input(batch)
        return Output(image=self.net(self.condition(batch)).tanh())

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Adversarial on the object alone; l1 of the object alone."""
        amodal = batch.need("amodal")
        truth, made = batch.need("target") * amodal, output.need("image") * amodal
        condition = self.condition(batch)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([condition, p], 1)) for p in (truth, made.detach()))
            return {"critic": self.gan.discriminator(real, fake)}
        fake = self.critic(torch.cat([condition, made], 1))
        return {"adversarial": self.gan.generator(fake), "l1": self.l1(made, truth, batch)}
