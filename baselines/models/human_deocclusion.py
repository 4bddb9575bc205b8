"""The paper's two networks (Zhou et al., "Human De-occlusion", CVPR 2021, §3.2 and §3.3; supplement).

Every row of Tables 4, 5 and 6 is a setting: see TABLE4, TABLE5, TABLE6. Where the paper is silent, or ours differs:

- The masks' two-class cross-entropy is taken on one logit, which is the same function.
- By default both masks are eq. 2 and figure 1 to the letter, each cut by itself: N_a must wait until N_m has learnt to
  hand the initial mask on. ``carried=True`` lets N_a see it and makes both masks changes of it, ``hidden`` decides them
  jointly (see `aids`); with both, invisible IoU rises by 2 to 3 points.
- The heads' hidden channels are batch-normalised, as every other 3x3 convolution is: else a quarter to a half die.
  Parsings begin at background.
- The adversarial term is the paper's for the critic; the generator minimises -log D, the non-saturating form
  (``adversarial="log"`` gives eq. 3 to the letter).
- The adversarial term of eq. 3 has weight 1, and in the published code it comes after an argmax and trains nothing.
  Let through, its gradient is 15 to 60 times that of the mean cross-entropy beside it (64 px) and invisible IoU falls
  from .30 to .13 (sample world, debug). So its gradient is held, a sample, to a share of the amodal cross-entropy's:
  ``l_share`` of Table 4's rows with a critic; 0 leaves eq. 3 as it is printed.
- "PatchGAN of four convolution layers" is C64-C128-C256-C512 and a last convolution to the patch logits.
- L_gen (l1 and perceptual) stays on in the ablations: the column "discriminator" of Table 4 is the critic alone.
- Dimming is done on [-1, 1] values. The adversarial, perceptual and style terms of eq. 7 see the composite: what is
  shown. l1 is a mean over the invisible pixels (``loss="whole"``: of the raw picture over the crop).
- The U-Net is as deep as leaves its innermost map 2x2, as at 256 px: 5 levels at 64 px (see `pconv.partial_levels`).
- Positions that Attention.T filled count as known to the partial convolutions from there on: else the next layer
  would erase them.
- PGA's convolutions are 1x1, as the paper and listing 1 say; the published code has 3x3 (``pga_kernel=3``, with
  ``pga_form="listing"`` and ``pga_skip=False``: then the parameter count is the authors' 55.6 M).
- ``template_rule="softmax"`` is the authors' rule on 32x32 masks: theirs enlarges the templates and multiplies at full
  resolution, whose products are 64 times ours at 256 px. Their k-means is on masks cut to tight boxes, ours on crops.
- On few people there are fewer clusters than the authors' 100 to 150: see `templates.EACH`.
- Parsings are the argmax: the published code multiplies each by its predicted mask before use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from baselines.base import (
    ADAM,
    CRITIC,
    GENERATOR,
    SGD,
    Baseline,
    Batch,
    ContentBaseline,
    MaskBaseline,
    Optimizer,
    Output,
    composite,
)
from baselines.layers import losses as L
from baselines.layers.completion import MaskCompletion
from baselines.layers.networks import Masked, PatchCritic
from baselines.layers.pconv import PartialUNet, partial_levels
from baselines.layers.pga import Guide, ParsingGuidedAttention, one_hot_parts
from baselines.layers.templates import fit_templates
from baselines.training.settings import (
    Count,
    GanKind,
    Natural,
    OneOf,
    Share,
    SharedContentSettings,
    SharedMaskSettings,
    Threshold,
    Weight,
    Width,
    make_settings,
)

PAPER = "Zhou et al., Human De-occlusion: Invisible Perception and Recovery for Humans, CVPR 2021"
TASKS = ("mask", "content")
IN_PAPER = True
VERSION = 3


@dataclass(frozen=True)
class MaskSettings(SharedMaskSettings):
    """Stage 1. ``two``: the modal branch; ``templates``: how many are kept, 0: none; ``clusters``: of the k-means, at
    most one for 20 people; weights as in §5.1. ``l_share``: most that the adversarial gradient may be of the amodal
    cross-entropy's (L2, each sample, both times their weights); 0: no limit.
    """

    width: Width = 32
    critic_width: Width = 64
    two: bool = True
    discriminator: bool = True
    parsing: bool = True
    templates: Natural = 64
    clusters: Count = 128
    template_rule: Annotated[str, OneOf(("l2", "softmax"))] = "l2"
    adversarial: GanKind = "bce"
    l_seg: Weight = 1.0
    l_adv: Weight = 1.0
    l_share: Weight = 0.1
    l_gen: Weight = 0.1
    threshold: Threshold = 0.5


@dataclass(frozen=True)
class ContentSettings(SharedContentSettings):
    """Stage 2. ``w``: the background's weight; ``attention_b``, ``attention_t``, ``structure``: Table 6."""

    loss: Annotated[str, OneOf(("hole", "whole"))] = "hole"
    critic_width: Width = 64
    w: Share = 0.3
    attention_b: bool = True
    attention_t: bool = True
    structure: Annotated[str, OneOf(("fusion", "cascade"))] = "fusion"
    pga_form: Annotated[str, OneOf(("eq6", "two_way", "listing"))] = "eq6"
    pga_kernel: Annotated[int, OneOf((1, 3))] = 1
    pga_skip: bool = True
    adversarial: GanKind = "bce"
    b_adv: Weight = 0.1
    b_l1: Weight = 1.0
    b_perceptual: Weight = 1.0
    b_style: Weight = 40.0


