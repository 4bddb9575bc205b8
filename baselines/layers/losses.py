"""Loss terms that several models share: adversarial forms, VGG features, perceptual, style, masks and parsings.

All take soft values: nothing here sees an argmax, so every term can train what made its input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets.checkpoints import load_torch

VGG16_SHA256 = "397923af"  # the prefix that torchvision's file name carries: vgg16-397923af.pth
VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

AdversarialKind = Literal["bce", "log", "hinge", "lsgan"]


class Adversarial:
    """A two-player loss on logits.

    ``log``: the paper's eq. 3, the generator minimises log(1 - D); ``bce``: the same discriminator, the generator
    minimises -log D (its non-saturating form); ``hinge`` (deepfillv2); ``lsgan``.
    """

    def __init__(self, kind: AdversarialKind) -> None:
        if kind not in ("bce", "log", "hinge", "lsgan"):
            raise UserError(f"adversarial must be one of bce, log, hinge, lsgan, got {kind!r}")
        self.kind = kind

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss, half for real and half for fake; ``fake`` must come from detached pictures."""
        if self.kind == "hinge":
            return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
        if self.kind == "lsgan":
            return ((real - 1).square().mean() + fake.square().mean()) / 2
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        """The generator's loss on the discriminator's logits of its pictures."""
        if self.kind == "hinge":
            return -fake.mean()
        if self.kind == "lsgan":
            return (fake - 1).square().mean()
        return -F.softplus(fake).mean() if self.kind == "log" else F.softplus(-fake).mean()


class _Limited(torch.autograd.Function):
    """Identity; on the way back each sample's gradient is shortened to ``most`` where it is longer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: Tensor) -> Tensor:
        ctx.save_for_backward(most)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (most,), (g,) = ctx.saved_tensors, gradients
        norm = g.flatten(1).float().norm(dim=1)
        scale = (most / norm.clamp(min=1e-20)).clamp(max=1.0)
        return g * scale.to(g.dtype).view(-1, *[1] * (g.dim() - 1)), None


def limit_gradient(logits: Tensor, truth: Tensor, share: float) -> Tensor:
    """``logits`` [B, 1, H, W] whose gradient may be ``share`` of their cross-entropy's at most (L2, each sample).

    The cross-entropy's gradient is (sigmoid(logits) - truth) / n. A weight of one on an adversarial loss is otherwise
    15 to 60 times louder than the mean over pixels beside it (measured at 64 px), and the mask is drowned out; VQGAN
    (Esser et al. 2021, eq. 7) balances the two in the same spirit.
    """
    own = (logits.detach().sigmoid() - truth).flatten(1).float().norm(dim=1) / truth.numel()
    return _Limited.apply(logits, own * share)


class Vgg:
    """Frozen VGG16 features after the first three poolings (Liu et al. 2018, §3.3). Not a module of any model.

    ``label`` says which weights: "vgg16" (official) or "random", with "/8" when its width is an eighth;
    ``narrower``: that factor.
    """

    def __init__(self, layers: nn.Sequential, label: str, narrower: int = 1) -> None:
        self.label, self.narrower = label, narrower
        self.layers = layers.eval().requires_grad_(False)
        self._device = torch.device("cpu")

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """[B, 3, H, W] in [-1, 1] (one channel is repeated) to three features, at strides 2, 4 and 8."""
        if self._device != pictures.device:
            self.layers, self._device = self.layers.to(pictures.device), pictures.device
        mean, std = (torch.tensor(v, device=pictures.device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        x = ((pictures.expand(-1, 3, -1, -1) + 1) / 2 - mean) / std
        features: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
        return features


@lru_cache(maxsize=4)
def vgg16(source: str = "auto") -> Vgg:
    """The perceptual network.

    Args:
        source: "torchvision" (official weights, fetched if need be), "auto" (the official ones if torchvision has
            fetched them before, else random), "random" (seeded), "random/8" (the same, an eighth as wide: small
            recipes and tests), or the path of a file of the official weights.

    Raises:
        UserError: when the weights cannot be fetched, or the file is not the official one.
    """
    if source in ("random", "random/8"):
        return _random_vgg(8 if source.endswith("/8") else 1)
    if source == "auto":
        return _official_vgg(_cached()) if _cached().exists() else _random_vgg(1)
    cached = _cached()
    if source == "torchvision":
        if not cached.exists():
            _fetch(cached)
        return _official_vgg(cached)
    return _official_vgg(Path(source))


def _cached() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG16_URL).name


def found_here() -> str:
    """What "auto" is on this machine now: "torchvision" or "random"."""
    return "torchvision" if _cached().exists() else "random"


def _fetch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(VGG16_URL, str(path), hash_prefix=VGG16_SHA256, progress=False)
    except (OSError, RuntimeError) as e:
        raise UserError(f"{VGG16_URL}: cannot be fetched ({e}); give a file of it, or vgg='random'") from e


def _official_vgg(path: Path) -> Vgg:
    if not path.is_file():
        raise UserError(f"{path}: expected VGG16's official weights there; give another file, or vgg='random'")
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if not digest.startswith(VGG16_SHA256):
        raise UserError(f"{path}: its sha256 is {digest[:8]}..., VGG16's official weights have {VGG16_SHA256}...")
    state = load_torch(path, "VGG16's official weights")
    net = torchvision.models.vgg16(weights=None)
    net.load_state_dict(state)
    return Vgg(net.features[:17], "vgg16")


def _random_vgg(narrower: int) -> Vgg:
    layers: list[nn.Module] = []
    before = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for width, count in [(64, 2), (128, 2), (256, 3)]:
            for _ in range(count):
                conv = nn.Conv2d(before, width // narrower, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
                layers += [conv, nn.ReLU(inplace=True)]
                before = width // narrower
            layers.append(nn.MaxPool2d(2))
    return Vgg(nn.Sequential(*layers), "random" + (f"/{narrower}" if narrower > 1 else ""), narrower)


def feature_l1(ours: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Perceptual loss: the sum over features of their mean absolute difference."""
    return torch.stack([F.l1_loss(a, b) for a, b in zip(ours, truth, strict=True)]).sum()


