"""DeepLabV3+ on the 3x crop, the paper's human segmentation (§4.1); trained by ``ahp build segmenter``.

The crop is resized to one square size, so every person fills about a third of the frame each way. Beside RGB the
network sees the box as a fourth plane (default on): it marks the person among several in one crop.
Without it the input is the paper's, the crop alone. The library's decoder has one 3x3 convolution after joining the low
features where Chen et al. (ECCV 2018, table 2) have two.
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

from ahp_toolkit.core.crops import around, crop_image, crop_mask, within
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.nets.recipe import Recipe, Settings, jittered, tinted
from ahp_toolkit.nets.weights import cached_on_hub, want_pretrained
from ahp_toolkit.segmenters.base import ENLARGE, Prompt, Segmentation
from ahp_toolkit.storage.images import Rgb

KIND = "ahp-segmenter-2"  # 1 had twice the published atrous rates, in weights of the same shapes
NEEDS_PIXELS = True
TRAINABLE = True
WEIGHTS = "train it with `ahp build segmenter --name deeplab`, or give a checkpoint with --segmenter-weights"
LICENCE = "code MIT (segmentation-models-pytorch); weights those of the photos it is trained on"
#: ``debug`` takes about a minute on two CPU cores, ``full`` wants a GPU.
PRESETS = {
    "debug": Settings("resnet18", 96, 150, 8, lr=2e-3),
    "full": Settings(
        "resnet101", 512, 60_000, 16, lr=2e-4, precision="auto", loaders=8, save_every=1000, judge=2000, holdout=0.02
    ),
}

#: Atrous rates at an output stride of 16 (Chen et al. 2018, §4); the library's own default is that of stride 8.
RATES = (6, 12, 18)


@dataclass(frozen=True)
class Arch:
    """How the network is built: smp encoder name, input size in px (square), whether the box is a fourth plane."""

    encoder: str = "resnet101"
    size: int = 512
    box_plane: bool = True


def net_of(arch: Arch, pretrained: str = "no") -> tuple[nn.Module, bool]:
    """The untrained DeepLabV3+ [B, 3 or 4, H, W] -> logits [B, 1, H, W], and whether its encoder knows ImageNet.

    Raises:
        UserError: for an unknown encoder, or when wanted ImageNet weights cannot be had.
    """
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.encoders import encoders

    if arch.encoder not in encoders:
        raise UserError(f"expected an encoder of segmentation-models-pytorch, got {arch.encoder!r}")
    settings = encoders[arch.encoder]["pretrained_settings"].get("imagenet", {})
    cached = bool(settings) and cached_on_hub(settings["repo_id"], revision=settings["revision"])
    weights = "imagenet" if want_pretrained(pretrained, cached) else None
    try:
        net = smp.DeepLabV3Plus(
            arch.encoder,
            encoder_weights=weights,
            decoder_atrous_rates=RATES,
            in_channels=3 + arch.box_plane,
            classes=1,
        )
    except (OSError, KeyError) as e:
        raise UserError(
            f"ImageNet weights of {arch.encoder} cannot be had ({type(e).__name__}); use pretrained=no"
        ) from e
    return net, weights is not None


def planes_of(pixels: Rgb, box: Box, crop: Box, arch: Arch) -> NDArray[np.uint8]:
    """One network input, uint8 [size, size, 3 or 4]: the integer box ``crop`` of the pixels, and the person's box."""
    rgb = crop_image(pixels, crop, arch.size)
    if not arch.box_plane:
        return rgb
    plane = np.zeros((arch.size, arch.size, 1), np.uint8)
    part = within(box, crop)
    x0, y0, x1, y1 = part.scaled(arch.size / crop.width, arch.size / crop.height).clip(arch.size, arch.size).pixels()
    plane[y0:y1, x0:x1] = 255
    return np.concatenate((rgb, plane), axis=2)


def logits_of(net: nn.Module, planes: Tensor) -> Tensor:
    """uint8 [B, C, S, S] on the network's device to logits float [B, 1, S, S] at any S."""
    size = planes.shape[-1]
    x = tensors.pad_to_multiple(tensors.normalise(planes), 32)
    return net(x)[..., :size, :size]