TABLE4: dict[str, dict[str, Any]] = {
    "1 base": {"discriminator": False, "two": False, "parsing": False, "templates": 0},
    "2 + discriminator": {"two": False, "parsing": False, "templates": 0},
    "3 + modal": {"parsing": False, "templates": 0},
    "4 + parsing": {"templates": 0},
    "5 templates in place of parsing": {"parsing": False},
    "6 all": {},
}
TABLE5: dict[str, dict[str, Any]] = {
    f"w = {w}": {"w": w, "attention_b": False, "attention_t": False} for w in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
}
TABLE6: dict[str, dict[str, Any]] = {
    "1 none": {"w": 1.0, "attention_b": False, "attention_t": False},
    "2 background 0.3": {"attention_b": False, "attention_t": False},
    "3 Attention.B": {"w": 1.0, "attention_t": False},  # rows 3 and 4 have no tick at Bg: they gain on row 1
    "4 Attention.T": {"w": 1.0, "attention_b": False},
    "5 both, cascade": {"structure": "cascade"},
    "6 both, fusion": {},
}


def build(task: str, **settings: Any) -> Baseline:
    """Stage 1 for "mask", stage 2 for "content"."""
    if task == "mask":
        return MaskModel(make_settings(MaskSettings, settings))
    return ContentModel(make_settings(ContentSettings, settings))


