"""CenterMask (Lee & Park, CVPR 2020), the paper's own kind of input network N_i: FCOS with an attention-guided mask.

A VoVNet (timm) with a feature pyramid P3 to P7, torchvision's FCOS, and the SAG-Mask head of its §3.3 and §3.4: every
box is pooled from the level that its share of the picture asks for (eq. 2), four 3x3 convolutions, spatial attention,
a 2x deconvolution, one mask. Of the instances found, the one whose box fits the asked box best is taken. Ours differs:
one class, the person; VoVNet with eSE (CenterMask's successor's) as timm has it; depthwise at the debug size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.ops import FeaturePyramidNetwork, box_iou, masks_to_boxes, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ..core import torch_io
from ..core.errors import UserError
from ._instances import PERSON, InstanceSegmenter

KIND = "ahp-centermask-1"
NEEDS_PIXELS = True
WAY_OUT = "train it with `ahp build segmenter --name centermask`, or give a checkpoint with --segmenter-weights"
LEVELS = (3, 4, 5)  # of the pyramid, at strides 8, 16 and 32, that boxes are pooled from
POOLED = 14  # side of a pooled box, cells; its mask has twice as many
PROPOSALS = 32  # boxes of one picture that get a mask
POSITIVE = 0.5  # a detection whose IoU with a person is at least this trains that person's mask


@dataclass(frozen=True)
class Arch:
    """How the network is built: timm VoVNet name, side of the square canvas in px, channels of the pyramid."""

    encoder: str = "ese_vovnet39b"
    size: int = 800
    width: int = 256

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 32 or self.width < 64 or self.width % 32:
            raise UserError(f"expected size and width to be multiples of 32, 64 or more, got {self}")


class Pyramid(nn.Module):
    """A picture [B, 3, H, W] to P3 .. P7, each [B, width, ...]."""

    def __init__(self, encoder: nn.Module, channels: list[int], width: int) -> None:
        super().__init__()
        self.encoder, self.out_channels = encoder, width
        self.fpn = FeaturePyramidNetwork(channels, width, LastLevelP6P7(width, width))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The levels in order of their stride."""
        named = OrderedDict((str(i), m) for i, m in zip(LEVELS, self.encoder(x), strict=True))
        return self.fpn(named)  # type: ignore[no-any-return]


class SpatialAttention(nn.Module):
    """Every cell times sigmoid(conv3x3(max and mean over its channels)) (§3.4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] to the same shape."""
        seen = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.conv(seen).sigmoid()


class MaskHead(nn.Sequential):
    """SAG-Mask: pooled boxes [N, C, 14, 14] to mask logits [N, 1, 28, 28]."""

    def __init__(self, width: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        up = nn.ConvTranspose2d(width, width, 2, 2)
        super().__init__(*layers, SpatialAttention(), up, nn.ReLU(inplace=True), nn.Conv2d(width, 1, 1))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def levels_of(boxes: Tensor, size: int) -> Tensor:
    """The pyramid level that boxes [N, 4] px of a picture of ``size`` px a side are pooled from, int64 [N] (eq. 2).

    k = ceil(5 - log2(A_input / A_box)), within 3 .. 5: the larger its share of the picture, the coarser.
    """
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1.0)
    k = torch.ceil(LEVELS[-1] - torch.log2(size**2 / area))
    return k.clamp(LEVELS[0], LEVELS[-1]).long()


