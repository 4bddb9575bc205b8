"""OVSR (Yan et al., "Visualizing the Invisible: Occluded Vehicle Segmentation and Recovery", ICCV 2019, §3).

Segmentation completion: an encoder-decoder with two coupled discriminators, one on the object (mask beside image), one
on the silhouette alone, whose real samples come from a pool of whole shapes, and a perceptual loss. Appearance
recovery: a two-path structure with one shared network, which paints the object alone (foreground path) and the whole
image; then the two tasks iterate: the recovered picture goes back into the segmentation, the recovered mask into the
painting. Ours differs: the pool holds the training people's amodal masks instead of renderings of 3D models; both
networks are pix2pix's U-Nets without dropout; the answer's hole is the mean of both paths; for "content" the masks
are given, so only the painting iterates. The weights are ours: with the mask critics at 0.01 or more, or with the
painting's l1 reaching the masks, the cross-entropy rises again after 100 steps (at 0.1 the masks end no better than the
given ones).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from baselines.base import (
    ADAM_GAN,
    CRITIC,
    Baseline,
    Batch,
    ContentBaseline,
    MaskBaseline,
    Optimizer,
    Output,
    composite,
)
from baselines.layers import losses as L
from baselines.layers.networks import PatchCritic, SkipUNet, halvings
from baselines.layers.synced import drawn
from baselines.training.settings import (
    Count,
    Settings,
    SharedContentSettings,
    SharedMaskSettings,
    Weight,
    Width,
    make_settings,
)

PAPER = "Yan et al., Visualizing the Invisible: Occluded Vehicle Segmentation and Recovery, ICCV 2019"
TASKS = ("mask", "content")
IN_PAPER = True
VERSION = 2


@dataclass(frozen=True)
class OvsrSettings(Settings):
    """``iterations``: rounds of both tasks."""

    critic_width: Width = 64
    iterations: Count = 2
    l1: Weight = 10.0
    perceptual: Weight = 0.1


@dataclass(frozen=True)
class MaskSettings(OvsrSettings, SharedMaskSettings):
    """``pool``: silhouettes kept of the training people; ``coupled``: weight of both mask critics' terms."""

    pool: Count = 512
    coupled: Weight = 0.001


@dataclass(frozen=True)
class ContentSettings(OvsrSettings, SharedContentSettings):
    """``adversarial``: its weight."""

    adversarial: Weight = 0.1


def build(task: str, **settings: Any) -> Baseline:
    """Both networks for "mask", the painting alone for "content"."""
    if task == "mask":
        return OvsrMask(make_settings(MaskSettings, settings))
    return OvsrContent(make_settings(ContentSettings, settings))