class MaskModel(MaskBaseline):
    """Stage 1: refined modal mask, amodal mask and both parsings."""

    settings: MaskSettings

    def __init__(self, s: MaskSettings) -> None:
        weights = dict.fromkeys(("amodal", "modal_parsing", "amodal_parsing"), s.l_seg)
        weights |= {"adversarial": s.l_adv, "l1": s.l_gen, "perceptual": s.l_gen, "critic": 1.0}
        super().__init__(s, weights, s.l_seg)
        self.carried = None  # each branch has its own
        self.net = MaskCompletion(s.width, s.two, s.parsing, s.templates, s.template_rule, s.carried)
        self.wants_masks = s.templates > 0
        self.adversarial = L.Adversarial(s.adversarial)  # type: ignore[arg-type]
        if s.discriminator:
            self.critic = PatchCritic(1, s.critic_width)

    def prepare(self, masks: Tensor, seed: int = 0) -> None:
        """Find the templates among the training people's amodal masks."""
        if self.net.templates is not None:
            found = fit_templates(masks.cpu(), self.settings.templates, self.settings.clusters, seed=seed)
            self.net.templates.templates.copy_(found)
            self.net.templates.ready.fill_(True)

    def facts(self) -> dict[str, str]:
        """Which VGG the perceptual loss used."""
        return {"perceptual": L.vgg16(self.settings.vgg).label}

    def optimizers(self) -> dict[str, Optimizer]:
        """SGD with momentum, 1e-3 (§5.1)."""
        return dict.fromkeys(self.turns(), SGD)

    def forward(self, batch: Batch) -> Output:
        """Logits of masks and parsings, from the image and the initial mask."""
        self.check_input(batch)
        return self.net(batch)

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Eq. 3: cross-entropies, adversarial, l1 and perceptual; soft masks throughout."""
        truth = batch.need("amodal")
        if self.net.templates is not None and not self.net.templates.known():
            raise UserError("the template masks are not known yet: call prepare() with the training people's masks")
        soft = output.need("amodal").sigmoid()
        if turn == CRITIC:
            return {"critic": self.adversarial.discriminator(self.critic(truth), self.critic(soft.detach()))}
        terms = {"amodal": L.mask_ce(output.need("amodal"), truth)}
        terms |= self.modal_term(output, batch.need("modal"))
        if output.parsing is not None:
            labels, people = batch.parsings(), batch.count("parsed")
            terms["modal_parsing"] = L.parsing_ce(output.need("modal_parsing"), labels[0], batch.parsed, people)
            terms["amodal_parsing"] = L.parsing_ce(output.parsing, labels[1], batch.parsed, people)
        if self.settings.discriminator:
            share = self.settings.l_share * self.settings.l_seg  # 0: there is nothing that it could drown out
            limited = soft if share == 0 else L.limit_gradient(output.need("amodal"), truth, share).sigmoid()
            terms["adversarial"] = self.adversarial.generator(self.critic(limited))
        terms["l1"] = F.l1_loss(soft, truth)
        terms["perceptual"] = L.mask_perceptual(L.vgg16(self.settings.vgg), soft, truth)
        return terms


class ContentModel(ContentBaseline):
    """Stage 2: the partial-convolution U-Net with PGA at four scales.

    Of its five input channels (eq. 5) the amodal mask tells no layer more than the modal one: partial convolutions
    multiply all five by 1 - hole, as in the authors' code, and outside the hole both masks are equal. The hole itself
    they see as their own mask.
    """

    settings: ContentSettings

    def __init__(self, s: ContentSettings) -> None:
        weights = {"adversarial": s.b_adv, "l1": s.b_l1, "perceptual": s.b_perceptual, "style": s.b_style}
        super().__init__(s, weights | {"critic": 1.0})
        self.net = PartialUNet(5, 3, s.width, partial_levels(s.size))
        self.pga = torch.nn.ModuleDict()
        if s.attention_b or s.attention_t:
            for name, channels in self.net.channels.items():
                self.pga[name] = ParsingGuidedAttention(
                    channels,
                    s.attention_b,
                    s.attention_t,
                    s.structure,
                    s.pga_form,  # type: ignore[arg-type]
                    s.pga_kernel,
                    s.pga_skip,
                )
        self.critic = PatchCritic(3, s.critic_width)
        self.adversarial = L.Adversarial(s.adversarial)  # type: ignore[arg-type]

    def facts(self) -> dict[str, str]:
        """Which VGG the perceptual and style losses used."""
        return {"perceptual": L.vgg16(self.settings.vgg).label}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 1e-4 (§5.1)."""
        return dict.fromkeys(self.turns(), ADAM)

    def dimmed(self, image: Tensor, amodal: Tensor) -> Tensor:
        """I' = I * M_a + I * (1 - M_a) * w (§5.3)."""
        return image * (amodal + (1 - amodal) * self.settings.w)

    def forward(self, batch: Batch) -> Output:
        """Paint; ``image`` is the raw prediction, of which only the hole counts."""
        self.check_input(batch)
        modal, amodal, hole = batch.need("modal"), batch.need("amodal"), batch.invisible
        x = torch.cat([self.dimmed(batch.image, amodal), modal, amodal], 1)
        if not self.pga:
            return Output(image=self.net(x, 1 - hole))
        modal_parts, amodal_parts = (one_hot_parts(p) for p in batch.parsings())
        guide = Guide(modal_parts, amodal_parts, modal, hole)
        filled = self.settings.attention_t

        def attend(level: str, here: Masked) -> Masked:
            if level not in self.pga:
                return here
            feature = self.pga[level](here[0], guide)
            return feature, torch.ones_like(here[1]) if filled else here[1]

        return Output(image=self.net(x, 1 - hole, attend))

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Eq. 7: adversarial, l1, perceptual and style."""
        raw, truth = output.need("image"), batch.need("target")
        shown = composite(batch.image, raw, batch.invisible)
        if turn == CRITIC:
            return {"critic": self.adversarial.discriminator(self.critic(truth), self.critic(shown.detach()))}
        assert turn == GENERATOR
        perceptual, style = L.perceptual(L.vgg16(self.settings.vgg), shown, truth)
        return {
            "adversarial": self.adversarial.generator(self.critic(shown)),
            "l1": self.l1(raw, truth, batch),
            "perceptual": perceptual,
            "style": style,
        }
