"""HRNetV2 human parsing, the paper's pseudo labels (§3.2); trained by ``ahp build parser`` on a source with parsings.

timm's HRNet gives four maps at strides 4 to 32; the head is HRNetV2's: all four at stride 4 side by side, 1x1
convolution, batch norm, ReLU, 1x1 convolution to the 20 classes of LIP. The mask is a fourth input plane (default on):
it says whose parts to label. Left and right are the person's own, so a mirrored picture's labels change sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ahp_toolkit.core.crops import around, crop_image, crop_labels
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Box, Label2D
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.nets.recipe import Recipe, Settings, tinted
from ahp_toolkit.nets.weights import cached_on_hub, want_pretrained
from ahp_toolkit.parsers.base import ENLARGE, Body
from ahp_toolkit.sources.base import PART_PAIRS, PARTS
from ahp_toolkit.storage.images import Rgb

KIND = "ahp-parser-1"
NEEDS_PIXELS = True
TRAINABLE = True
WEIGHTS = "train it with `ahp build parser --name hrnet`, or give a checkpoint with --parser-weights"
LICENCE = "code Apache-2.0 (timm); weights those of the photos it is trained on"
#: ``debug`` takes about a minute on two CPU cores, ``full`` wants a GPU.
PRESETS = {
    "debug": Settings("hrnet_w18_small", 96, 250, 8, lr=2e-3),
    "full": Settings(
        "hrnet_w48", 473, 110_000, 16, lr=3e-4, precision="auto", loaders=8, save_every=1000, judge=2000, holdout=0.02
    ),
}


def _mirror_table() -> list[int]:
    table = list(range(len(PARTS)))
    for left, right in PART_PAIRS:
        table[left], table[right] = right, left
    return table


#: MIRROR[label] is the label of the same part in a mirrored picture.
MIRROR = _mirror_table()


def mirrored(labels: Label2D) -> Label2D:
    """uint8 [H, W] labels of the mirrored picture: pixels change sides, and so do left and right parts."""
    return np.ascontiguousarray(np.asarray(MIRROR, np.uint8)[labels[:, ::-1]])


@dataclass(frozen=True)
class Arch:
    """How the network is built: timm HRNet name, input size in px (square), whether the mask is a fourth plane."""

    encoder: str = "hrnet_w48"
    size: int = 473
    mask_plane: bool = True


class PartNet(nn.Module):
    """[B, 3 or 4, H, W] (H, W multiples of 32) to logits [B, 20, H / 4, W / 4]."""

    def __init__(self, encoder: nn.Module, channels: int, parts: int = len(PARTS)) -> None:
        super().__init__()
        self.encoder = encoder
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.classify = nn.Conv2d(channels, parts, 1)

    def forward(self, x: Tensor) -> Tensor:
        """HRNetV2's head over the four maps, brought to the finest."""
        maps = self.encoder(x)
        size = maps[0].shape[-2:]
        wide = [functional.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps[1:]]
        return self.classify(functional.relu(self.norm(self.mix(torch.cat([maps[0], *wide], dim=1)))))


def net_of(arch: Arch, pretrained: str = "no") -> tuple[nn.Module, bool]:
    """The untrained network, and whether its encoder knows ImageNet.

    Raises:
        UserError: for an unknown encoder, or when wanted ImageNet weights cannot be had.
    """
    import timm

    if not arch.encoder.startswith("hrnet") or not timm.is_model(arch.encoder):
        known = ", ".join(timm.list_models("hrnet_w*"))
        raise UserError(f"expected an HRNet of timm ({known}), got {arch.encoder!r}")
    repo = timm.get_pretrained_cfg(arch.encoder).hf_hub_id or ""
    known_here = want_pretrained(pretrained, bool(repo) and cached_on_hub(repo))
    options = {"features_only": True, "feature_location": "", "out_indices": (1, 2, 3, 4)}
    try:
        encoder = timm.create_model(arch.encoder, pretrained=known_here, in_chans=3 + arch.mask_plane, **options)
    except (OSError, RuntimeError) as e:
        raise UserError(
            f"ImageNet weights of {arch.encoder} cannot be had ({type(e).__name__}); use pretrained=no"
        ) from e
    return PartNet(encoder, sum(encoder.feature_info.channels())), known_here


def planes_of(pixels: Rgb, mask: Bool2D, crop: Box, arch: Arch) -> NDArray[np.uint8]:
    """One network input, uint8 [size, size, 3 or 4]: an integer box ``crop`` of the pixels and of the mask."""
    rgb = crop_image(pixels, crop, arch.size)
    if not arch.mask_plane:
        return rgb
    plane = crop_labels(mask.view(np.uint8), crop, arch.size) * np.uint8(255)
    return np.concatenate((rgb, plane[:, :, None]), axis=2)