class Recovery(torch.nn.Module):
    """Both paths of the appearance recovery through one shared network."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.shared = SkipUNet(5, 3, width, levels, dropout=False)

    def forward(self, picture: Tensor, modal: Tensor, amodal: Tensor) -> tuple[Tensor, Tensor]:
        """Picture [B, 3, H, W] and soft or hard masks [B, 1, H, W] to (object, whole image), in [-1, 1]."""
        masks = torch.cat([modal, amodal], 1)
        inputs = [torch.cat([p, masks], 1) for p in (picture * amodal, picture)]
        object_, whole = self.shared(torch.cat(inputs)).tanh().chunk(2)
        return object_, whole


def _packed(masks: Tensor) -> Tensor:
    """Masks, bool or 0/1 [N, H, W], W divisible by 8, to uint8 [N, H, W / 8]; the first pixel is the lowest bit."""
    bits = (masks > 0).to(torch.uint8).unflatten(2, (-1, 8)) << torch.arange(8, dtype=torch.uint8, device=masks.device)
    return bits.sum(3, dtype=torch.uint8)


def _unpacked(bits: Tensor) -> Tensor:
    """What `_packed` packed, uint8 0/1 [N, H, W]."""
    return ((bits.unsqueeze(3) >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1).flatten(2)


def _painted(object_: Tensor, whole: Tensor) -> Tensor:
    return (object_ + whole) / 2


def _l1_pair(object_: Tensor, whole: Tensor, batch: Batch) -> dict[str, Tensor]:
    truth = batch.need("target")
    inside = L.inside_l1(object_, truth, batch.need("amodal"), batch.count("amodal"))
    return {"l1_object": inside, "l1_whole": F.l1_loss(whole, truth)}


class OvsrMask(MaskBaseline):
    """Segmentation completion, iterating with appearance recovery."""

    settings: MaskSettings
    silhouettes: Tensor
    filled: Tensor
    wants_masks = True

    def __init__(self, s: MaskSettings) -> None:
        weights = {"mask": 1.0, "shape": s.coupled, "object": s.coupled, "perceptual": s.perceptual}
        weights |= {"l1_object": s.l1, "l1_whole": s.l1, "critic_shape": 1.0, "critic_object": 1.0}
        super().__init__(s, weights)
        levels = halvings(s.size)
        self.net = SkipUNet(7, self.heads, s.width, levels, dropout=False)
        self.recovery = Recovery(s.width, levels)
        self.critic_shape = PatchCritic(1, s.critic_width)
        self.critic_object = PatchCritic(4, s.critic_width)
        self.gan = L.Adversarial("bce")
        # smaller ones enlarged would have stairs, by which the critic tells them from any made mask
        self.mask_px, self.mask_people = s.size, 2 * s.pool  # evenly spread people may be half of those asked for
        self.register_buffer("silhouettes", torch.zeros(s.pool, s.size, s.size // 8, dtype=torch.uint8))
        self.register_buffer("filled", torch.tensor(0))

    def prepare(self, masks: Tensor, seed: int = 0) -> None:
        """Fill the pool with the training people's silhouettes, drawn without replacement, a bit a pixel."""
        side = self.settings.size
        if len(masks) == 0 or masks.shape[1:] != (side, side):
            raise UserError(
                f"the silhouette pool needs amodal masks [N, {side}, {side}] of training people, got {[*masks.shape]}"
            )
        keep = torch.randperm(len(masks), generator=torch.Generator().manual_seed(seed))[: self.settings.pool]
        self.silhouettes[: len(keep)].copy_(_packed(masks[keep.to(masks.device)]))
        self.filled.fill_(len(keep))

    def shapes(self, index: Tensor) -> Tensor:
        """Silhouettes of the pool by their numbers, int64 [N]: uint8 0/1 [N, 1, size, size]."""
        return _unpacked(self.silhouettes[index]).unsqueeze(1)

    def facts(self) -> dict[str, str]:
        """Which VGG the perceptual loss used."""
        return {"perceptual": L.vgg16(self.settings.vgg).label}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 2e-4, beta1 = 0.5."""
        return dict.fromkeys(self.turns(), ADAM_GAN)

    def forward(self, batch: Batch) -> Output:
        """Mask logits of the last round; the earlier rounds' in ``extra``."""
        self.check_input(batch)
        picture = batch.image
        extra: dict[str, Tensor] = {}
        for i in range(self.settings.iterations):
            made = self.masks(self.net(torch.cat([batch.image, batch.given, picture], 1)), batch.given)
            logits = made.need("amodal")
            soft = logits.sigmoid().detach()
            object_, whole = self.recovery(picture, batch.given, soft)
            picture = composite(batch.image, _painted(object_, whole), soft * (1 - batch.given))
            extra |= {f"mask{i}": logits}
        return replace(made, extra=extra | {"object": object_, "whole": whole})

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Cross-entropy of every round, both adversarial terms and perceptual of the last, l1 of both paths."""
        truth, soft = batch.need("amodal"), output.need("amodal").sigmoid()
        if turn == CRITIC:
            fake = soft.detach()
            beside = [torch.cat([m, batch.image], 1) for m in (truth, fake)]
            return {
                "critic_shape": self.gan.discriminator(self.critic_shape(self._drawn(truth)), self.critic_shape(fake)),
                "critic_object": self.gan.discriminator(*(self.critic_object(b) for b in beside)),
            }
        rounds = [L.mask_ce(v, truth) for k, v in output.extra.items() if k.startswith("mask")]
        painted = _l1_pair(output.extra["object"], output.extra["whole"], batch)
        return {
            "mask": torch.stack(rounds).mean(),
            "shape": self.gan.generator(self.critic_shape(soft)),
            "object": self.gan.generator(self.critic_object(torch.cat([soft, batch.image], 1))),
            "perceptual": L.mask_perceptual(L.vgg16(self.settings.vgg), soft, truth),
            **painted,
            **self.modal_term(output, batch.need("modal")),
        }

    def _drawn(self, like: Tensor) -> Tensor:
        """As many silhouettes of the pool, drawn from torch's generator."""
        count = int(self.filled)
        if count == 0:
            raise UserError("the silhouette pool is empty: call prepare() with the training people's masks")
        index = drawn(len(like), lambda n: torch.randint(count, (n,))).to(like.device)
        return self.shapes(index).to(like.dtype)


class OvsrContent(ContentBaseline):
    """Appearance recovery with given masks, iterated on its own picture."""

    settings: ContentSettings

    def __init__(self, s: ContentSettings) -> None:
        weights = {"l1_object": s.l1, "l1_whole": s.l1, "perceptual": s.perceptual, "adversarial": s.adversarial}
        super().__init__(s, weights | {"critic": 1.0})
        self.recovery = Recovery(s.width, halvings(s.size))
        self.critic = PatchCritic(4, s.critic_width)
        self.gan = L.Adversarial("bce")

    def facts(self) -> dict[str, str]:
        """Which VGG the perceptual loss used."""
        return {"perceptual": L.vgg16(self.settings.vgg).label}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, 2e-4, beta1 = 0.5."""
        return dict.fromkeys(self.turns(), ADAM_GAN)

    def forward(self, batch: Batch) -> Output:
        """The mean of both paths after the last round; each path in ``extra``."""
        self.check_input(batch)
        hole = batch.invisible
        picture = batch.image * (1 - hole)
        for _ in range(self.settings.iterations):
            object_, whole = self.recovery(picture, batch.need("modal"), batch.need("amodal"))
            picture = composite(batch.image, _painted(object_, whole), hole)
        return Output(image=_painted(object_, whole), extra={"object": object_, "whole": whole})

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """l1 of both paths; perceptual and adversarial (the object beside its mask) of the composite."""
        truth, amodal = batch.need("target"), batch.need("amodal")
        shown = composite(batch.image, output.need("image"), batch.invisible)
        if turn == CRITIC:
            real, fake = (self.critic(torch.cat([p * amodal, amodal], 1)) for p in (truth, shown.detach()))
            return {"critic": self.gan.discriminator(real, fake)}
        return {
            **self._pair(output.extra["object"], output.extra["whole"], batch),
            "perceptual": L.perceptual(L.vgg16(self.settings.vgg), shown, truth)[0],
            "adversarial": self.gan.generator(self.critic(torch.cat([shown * amodal, amodal], 1))),
        }

    def _pair(self, object_: Tensor, whole: Tensor, batch: Batch) -> dict[str, Tensor]:
        """l1 of both paths: of the object and of the image, or of both over the hole."""
        if self.settings.loss == "whole":
            return _l1_pair(object_, whole, batch)
        truth = batch.need("target")
        return {"l1_object": self.l1(object_, truth, batch), "l1_whole": self.l1(whole, truth, batch)}
