"""Parts that several models share: partial and gated convolution, U-Nets, patch critics, small blocks.

Sources: Liu et al. 2018 (partial convolution), Yu et al. 2019 (gated convolution), Isola et al. 2017 (pix2pix U-Net,
PatchGAN), Zhan et al. 2020 (PCNet-M's U-Net). Residual blocks and squeeze-and-excitation are torchvision's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.models.resnet import BasicBlock
from torchvision.ops import SqueezeExcitation

Masked = tuple[Tensor, Tensor]  # feature [B, C, H, W] and its validity mask float 0/1 [B, 1, H, W]


class PartialConv2d(nn.Module):
    """Partial convolution (Liu et al. 2018, eq. 1 and 2): W (X . M) * sum(1) / sum(M) + b where a window sees anything.

    The mask is the same in all channels of one input, so its convolution runs on one channel: exact, and the weight of
    several concatenated inputs is their share of the channels.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, *parts: Masked) -> Masked:
        """Convolve the concatenation of the parts; each carries its own mask. Returns the feature and its new mask."""
        seen = [f * m.to(f.dtype) for f, m in parts]  # under autocast features stay in half precision
        x = torch.cat(seen, 1) if len(seen) > 1 else seen[0]
        y = self.conv(x)
        scale, valid = self._window(parts, x.shape[1], y.dtype)
        y = y * scale
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None, None] * valid
        return y, valid

    @torch.no_grad()
    def _window(self, parts: Sequence[Masked], channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(parts[0][1].dtype, torch.float32)  # shares are no half-precision numbers
        share = parts[0][1].to(wide)
        if len(parts) > 1:
            share = torch.stack([m.to(wide) * (f.shape[1] / channels) for f, m in parts]).sum(0)
        # a sum, not a mean: exact for 0/1 masks, and a pooling kernel is lighter than a convolution with ones
        conv = self.conv
        seen = F.avg_pool2d(share, conv.kernel_size, conv.stride, conv.padding, divisor_override=1)
        some = seen > 1e-6
        scale = torch.where(some, math.prod(conv.kernel_size) / seen, 0.0)
        return scale.to(dtype), some.to(dtype)


class GatedConv2d(nn.Module):
    """Gated convolution (Yu et al. 2019, eq. 3): elu(features) * sigmoid(gates), both from one convolution.

    ``positive``: ReLU in place of ELU.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        positive: bool = False,
    ) -> None:
        super().__init__()
        self.positive = positive
        self.conv = nn.Conv2d(inputs, 2 * outputs, kernel, stride, dilation * (kernel // 2), dilation)
        # unit variance in gives unit variance out, E[elu(f)^2] E[sigmoid(g)^2] = 0.19: there is no norm to do it, and
        # torch's default would let the signal die within ten layers
        std = (inputs * kernel * kernel) ** -0.5
        nn.init.normal_(self.conv.weight[:outputs], 0.0, 2.3 * std)
        nn.init.normal_(self.conv.weight[outputs:], 0.0, std)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        feature, gate = self.conv(x).chunk(2, 1)
        return (F.relu(feature) if self.positive else F.elu(feature)) * gate.sigmoid()


def upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize to (H, W)."""
    return F.interpolate(x, size=tuple(size), mode="nearest")


def squeeze_excite(channels: int, reduction: int = 16) -> nn.Module:
    """Squeeze-and-excitation (Hu et al. 2018)."""
    return SqueezeExcitation(channels, max(channels // reduction, 4))


def residual_block(inputs: int, outputs: int) -> nn.Module:
    """One residual block (He et al. 2016) at stride 1."""
    shortcut = None
    if inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, downsample=shortcut)


def two_convs(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two convolutions with a ReLU in between (supplement, figure 1): 3x3, then 1x1 to the logits.

    Before the ReLU comes a batch norm, as after every other 3x3 convolution of these networks: without, a quarter to a
    half of the hidden channels died within 600 steps of Adam.
    """
    first = nn.Conv2d(inputs, hidden, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, outputs, 1))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (inputs, outputs):
        layers += [nn.Conv2d(i, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """PCNet-M's U-Net, also the paper's hourglass (§5.1): four halvings, bilinear upsampling, no head.

    [B, inputs, H, W] to a feature [B, width, H, W]; H and W divisible by 16. Width 32 has 3.35 M parameters.
    """

    def __init__(self, inputs: int, width: int = 32) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            _double(i, o) for i, o in [(inputs, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w)]
        )
        self.up = nn.ModuleList(_double(i, o) for i, o in [(16 * w, 4 * w), (8 * w, 2 * w), (4 * w, w), (2 * w, w)])

    def forward(self, x: Tensor) -> Tensor:
        """The last feature, at the input's resolution."""
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([skips.pop(), x], 1))
        return x


def halvings(size: int, most: int = 8) -> int:
    """How often ``size`` px can be halved exactly, at most ``most`` times: the depth of a pix2pix U-Net."""
    return next(n for n in range(most, 0, -1) if size % (1 << n) == 0)


class SkipUNet(nn.Module):
    """pix2pix's U-Net generator (Isola et al. 2017, §6.1): 4x4 convolutions of stride 2, skips, dropout.

    Encoder C64-C128-C256-C512-...; the decoder levels from 8 to 8 widths, except the innermost, have dropout of 0.5, as
    in the published code: levels 2 to 4 from the inside at 256 px. No output activation. ``levels`` halvings: 8 at
    256 px.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64, levels: int = 8, dropout: bool = True) -> None:
        super().__init__()
        chans = [min(width << i, 8 * width) for i in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(chans):
            # neither the outermost nor the innermost level is normalised: the latter may be a single pixel
            self.down.append(_down(chans[i - 1] if i else inputs, c, norm=0 < i < levels - 1, relu=i > 0))
        for i in reversed(range(levels)):
            last = i == levels - 1
            out = chans[i - 1] if i else outputs
            dropped = dropout and 3 < i < levels - 1
            self.up.append(_up(chans[i] * (1 if last else 2), out, norm=i > 0, dropout=dropped))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H, W], H and W divisible by 2^levels."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = skips.pop()
        for i, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], 1) if i else x)
        return x


def _down(inputs: int, outputs: int, norm: bool, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if relu else []
    layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm))
    return nn.Sequential(*layers, *([nn.BatchNorm2d(outputs)] if norm else []))


def _up(inputs: int, outputs: int, norm: bool, dropout: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=not norm)]
    layers += [nn.BatchNorm2d(outputs)] if norm else []
    return nn.Sequential(*layers, *([nn.Dropout(0.5)] if dropout else []))


class PatchCritic(nn.Module):
    """PatchGAN of four convolution layers C64-C128-C256-C512 and a last one to patch logits (Isola et al. 2017, §6.1).

    Receptive field 70x70. ``norm``: "batch", "none", or "spectral" (the EdgeConnect form that PCNet-C uses).
    """

    def __init__(self, inputs: int, width: int = 64, norm: str = "batch") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = inputs
        for i, (c, stride) in enumerate([(width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1)]):
            normed = norm == "batch" and i > 0
            conv = nn.Conv2d(before, c, 4, stride, 1, bias=not normed)
            layers.append(spectral_norm(conv) if norm == "spectral" else conv)
            layers += [nn.BatchNorm2d(c)] if normed else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = c
        last = nn.Conv2d(before, 1, 4, 1, 1)
        self.layers = nn.Sequential(*layers, spectral_norm(last) if norm == "spectral" else last)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to patch logits [B, 1, h, w]."""
        return self.layers(x)


class SNPatchCritic(nn.Module):
    """SN-PatchGAN (Yu et al. 2019, §3.3): six spectral-normalised 5x5 convolutions of stride 2 without biases."""

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        chans = [inputs, width, 2 * width, 4 * width, 4 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(chans):
            layers += [spectral_norm(nn.Conv2d(i, o, 5, 2, 2, bias=False)), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to logits [B, 4 width, H / 64, W / 64]."""
        return self.layers(x)