def logits_of(net: nn.Module, planes: Tensor) -> Tensor:
    """uint8 [B, C, S, S] on the network's device to logits float [B, 20, S, S] at any S."""
    size = planes.shape[-1]
    x = tensors.pad_to_multiple(tensors.normalise(planes), 32)
    wide = functional.interpolate(net(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
    return wide[..., :size, :size]


def flip_average(net: nn.Module, planes: Tensor) -> Tensor:
    """Part probabilities [B, 20, S, S], the mean of the picture's and its mirror image's, sides put back."""
    straight = logits_of(net, planes).float().softmax(1)
    turned = logits_of(net, planes.flip(-1)).float().softmax(1).flip(-1)
    return (straight + turned[:, MIRROR]) / 2


@dataclass(frozen=True)
class Use:
    """How a parser runs: bodies a batch, precision (see `build`), and whether it averages with the mirrored picture."""

    device: torch.device
    batch_size: int
    precision: str
    flip: bool = False


class HrNet:
    """A ready HRNet parser."""

    def __init__(self, net: nn.Module, arch: Arch, name: str, use: Use) -> None:
        self.name, self.arch = name, arch
        self._device, self._batch, self._flip = use.device, use.batch_size, use.flip
        self.net = net.eval().to(use.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = devices.compute_dtype(use.device, use.precision)

    def __call__(self, bodies: Sequence[Body]) -> list[Label2D]:
        """The most probable part (1 to 19) of every px of each mask, 0 outside."""
        return [labels for part in tensors.batches(bodies, self._batch) for labels in self._batch_of(part)]

    def _batch_of(self, bodies: Sequence[Body]) -> list[Label2D]:
        whole = [Box(0.0, 0.0, float(b.mask.shape[1]), float(b.mask.shape[0])) for b in bodies]
        planes = [planes_of(b.pixels, b.mask, box, self.arch) for b, box in zip(bodies, whole, strict=True)]
        with devices.steady(self._device, self._dtype):
            x = tensors.stack(planes, self._device)
            scores = flip_average(self.net, x) if self._flip else logits_of(self.net, x).float()
            parts = scores[:, 1:].cpu().numpy()
        return [_labels(parts[i], b.mask) for i, b in enumerate(bodies)]


def _labels(scores: NDArray[np.float32], mask: Bool2D) -> Label2D:
    """Scores [19, s, s] of a crop and its mask [H, W] to labels [H, W], plane by plane to save memory."""
    height, width = mask.shape
    best = tensors.resize_map(scores[0], width, height)
    labels = np.ones(mask.shape, np.uint8)
    for part in range(1, len(scores)):
        plane = tensors.resize_map(scores[part], width, height)
        better = plane > best
        best[better] = plane[better]
        labels[better] = part + 1
    labels[~mask] = 0
    return labels


def build(
    weights: str | None = None,
    device: str = "auto",
    batch_size: int = 8,
    precision: str = "fp32",
    flip: bool = False,
) -> HrNet:
    """An HRNet from a checkpoint of ours; ``random`` is an untrained small one, for tests.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto`` (bf16 where the hardware has it).
        flip: average with the mirrored picture (twice the time).

    Raises:
        UserError: without weights, or with a file that is no such checkpoint.
    """
    use = Use(devices.pick_device(device), batch_size, precision, flip)
    if weights is None:
        raise UserError(f"hrnet has no published weights for the parts of LIP; {WEIGHTS}")
    if weights == "random":
        arch = Arch("hrnet_w18_small", 64)
        with devices.seeded(0):
            net, _ = net_of(arch)
        return HrNet(net, arch, "hrnet@random", use)
    made = checkpoints.load_checkpoint(Path(weights), KIND)
    arch = checkpoints.arch_of(Arch, made, weights)
    net = checkpoints.build_to_fit(lambda: net_of(arch)[0], made.state, weights)
    return HrNet(net, arch, checkpoints.short_name("hrnet", made.digest), use)


def recipe(settings: Settings) -> Recipe:
    """How an HRNet is trained on humans with masks and parsings."""
    arch = Arch(settings.encoder, settings.size, settings.plane)
    net, imagenet = net_of(arch, settings.pretrained)

    def ready(trained: nn.Module, device: torch.device) -> HrNet:
        return HrNet(trained, arch, "", Use(device, settings.batch, settings.precision))

    return Recipe(KIND, arch, net, imagenet, lambda _: PartCut(arch), part_loss, ready, parsed=True)


@dataclass(frozen=True)
class PartCut:
    """A training sample: the body's crop (0.9 to 1.2 of it), LIP labels as target; mirrored ones change sides."""

    arch: Arch

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Planes [S, S, 3 or 4] and labels 0..19."""
        assert human.mask is not None and human.parsing is not None
        height, width = photo.shape[:2]
        crop = around(human.mask.box, width, height, ENLARGE * rng.uniform(0.9, 1.2))
        mask = human.mask.decode()
        planes = planes_of(photo, mask, crop, self.arch)
        labels = crop_labels(np.where(mask, human.parsing.decode(), np.uint8(0)), crop, self.arch.size)
        if rng.random() < 0.5:
            planes, labels = planes[:, ::-1].copy(), mirrored(labels)
        tinted(planes, rng)
        return planes, labels


def part_loss(net: nn.Module, planes: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the 20 classes; planes uint8 [B, C, S, S], target labels [B, S, S]."""
    return functional.cross_entropy(logits_of(net, planes).float(), target.long())
