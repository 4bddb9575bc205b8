"""The aids that every mask model can have: begin at the initial mask, decide both masks jointly, a second head.

A model's paper may lack them, and each alone is worth as much as some of the gaps between methods. So they are settings
of all mask models alike: ``carried``, ``hidden``, ``two`` (see `settings.SharedMaskSettings`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CARRIED = 2.0  # logit of the initial mask in an untrained network, .88 sure; learning it takes hundreds of steps


class Carried(nn.Module):
    """Mask logits that begin at the initial mask: 2 * initial - 1, times a learnt number a mask, is added to them."""

    def __init__(self, masks: int = 1) -> None:
        super().__init__()
        self.sure = nn.Parameter(torch.full((masks,), CARRIED))

    def forward(self, logits: Tensor, initial: Tensor) -> Tensor:
        """Logits [B, masks, H, W] and initial masks [B, 1, H, W] in [0, 1] to logits [B, masks, H, W]."""
        return logits + self.sure[:, None, None] * (2 * initial - 1)


def soft_mask(logits: Tensor, threshold: float = 0.5) -> Tensor:
    """Float32 [B, 1, H, W] in [0, 1], over a half where the probability is over the threshold; at 0.5 it is that."""
    return (logits.float() - math.log(threshold / (1 - threshold))).sigmoid()


def decide(
    modal: Tensor | None, amodal: Tensor, initial: Tensor, threshold: float = 0.5, hidden: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The modal and the amodal mask of a model's logits: soft, float32 [B, 1, H, W], over a half where they are.

    Each mask is cut at ``threshold``, and the amodal mask includes the modal one. With ``hidden`` a pixel is also the
    person's where P(amodal) - P(modal) is over it, and is then not modal: a pixel of .6 to be the person's and .45 to
    be seen is hidden with a chance of .15 only.

    Args:
        modal: logits [B, 1, H, W]; None: the initial mask is the modal mask, and P(modal).
        amodal: logits [B, 1, H, W].
        initial: float 0/1 [B, 1, H, W].
        hidden: 0 for no joint threshold.
    """
    whole = soft_mask(amodal, threshold)
    seen = initial if modal is None else soft_mask(modal, threshold)
    if hidden > 0:
        chance = amodal.float().sigmoid() - (initial if modal is None else modal.float().sigmoid())
        lost = soft_mask(chance.clamp(0, 1).logit(), hidden)
        whole = torch.maximum(whole, lost)
    if modal is None:
        return initial, whole
    whole = torch.maximum(whole, seen)
    return (torch.minimum(whole, 1 - lost) if hidden > 0 else seen), whole