def gram(feature: Tensor) -> Tensor:
    """Gram matrices [B, C, C] of [B, C, H, W], divided by C H W."""
    b, c, h, w = feature.shape
    flat = feature.float().reshape(b, c, h * w)
    with torch.autocast(flat.device.type, enabled=False):  # which would multiply in bfloat16 again
        return flat @ flat.transpose(1, 2) / (c * h * w)


def style_l1(ours: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Style loss (Liu et al. 2018, eq. 5): the sum over features of the mean absolute difference of Gram matrices."""
    return torch.stack([F.l1_loss(gram(a), gram(b)) for a, b in zip(ours, truth, strict=True)]).sum()


def perceptual(vgg: Vgg, ours: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(perceptual, style) loss of pictures in [-1, 1].

    A Gram matrix is divided by the number of channels, so the same features give a network n times narrower entries n
    times as large: the style is divided by n, so that the published weights mean the same at any width.
    """
    a = vgg(ours)
    with torch.no_grad():
        b = vgg(truth)
    return feature_l1(a, b), style_l1(a, b) / vgg.narrower


def mask_perceptual(vgg: Vgg, ours: Tensor, truth: Tensor) -> Tensor:
    """Perceptual loss of soft masks [B, 1, H, W] in [0, 1], shown to the network as black and white pictures."""
    with torch.no_grad():
        b = vgg(truth * 2 - 1)
    return feature_l1(vgg(ours * 2 - 1), b)


def mask_ce(logits: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Two-class cross-entropy of mask logits [B, 1, H, W], mean over pixels; ``weight`` multiplies it per pixel."""
    return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), weight)


def parsing_ce(logits: Tensor, labels: Tensor, parsed: Tensor, count: Tensor | None = None) -> Tensor:
    """Cross-entropy of parsing logits [B, 20, H, W], mean over the pixels of people who have a parsing.

    Zero, with zero gradients, when none of the batch has one. ``count``: of people, > 0 (`Batch.count`); None: these.
    """
    each = F.cross_entropy(logits, labels, reduction="none").mean((1, 2))
    keep = parsed.to(each.dtype)
    return (each * keep).sum() / (keep.sum().clamp(min=1) if count is None else count)


def masked_l1(ours: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean over all pixels and channels of |ours - truth| inside the mask (Liu et al. 2018: L_hole, L_valid)."""
    return ((ours - truth).abs() * mask).mean()


def inside_l1(ours: Tensor, truth: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean of |ours - truth| over the pixels and channels inside the mask, float 0/1; 0 where there are none.

    ``count``: of pixels, > 0 (`Batch.count`); None: the mask's.
    """
    pixels = mask.sum().clamp(min=1) if count is None else count
    return ((ours - truth).abs() * mask).sum() / (ours.shape[1] * pixels)


def total_variation(picture: Tensor, hole: Tensor) -> Tensor:
    """Total variation in the 1-pixel dilation of the hole (Liu et al. 2018, eq. 6)."""
    near = F.max_pool2d(hole, 3, 1, 1)
    rows = ((picture[..., 1:, :] - picture[..., :-1, :]).abs() * near[..., 1:, :] * near[..., :-1, :]).mean()
    columns = ((picture[..., 1:] - picture[..., :-1]).abs() * near[..., 1:] * near[..., :-1]).mean()
    return rows + columns