class CenterMask(nn.Module):
    """FCOS and SAG-Mask on one pyramid. Pictures are float RGB [3, S, S] in [0, 1], all of one size."""

    def __init__(self, pyramid: Pyramid, size: int) -> None:
        super().__init__()
        self.fcos = FCOS(
            pyramid,
            num_classes=PERSON + 1,
            min_size=size,
            max_size=size,
            score_thresh=0.05,
            detections_per_img=PROPOSALS,
        )
        self.mask = MaskHead(pyramid.out_channels)

    def forward(self, pictures: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        """With targets (see `targets_of`) the four named losses; else what `InstanceSegmenter` takes."""
        x = torch.stack(list(pictures))
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (torch_io.MEAN, torch_io.STD))
        maps = list(self.fcos.backbone((x - mean) / std).values())
        said = {k: v.float() for k, v in self.fcos.head(maps).items()}
        images = ImageList(x, [(x.shape[2], x.shape[3])] * len(x))
        anchors = self.fcos.anchor_generator(images, maps)
        counts = [m.shape[2] * m.shape[3] for m in maps]
        with torch.no_grad():
            found = self._found(said, anchors, counts, images)
        if targets is None:
            return [self._masked(f, maps, i, x.shape[2]) for i, f in enumerate(found)]
        losses = self.fcos.compute_loss(list(targets), said, anchors, counts)
        return losses | {"mask": self._mask_loss(found, targets, maps, x.shape[2])}

    def _found(
        self, said: dict[str, Tensor], anchors: list[Tensor], counts: list[int], images: ImageList
    ) -> list[dict[str, Tensor]]:
        """FCOS's people: boxes, scores, labels of each picture."""
        split = {k: list(v.split(counts, dim=1)) for k, v in said.items()}
        by_level = [list(a.split(counts)) for a in anchors]
        return self.fcos.postprocess_detections(split, by_level, images.image_sizes)

    def _logits(self, maps: Sequence[Tensor], boxes: Tensor, picture: Tensor, size: int) -> Tensor:
        """Mask logits [N, 1, 28, 28] of boxes [N, 4] in the pictures int64 [N]."""
        level = levels_of(boxes, size)
        rois = torch.cat([picture[:, None].to(boxes.dtype), boxes], 1)
        pooled = maps[0].new_zeros(len(boxes), maps[0].shape[1], POOLED, POOLED, dtype=torch.float32)
        for k, feature in zip(LEVELS, maps, strict=False):
            here = (level == k).nonzero()[:, 0]
            cells = roi_align(feature.float(), rois[here], POOLED, 1 / 2**k, sampling_ratio=2, aligned=True)
            pooled = pooled.index_copy(0, here, cells)
        return self.mask(pooled).float()  # type: ignore[no-any-return]

    def _masked(self, found: dict[str, Tensor], maps: Sequence[Tensor], picture: int, size: int) -> dict[str, Tensor]:
        """One picture's people with their mask probabilities at its size."""
        person = found["labels"] == PERSON
        found = {k: v[person] for k, v in found.items()}
        boxes = found["boxes"]
        index = torch.full((len(boxes),), picture, device=boxes.device)
        small = self._logits(maps, boxes, index, size).sigmoid()
        return found | {"masks": paste_masks_in_image(small, boxes, (size, size))}

    def _mask_loss(
        self,
        found: Sequence[dict[str, Tensor]],
        targets: Sequence[dict[str, Tensor]],
        maps: Sequence[Tensor],
        size: int,
    ) -> Tensor:
        """Cross-entropy of the masks in the true boxes and in the detections that fit one of them."""
        boxes, picture, wanted = [], [], []
        for i, (f, t) in enumerate(zip(found, targets, strict=True)):
            if len(t["boxes"]) == 0:
                continue
            every = torch.cat([t["boxes"], f["boxes"][f["labels"] == PERSON]])
            overlap, whose = box_iou(every, t["boxes"]).max(1)
            fits = overlap >= POSITIVE
            boxes.append(every[fits])
            picture.append(torch.full((len(boxes[-1]),), i, device=every.device))
            wanted.append(project_masks_on_boxes(t["masks"], boxes[-1], whose[fits], 2 * POOLED))
        if not boxes:
            return 0 * sum((p.sum() for p in self.mask.parameters()), start=maps[0].sum())
        logits = self._logits(maps, torch.cat(boxes), torch.cat(picture), size)
        return functional.binary_cross_entropy_with_logits(logits[:, 0], torch.cat(wanted))


def targets_of(people: Tensor) -> list[dict[str, Tensor]]:
    """FCOS's targets of uint8 [B, S, S]: 0 where nobody is, else the number of the person of its picture."""
    out = []
    for plane in people:
        masks = torch.stack([plane == n for n in plane.unique() if n > 0] or [plane > 0])
        masks = masks[masks.flatten(1).any(1)]
        boxes = masks_to_boxes(masks) if len(masks) else torch.zeros(0, 4, device=plane.device)
        boxes[:, 2:] += 1  # half open, as everywhere here
        labels = torch.full((len(masks),), PERSON, device=plane.device)
        out.append({"boxes": boxes, "labels": labels, "masks": masks.float()})
    return out


def net_of(arch: Arch, pretrained: str = "no") -> tuple[CenterMask, bool]:
    """The untrained network, and whether its encoder knows ImageNet.

    Raises:
        UserError: for an unknown encoder, or when wanted ImageNet weights cannot be had.
    """
    import timm

    if arch.encoder not in timm.list_models("*vovnet*"):
        raise UserError(f"expected a VoVNet of timm, got {arch.encoder!r}")
    config = timm.get_pretrained_cfg(arch.encoder)
    hub = config.hf_hub_id if config is not None else None
    imagenet = torch_io.want_pretrained(pretrained, bool(hub) and torch_io.cached_on_hub(str(hub)))
    try:
        encoder = timm.create_model(arch.encoder, pretrained=imagenet, features_only=True, out_indices=(2, 3, 4))
    except (OSError, RuntimeError) as e:
        why = type(e).__name__
        raise UserError(f"ImageNet weights of {arch.encoder} cannot be had ({why}); use pretrained=no") from e
    channels: list[int] = encoder.feature_info.channels()
    return CenterMask(Pyramid(encoder, channels, arch.width), arch.size), imagenet


def build(
    weights: str | None = None, device: str = "auto", batch_size: int = 8, precision: str = "fp32", encoder: str = ""
) -> InstanceSegmenter:
    """A CenterMask from a checkpoint of ours; ``random`` is a small untrained one, for tests.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto`` (bf16 where the hardware has it).
        encoder: of the random network only.

    Raises:
        UserError: without weights, or with a file that is no such checkpoint.
    """
    where = torch_io.pick_device(device)
    if weights is None:
        raise UserError(f"centermask has no published weights of this form; {WAY_OUT}")
    if weights == "random":
        arch = Arch(encoder or "ese_vovnet19b_slim_dw", 64, 64)
        with torch_io.seeded(0):
            net, _ = net_of(arch)
        return ready(net, arch, "centermask@random", where, batch_size, precision)
    said = torch_io.load_checkpoint(Path(weights), KIND)
    arch = torch_io.arch_of(Arch, said, weights)
    net = torch_io.build_to_fit(lambda: net_of(arch)[0], said.state, weights)
    return ready(net, arch, torch_io.short_name("centermask", said.digest), where, batch_size, precision)


def ready(
    net: nn.Module, arch: Arch, name: str, device: torch.device, batch_size: int = 8, precision: str = "fp32"
) -> InstanceSegmenter:
    """The segmenter around a network."""
    return InstanceSegmenter(net, name, device, batch_size, arch.size, precision)
