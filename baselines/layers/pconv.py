"""The partial-convolution U-Net of PCNet-C and of the paper's content recovery (Liu et al. 2018; paper §3.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers.networks import Masked, PartialConv2d, halvings, upsampled

Hook = Callable[[str, Masked], Masked]  # given a level's name ("enc3", "dec5") and its feature; returns it enriched

FIRST_PICTURE = 0.1  # factor of the last convolution's He weights


class _Level(nn.Module):
    """Partial convolution, batch norm, activation (ReLU where ``slope`` is 0)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: bool, slope: float) -> None:
        super().__init__()
        self.conv = PartialConv2d(inputs, outputs, kernel, stride)
        self.norm = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.slope = slope

    def forward(self, *parts: Masked) -> Masked:
        y, mask = self.conv(*parts)
        return F.leaky_relu(self.norm(y), self.slope), mask


def partial_levels(size: int) -> int:
    """The depth that leaves the innermost map what it is at 256 px, 2x2: 7 at 256 px, 5 at 64.

    A map of one pixel has nothing to normalise but the batch: its batch norm then ties each picture to its neighbours
    in training and is another function at test time.
    """
    return halvings(size) - 1


class PartialUNet(nn.Module):
    """Seven halvings (kernels 7, 5, 5, 3...), nearest upsampling, skips; 25.8 M parameters at width 64 (published).

    Encoder level i works at stride 2^i; decoder level i gives stride 2^(i - 1). The last convolution is linear.
    ``levels``: 7 at 256 px; see `partial_levels`.
    """

    def __init__(self, inputs: int, outputs: int = 3, width: int = 64, levels: int = 7) -> None:
        super().__init__()
        w = width
        self.channels = {"enc3": 4 * w, "enc5": 8 * w, "dec5": 8 * w, "dec3": 2 * w}
        chans = [inputs, w, 2 * w, 4 * w, *[8 * w] * (levels - 3)]
        kernels = [7, 5, 5, *[3] * (levels - 3)]
        self.enc = nn.ModuleList(
            _Level(chans[i], chans[i + 1], k, 2, norm=i > 0, slope=0.0) for i, k in enumerate(kernels)
        )
        self.dec = nn.ModuleList(
            _Level(chans[i + 1] + chans[i], chans[i], 3, 1, norm=True, slope=0.2) for i in range(levels - 1, 0, -1)
        )
        self.last = PartialConv2d(chans[1] + inputs, outputs, 3, 1, bias=True)
        with torch.no_grad():  # no norm follows: the first picture is a pale one, not noise beyond [-1, 1]
            self.last.conv.weight.mul_(FIRST_PICTURE)

    def forward(self, x: Tensor, valid: Tensor, hook: Hook | None = None) -> Tensor:
        """Paint.

        Args:
            x: [B, inputs, H, W]; valid: float 0/1 [B, 1, H, W], 0 in the hole.
            hook: called on every level's feature; what it returns goes on.

        Returns:
            [B, outputs, H, W].
        """
        here: Masked = (x, valid)
        skips: list[Masked] = [here]
        for i, level in enumerate(self.enc, 1):
            here = level(here)
            here = hook(f"enc{i}", here) if hook else here
            skips.append(here)
        skips.pop()
        for i, level in zip(range(len(self.enc), 1, -1), self.dec, strict=True):
            here = level(*_joined(here, skips.pop()))
            here = hook(f"dec{i}", here) if hook else here
        return self.last(*_joined(here, skips.pop()))[0]


def _joined(low: Masked, skip: Masked) -> tuple[Masked, Masked]:
    size = skip[0].shape[2:]
    return (upsampled(low[0], size), upsampled(low[1], size)), skip
