"""The refined mask completion network (paper §3.2; supplement §1 and figure 1; spec §3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.base import PARTS, Batch, Output
from baselines.layers.aids import Carried
from baselines.layers.networks import UNet, residual_block, squeeze_excite, two_convs
from baselines.layers.templates import template_weights

BACKGROUND = 5.0  # logit of background in an untrained parsing, the prior of Lin et al. 2017, §4.1


class Branch(nn.Module):
    """A modal or amodal branch: parsing logits from a residual block; mask logits from the feature beside it.

    Without parsing the residual block is left out, and the mask comes from the feature alone. ``carried``: see
    `aids.Carried`.
    """

    def __init__(
        self, channels: int, extra: int = 0, parsing: bool = True, mask: bool = True, carried: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual_block(channels, channels) if parsing else None
        self.parsing = two_convs(channels, channels, PARTS) if parsing else None
        if self.parsing is not None:
            nn.init.zeros_(self.parsing[-1].bias)
            self.parsing[-1].bias.data[0] = BACKGROUND
        both = parsing and mask
        self.squeeze = squeeze_excite(channels) if both else None
        self.mask = two_convs(channels * (2 if both else 1) + extra, channels, 1) if mask else None
        self.carried = Carried() if mask and carried else None

    def forward(self, feature: Tensor, given: Tensor, *extra: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Feature [B, C, H, W], initial mask [B, 1, H, W] and further features of the mask.

        Returns (mask logits [B, 1, H, W], parsing logits [B, 20, H, W]).
        """
        parts, joined = None, [feature]
        if self.residual is not None and self.parsing is not None:
            aid = self.residual(feature)
            parts = self.parsing(aid)
            if self.squeeze is not None:
                joined.append(self.squeeze(aid))
        mask = None if self.mask is None else self.mask(torch.cat([*joined, *extra], 1))
        return mask if self.carried is None else self.carried(mask, given), parts


class Templates(nn.Module):
    """Templates times their weights, then one convolution without activation (eq. 2), at the network's resolution."""

    templates: Tensor
    ready: Tensor

    def __init__(self, count: int, channels: int, size: int = 32, rule: str = "l2") -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("templates", torch.zeros(count, size, size))
        self.register_buffer("ready", torch.tensor(False))
        self.conv = nn.Conv2d(count, channels, 3, padding=1)
        self._known = False

    def known(self) -> bool:
        """Whether there are templates; asked of the buffer until it says yes, so that a GPU is not waited for twice."""
        self._known = self._known or bool(self.ready)
        return self._known

    def forward(self, modal: Tensor) -> Tensor:
        """Soft modal mask [B, 1, H, W] to a feature [B, channels, H, W]."""
        weights = template_weights(modal, self.templates, self.rule)
        feature = self.conv(weights[:, :, None, None] * self.templates[None].to(weights.dtype))
        return F.interpolate(feature, size=modal.shape[2:], mode="bilinear", align_corners=False)


#: Channels of the template feature.
SOFT = 16


class MaskCompletion(nn.Module):
    """N_m and N_a, stacked. Every switch of Table 4 that concerns the network is an argument.

    N_m sees image and initial mask. N_a sees the image, N_m's last feature, the refined modal mask (without a modal
    branch: the initial mask) and the template feature. ``carried``: both masks are changes of the initial one, which
    N_a then sees beside the refined one.
    """

    def __init__(self, width: int, modal: bool, parsing: bool, templates: int, rule: str, carried: bool) -> None:
        super().__init__()
        aids = SOFT if templates else 0
        self.beside = carried and modal
        self.first = UNet(4, width)
        self.modal = Branch(width, parsing=parsing, mask=modal, carried=carried) if modal or parsing else None
        self.templates = Templates(templates, SOFT, rule=rule) if templates else None
        self.second = UNet(4 + self.beside + width + aids, width)
        self.amodal = Branch(width, aids, parsing, carried=carried)

    def forward(self, batch: Batch) -> Output:
        """Logits of both masks and, where there are branches for them, of both parsings."""
        feature = self.first(torch.cat([batch.image, batch.given], 1))
        mask, parts = (None, None) if self.modal is None else self.modal(feature, batch.given)
        refined = batch.given if mask is None else mask.sigmoid()
        extra = [] if self.templates is None else [self.templates(refined)]
        masks = [refined, batch.given] if self.beside else [refined]
        feature = self.second(torch.cat([batch.image, feature, *masks, *extra], 1))
        amodal, amodal_parts = self.amodal(feature, batch.given, *extra)
        return Output(modal=mask, amodal=amodal, modal_parsing=parts, parsing=amodal_parts)