class DeepLab:
    """A ready DeepLabV3+."""

    def __init__(self, net: nn.Module, arch: Arch, name: str, device: torch.device, batch_size: int, precision: str):
        self.name, self.arch = name, arch
        self.net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device, self._batch = device, batch_size
        self._dtype = devices.compute_dtype(device, precision)

    def __call__(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """The person of each box; the score is `expected_iou`."""
        return [f for part in tensors.batches(prompts, self._batch) for f in self._batch_of(part)]

    def _batch_of(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        planes = [planes_of(a.pixels, a.box, _frame(a.pixels), self.arch) for a in prompts]
        with devices.steady(self._device, self._dtype):
            p = logits_of(self.net, tensors.stack(planes, self._device)).float().sigmoid()[:, 0].cpu().numpy()
        return [segmentation_of(p[i], a) for i, a in enumerate(prompts)]


def _frame(pixels: Rgb) -> Box:
    return Box(0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))


def segmentation_of(p: NDArray[np.float32], prompt: Prompt) -> Segmentation:
    """A probability map [s, s] of the whole crop to the mask at the crop's size, with its score."""
    h, w = prompt.pixels.shape[:2]
    p = tensors.resize_map(p, w, h)
    x0, y0, x1, y1 = prompt.box.clip(w, h).pixels()
    return Segmentation(p > 0.5, expected_iou(p[y0:y1, x0:x1]))


def expected_iou(p: NDArray[np.float32]) -> float:
    """The IoU that a mask p > 1/2 can expect if the probabilities are right: sum of p inside / (area + p outside)."""
    inside = p > 0.5
    area = float(inside.sum())
    if not area:
        return 0.0
    gained, missed = float(p[inside].sum(dtype=np.float64)), float(p[~inside].sum(dtype=np.float64))
    return round(min(1.0, gained / (area + missed)), 4)


def build(
    weights: str | None = None, device: str = "auto", batch_size: int = 8, precision: str = "fp32", encoder: str = ""
) -> DeepLab:
    """A DeepLab from a checkpoint of ours; ``random`` is an untrained one, for tests.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto`` (bf16 where the hardware has it).
        encoder: of the random network only.

    Raises:
        UserError: without weights, or with a file that is no such checkpoint.
    """
    where = devices.pick_device(device)
    if weights is None:
        raise UserError(f"deeplab has no published weights; {WEIGHTS}")
    if weights == "random":
        arch = Arch(encoder or "mobilenet_v2", 64)
        with devices.seeded(0):
            net, _ = net_of(arch)
        return DeepLab(net, arch, "deeplab@random", where, batch_size, precision)
    made = checkpoints.load_checkpoint(Path(weights), KIND)
    arch = checkpoints.arch_of(Arch, made, weights)
    net = checkpoints.build_to_fit(lambda: net_of(arch)[0], made.state, weights)
    return DeepLab(net, arch, checkpoints.short_name("deeplab", made.digest), where, batch_size, precision)


def recipe(settings: Settings) -> Recipe:
    """How a DeepLab is trained on humans with masks."""
    arch = Arch(settings.encoder, settings.size, settings.plane)
    net, imagenet = net_of(arch, settings.pretrained)

    def ready(trained: nn.Module, device: torch.device) -> DeepLab:
        return DeepLab(trained, arch, "", device, settings.batch, settings.precision)

    return Recipe(KIND, arch, net, imagenet, lambda _: MaskCut(arch), mask_loss, ready)


@dataclass(frozen=True)
class MaskCut:
    """A training sample: the 3x crop (2.4 to 3.6 times), and the person's mask as target."""

    arch: Arch

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Planes [S, S, 3 or 4] and the mask 0 or 1."""
        assert human.mask is not None
        height, width = photo.shape[:2]
        box = jittered(human.box, rng)
        crop = around(box, width, height, ENLARGE * rng.uniform(0.8, 1.2))
        planes = planes_of(photo, box, crop, self.arch)
        target = crop_mask(human.mask, crop, self.arch.size).view(np.uint8)
        if rng.random() < 0.5:
            planes, target = planes[:, ::-1].copy(), target[:, ::-1].copy()
        tinted(planes, rng)
        return planes, target


def mask_loss(net: nn.Module, planes: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of the person's mask; planes uint8 [B, C, S, S], target 0 or 1 [B, S, S]."""
    logits, wanted = logits_of(net, planes).float()[:, 0], target.float()
    p = logits.sigmoid()
    dice = 1 - (2 * (p * wanted).sum((1, 2)) + 1) / (p.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, wanted) + dice.mean()
