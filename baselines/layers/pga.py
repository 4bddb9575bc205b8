"""The parsing guided attention module (paper §3.3, figure 3 right, eq. 6; supplement, listing 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers.attention import Form, pairwise
from baselines.layers.networks import squeeze_excite

PARTS = 19  # without background
SAME_PART = 2.0  # length of a part's share of q and k at first: two positions of one part begin e^4 times as related


@dataclass(frozen=True)
class Guide:
    """What guides the attention, at full resolution.

    ``modal_parts``, ``amodal_parts``: one-hot parsings float [B, 19, H, W]; ``visible``, ``invisible``: float 0/1
    [B, 1, H, W], the person's visible and hidden pixels.
    """

    modal_parts: Tensor
    amodal_parts: Tensor
    visible: Tensor
    invisible: Tensor

    def at(self, height: int, width: int) -> Guide:
        """The same at a feature's resolution: nearest for the parsings (listing 1); a cell is visible or invisible
        when any of its pixels is, so that thin regions survive and a border cell both offers and asks.
        """
        size = (height, width)
        nearest = [F.interpolate(p, size=size, mode="nearest") for p in (self.modal_parts, self.amodal_parts)]
        return Guide(*nearest, *(F.adaptive_max_pool2d(m, size) for m in (self.visible, self.invisible)))


def one_hot_parts(labels: Tensor) -> Tensor:
    """int64 labels [B, H, W] in 0..19 to float one-hot [B, 19, H, W], background left out."""
    parts = torch.arange(1, PARTS + 1, device=labels.device)
    return (labels[..., None] == parts).permute(0, 3, 1, 2).float()  # one_hot would read the labels on the host


@torch.no_grad()
def _pass_through(join: nn.Conv2d) -> None:
    """Let a convolution that joins a feature with its streams begin as that feature with the streams added to it.

    Scrambled, four of them in a row would hide the encoder's features from the decoder.
    """
    count = join.out_channels
    nn.init.dirac_(join.weight[:, :count])
    if join.bias is not None:
        nn.init.zeros_(join.bias)


class PartsAttention(nn.Module):
    """Attention.B: the feature in 19 channels, distributed over the parts of both parsings, and put back together."""

    def __init__(self, channels: int, kernel: int = 1) -> None:
        super().__init__()
        self.modal = nn.Conv2d(channels, PARTS, 3, padding=1)
        self.amodal = nn.Conv2d(channels, PARTS, 3, padding=1)
        self.join = nn.Conv2d(channels + 2 * PARTS, channels, kernel, padding=kernel // 2)
        self.squeeze = squeeze_excite(channels, 8)
        _pass_through(self.join)

    def forward(self, x: Tensor, guide: Guide) -> Tensor:
        """[B, C, h, w] to the same shape; ``guide`` at the feature's resolution."""
        parts = [self.modal(x) * guide.modal_parts, self.amodal(x) * guide.amodal_parts]
        return self.squeeze(self.join(torch.cat([x, *parts], 1)))


class TokenAttention(nn.Module):
    """Attention.T: the pairwise relation of visible and invisible positions (eq. 6), with d = C / 8.

    q and k begin as one and the same map, so that they differ "mainly in the invisible points" (supplement), whose
    parsing differs; the parsing's share of it begins large enough for a hidden part to find its visible rest.
    """

    def __init__(self, channels: int, form: Form = "eq6", kernel: int = 1) -> None:
        super().__init__()
        self.form: Form = form
        self.outputs = channels * (1 if form == "eq6" else 2)
        d = max(channels // 8, 4)
        pad = kernel // 2
        self.q = nn.Conv2d(channels + PARTS, d, kernel, padding=pad)
        self.k = nn.Conv2d(channels + PARTS, d, kernel, padding=pad)
        self.v = nn.Conv2d(channels, channels, kernel, padding=pad)
        with torch.no_grad():
            self.q.weight[:, channels:].normal_(0, SAME_PART / (d**0.5 * kernel))
            self.k.load_state_dict(self.q.state_dict())

    def forward(self, x: Tensor, guide: Guide) -> Tensor:
        """[B, C, h, w] to [B, outputs, h, w]; ``guide`` at the feature's resolution."""
        q = self.q(torch.cat([x, guide.modal_parts.to(x.dtype)], 1))
        k = self.k(torch.cat([x, guide.amodal_parts.to(x.dtype)], 1))
        q, k, v = (t.flatten(2).transpose(1, 2) for t in (q, k, self.v(x)))
        masks = guide.visible.flatten(1) > 0.5, guide.invisible.flatten(1) > 0.5
        found = pairwise(q, k, v, masks, self.form)
        return torch.cat([f.transpose(1, 2).reshape(x.shape) for f in found], 1)


class ParsingGuidedAttention(nn.Module):
    """PGA: both streams beside the input feature, one convolution back to C channels ("fusion"); or B, then T.

    Args:
        structure: "fusion" concatenates both streams with the input (paper), "cascade" feeds B's output to T.
        form: see `attention.pairwise`.
        kernel: 1 as the paper and the listing say; 3 is what the authors' published code has in all convolutions.
    """

    def __init__(
        self,
        channels: int,
        parts: bool = True,
        tokens: bool = True,
        structure: str = "fusion",
        form: Form = "eq6",
        kernel: int = 1,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.cascade = structure == "cascade" and parts and tokens
        self.skip = skip
        self.parts = PartsAttention(channels, kernel) if parts else None
        self.tokens = TokenAttention(channels, form, kernel) if tokens else None
        joined = channels if skip else 0
        if self.parts is not None and not self.cascade:
            joined += channels
        if self.tokens is not None:
            joined += self.tokens.outputs
        self.join = nn.Conv2d(joined, channels, kernel, padding=kernel // 2)
        if skip:
            _pass_through(self.join)

    def forward(self, x: Tensor, guide: Guide) -> Tensor:
        """Feature [B, C, h, w] to the same shape; ``guide`` at full resolution."""
        here = guide.at(x.shape[2], x.shape[3])
        streams = [x] if self.skip else []
        if self.parts is not None:
            out = self.parts(x, here)
            if self.cascade:
                x = out
                streams = [x] if self.skip else []
            else:
                streams.append(out)
        if self.tokens is not None:
            streams.append(self.tokens(x, here))
        return self.join(torch.cat(streams, 1))
