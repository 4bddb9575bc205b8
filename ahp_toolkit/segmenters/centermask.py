"""CenterMask (Lee & Park, CVPR 2020), the paper's own kind of input network N_i: FCOS with an attention-guided mask.

A VoVNet (timm) with a feature pyramid P3 to P7, torchvision's FCOS, and the SAG-Mask head of its §3.3 and §3.4: every
box is pooled from the level that fits its share of the picture (eq. 2), four 3x3 convolutions, spatial attention,
a 2x deconvolution, one mask. As in the published models a second head predicts each mask's IoU, and a mask's score is
its box's times that (Mask Scoring R-CNN, Huang et al., CVPR 2019). Of the instances found, the one whose box fits the
prompt's best is taken. Ours differs: one class, the person; VoVNet with eSE (CenterMask's successor's) as timm has it;
depthwise at the debug size; 32 boxes of a picture get a mask, in training too (published: 100); the fully connected
layers are four times the pyramid's width (the published 1024 at its 256); AdamW with a cosine (published: SGD, steps).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.ops import FeaturePyramidNetwork, box_iou, masks_to_boxes, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ahp_toolkit.core.crops import around, crop_mask, cut
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.nets.recipe import Recipe, Settings, by_photo, jittered, photo_of, tinted
from ahp_toolkit.nets.weights import cached_on_hub, want_pretrained
from ahp_toolkit.segmenters.base import ENLARGE, Prompt
from ahp_toolkit.segmenters.mask_rcnn import PERSON, InstanceSegmenter, on_canvas, shape_on
from ahp_toolkit.storage.images import Rgb

KIND = "ahp-centermask-2"  # 1 had no head for the masks' IoU
NEEDS_PIXELS = True
TRAINABLE = True
WEIGHTS = "train it with `ahp build segmenter --name centermask`, or give a checkpoint with --segmenter-weights"
LICENCE = "code BSD-3-Clause (torchvision), Apache-2.0 (timm); weights those of the photos it is trained on"
#: ``debug`` takes about a minute on two CPU cores, ``full`` wants a GPU.
PRESETS = {
    "debug": Settings("ese_vovnet19b_slim_dw", 128, 200, 8, lr=1e-3, width=64),
    "full": Settings(
        "ese_vovnet39b", 800, 90_000, 16, 2e-4, precision="auto", loaders=8, save_every=1000, judge=2000, holdout=0.02
    ),
}
LEVELS = (3, 4, 5)  # of the pyramid, at strides 8, 16 and 32, that boxes are pooled from
POOLED = 14  # side of a pooled box, cells; its mask has twice as many
PROPOSALS = 32  # boxes of one picture that get a mask
OUTSIDE = 255  # in a plane of people's numbers: no px of the picture
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
        _start(self)


class MaskIoUHead(nn.Module):
    """How good a mask is: four 3x3 convolutions, the last of stride 2, and three fully connected layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(4):
            stride = 2 if i == 3 else 1
            layers += [nn.Conv2d(width + (i == 0), width, 3, stride, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.Flatten())
        for inputs in (width * (POOLED // 2) ** 2, 4 * width):
            layers += [nn.Linear(inputs, 4 * width), nn.ReLU(inplace=True)]
        last = nn.Linear(4 * width, 1)
        self.layers = nn.Sequential(*layers, last)
        _start(self)
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, pooled: Tensor, masks: Tensor) -> Tensor:
        """Pooled boxes [N, C, 14, 14] and their masks' probabilities [N, 1, 28, 28] to IoUs, about [0, 1], [N]."""
        seen = torch.cat([pooled, functional.max_pool2d(masks, 2)], 1)
        return self.layers(seen)[:, 0]  # type: ignore[no-any-return]


def _start(head: nn.Module) -> None:
    for layer in head.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def levels_of(boxes: Tensor, inputs: Tensor) -> Tensor:
    """The pyramid level that boxes [N, 4] px of pictures of area ``inputs`` [N] px are pooled from, int64 [N] (eq. 2).

    k = ceil(5 - log2(A_input / A_box)), within 3 .. 5: the larger its share of the picture, the coarser.
    """
    k = torch.ceil(LEVELS[-1] - torch.log2(inputs / _areas(boxes)))
    return k.clamp(LEVELS[0], LEVELS[-1]).long()


def _areas(boxes: Tensor) -> Tensor:
    return ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1.0)


def mask_ious(logits: Tensor, wanted: Tensor, whole: Tensor) -> Tensor:
    """IoU of the masks [N, h, w] that logits make with people of ``whole`` [N] cells, of whom ``wanted`` are here."""
    made = (logits > 0).float()
    both = (made * wanted).sum((1, 2))
    return (both / (made.sum((1, 2)) + whole - both).clamp(min=1.0)).clamp(max=1.0)


def iou_loss(estimate: Tensor, true: Tensor) -> Tensor:
    """Half the squared error of IoUs [N], a mean over the masks that touch their person at all."""
    touch = (true > 0).to(estimate.dtype)
    return 0.5 * ((estimate - true).square() * touch).sum() / touch.sum().clamp(min=1.0)


class CenterMask(nn.Module):
    """FCOS and SAG-Mask on one pyramid. Pictures are float RGB [3, h, w] in [0, 1], h and w at most ``size``.

    It lays them on a square canvas of that size, whose rest is ImageNet's mean colour; boxes and masks are its.
    """

    def __init__(self, pyramid: Pyramid, size: int) -> None:
        super().__init__()
        self.size = size
        self.fcos = FCOS(
            pyramid,
            num_classes=PERSON + 1,
            min_size=size,
            max_size=size,
            score_thresh=0.05,
            detections_per_img=PROPOSALS,
        )
        self.mask = MaskHead(pyramid.out_channels)
        self.mask_iou = MaskIoUHead(pyramid.out_channels)

    def forward(self, pictures: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        """With targets (see `targets_of`) the five named losses; else what `InstanceSegmenter` takes."""
        x = torch.stack([self._canvas(p) for p in pictures])
        maps = list(self.fcos.backbone(x).values())
        heads = {k: v.float() for k, v in self.fcos.head(maps).items()}
        images = ImageList(x, [(self.size, self.size)] * len(x))
        inputs = torch.tensor([float(p.shape[1] * p.shape[2]) for p in pictures], device=x.device)
        anchors = self.fcos.anchor_generator(images, maps)
        counts = [m.shape[2] * m.shape[3] for m in maps]
        with torch.no_grad():
            found = self._found(heads, anchors, counts, images)
        if targets is None:
            return [self._masked(f, maps, i, inputs) for i, f in enumerate(found)]
        losses = self.fcos.compute_loss(list(targets), heads, anchors, counts)
        return losses | self._mask_losses(found, targets, maps, inputs)

    def _canvas(self, picture: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=picture.device).view(3, 1, 1) for v in (tensors.MEAN, tensors.STD))
        h, w = picture.shape[1:]
        return functional.pad((picture - mean) / std, (0, self.size - w, 0, self.size - h))

    def _found(
        self, heads: dict[str, Tensor], anchors: list[Tensor], counts: list[int], images: ImageList
    ) -> list[dict[str, Tensor]]:
        """FCOS's people: boxes, scores, labels of each picture."""
        split = {k: list(v.split(counts, dim=1)) for k, v in heads.items()}
        by_level = [list(a.split(counts)) for a in anchors]
        return self.fcos.postprocess_detections(split, by_level, images.image_sizes)

    def _pooled(self, maps: Sequence[Tensor], boxes: Tensor, picture: Tensor, inputs: Tensor) -> Tensor:
        """Features [N, C, 14, 14] of boxes [N, 4] in the pictures int64 [N]; ``inputs``: area of each picture, px."""
        level = levels_of(boxes, inputs[picture])
        rois = torch.cat([picture[:, None].to(boxes.dtype), boxes], 1)
        pooled = maps[0].new_zeros(len(boxes), maps[0].shape[1], POOLED, POOLED, dtype=torch.float32)
        for k, feature in zip(LEVELS, maps, strict=False):
            here = (level == k).nonzero()[:, 0]
            cells = roi_align(feature.float(), rois[here], POOLED, 1 / 2**k, sampling_ratio=2, aligned=True)
            pooled = pooled.index_copy(0, here, cells)
        return pooled

    def _masked(
        self, found: dict[str, Tensor], maps: Sequence[Tensor], picture: int, inputs: Tensor
    ) -> dict[str, Tensor]:
        """One picture's people with their mask probabilities on its canvas; scores are the masks'."""
        person = found["labels"] == PERSON
        found = {k: v[person] for k, v in found.items()}
        boxes = found["boxes"]
        index = torch.full((len(boxes),), picture, device=boxes.device)
        pooled = self._pooled(maps, boxes, index, inputs)
        small = self.mask(pooled).float().sigmoid()
        scores = found["scores"] * self.mask_iou(pooled, small).float().clamp(0.0, 1.0)
        return found | {"masks": paste_masks_in_image(small, boxes, (self.size, self.size)), "scores": scores}

    def _mask_losses(
        self,
        found: Sequence[dict[str, Tensor]],
        targets: Sequence[dict[str, Tensor]],
        maps: Sequence[Tensor],
        inputs: Tensor,
    ) -> dict[str, Tensor]:
        """Of the masks in the true boxes and in the detections that fit one: cross-entropy, and l2 of their IoU."""
        boxes, picture, wanted, areas = [], [], [], []
        for i, (f, t) in enumerate(zip(found, targets, strict=True)):
            if len(t["boxes"]) == 0:
                continue
            every = torch.cat([t["boxes"], f["boxes"][f["labels"] == PERSON]])
            overlap, whose = box_iou(every, t["boxes"]).max(1)
            fits = overlap >= POSITIVE
            boxes.append(every[fits])
            picture.append(torch.full((len(boxes[-1]),), i, device=every.device))
            wanted.append(project_masks_on_boxes(t["masks"], boxes[-1], whose[fits], 2 * POOLED))
            areas.append(t["masks"].sum((1, 2))[whose[fits]])
        if not boxes:
            heads = (*self.mask.parameters(), *self.mask_iou.parameters())
            return {"mask": 0 * sum((p.sum() for p in heads), start=maps[0].sum())}
        every, truth = torch.cat(boxes), torch.cat(wanted)
        pooled = self._pooled(maps, every, torch.cat(picture), inputs)
        logits = self.mask(pooled).float()
        cells = torch.cat(areas) * (2 * POOLED) ** 2 / _areas(every)
        estimate = self.mask_iou(pooled, logits.sigmoid()).float()
        return {
            "mask": functional.binary_cross_entropy_with_logits(logits[:, 0], truth),
            "mask_iou": iou_loss(estimate, mask_ious(logits[:, 0].detach(), truth, cells)),
        }


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
    imagenet = want_pretrained(pretrained, bool(hub) and cached_on_hub(str(hub)))
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
    where = devices.pick_device(device)
    if weights is None:
        raise UserError(f"centermask has no published weights of this form; {WEIGHTS}")
    if weights == "random":
        arch = Arch(encoder or "ese_vovnet19b_slim_dw", 64, 64)
        with devices.seeded(0):
            net, _ = net_of(arch)
        return Ready(net, "centermask@random", where, batch_size, arch.size, precision)
    made = checkpoints.load_checkpoint(Path(weights), KIND)
    arch = checkpoints.arch_of(Arch, made, weights)
    net = checkpoints.build_to_fit(lambda: net_of(arch)[0], made.state, weights)
    return Ready(net, checkpoints.short_name("centermask", made.digest), where, batch_size, arch.size, precision)


class Ready(InstanceSegmenter):
    """A ready CenterMask. The network gets the crop alone: eq. 2 uses its area, not the canvas's."""

    def _canvas(self, prompt: Prompt) -> Tensor:
        h, w = shape_on(prompt.pixels.shape, self._size)
        return super()._canvas(prompt)[:, :h, :w]


def recipe(settings: Settings) -> Recipe:
    """How a CenterMask is trained on humans with masks."""
    arch = Arch(settings.encoder, settings.size, settings.width)
    net, imagenet = net_of(arch, settings.pretrained)

    def ready(trained: nn.Module, device: torch.device) -> Ready:
        return Ready(trained, "", device, settings.batch, arch.size, settings.precision)

    return Recipe(KIND, arch, net, imagenet, lambda humans: PeopleCut(arch, by_photo(humans)), people_loss, ready)


@dataclass(frozen=True)
class PeopleCut:
    """A training sample: the 3x crop (2.4 to 3.6 times) on its canvas, and the photo's people as numbered px.

    ``people``: all humans by photo (`photo_of`), so that somebody beside the person is not learnt as background. Humans
    of other files of the photograph, such as LIP's crops, have another frame and are left out.
    """

    arch: Arch
    people: Mapping[str, Sequence[Candidate]]

    def __call__(
        self, photo: Rgb, human: Candidate, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Planes [S, S, 3] and numbers [S, S]: 1 the person, 2 and up the others, 0 nobody, OUTSIDE the crop."""
        height, width = photo.shape[:2]
        crop = around(jittered(human.box, rng), width, height, ENLARGE * rng.uniform(0.8, 1.2))
        planes = on_canvas(cut(photo, crop), self.arch.size)
        target = self._numbers(human, crop)
        h, w = shape_on((int(crop.height), int(crop.width)), self.arch.size)
        if rng.random() < 0.5:
            planes[:h, :w], target[:h, :w] = planes[:h, :w][:, ::-1].copy(), target[:h, :w][:, ::-1].copy()
        tinted(planes, rng)
        target[h:], target[:, w:] = OUTSIDE, OUTSIDE
        return planes, target

    def _numbers(self, human: Candidate, crop: Box) -> NDArray[np.uint8]:
        side = max(crop.width, crop.height)
        square = Box(crop.x0, crop.y0, crop.x0 + side, crop.y0 + side)
        same = [c for c in self.people.get(photo_of(human), ()) if c.image.image_id == human.image.image_id]
        others = [c for c in same if c.candidate_id != human.candidate_id]
        near = [c for c in others if c.mask is not None and c.mask.box.intersection(crop) > 0][:200]
        out = np.zeros((self.arch.size, self.arch.size), np.uint8)
        for number, person in reversed([*enumerate([human, *near], 1)]):  # the person itself is drawn last
            assert person.mask is not None
            out[crop_mask(person.mask, square, self.arch.size)] = number
        return out


def people_loss(net: nn.Module, planes: Tensor, target: Tensor) -> Tensor:
    """The sum of FCOS's three losses, the mask's and its IoU's.

    Planes uint8 [B, 3, S, S]; target uint8 [B, S, S], the numbers of people (see `targets_of`).
    """
    pictures = [p[:, :h, :w] for p, (h, w) in zip(planes.float() / 255, sizes_of(target), strict=True)]
    terms = net(pictures, targets_of(target))
    return torch.stack([v.float() for v in terms.values()]).sum()


def sizes_of(people: Tensor) -> list[tuple[int, int]]:
    """Height and width of the pictures at the top left of canvases uint8 [B, S, S], which are OUTSIDE elsewhere."""
    inside = people != OUTSIDE
    return [(h, w) for h, w in torch.stack([inside[:, :, 0].sum(1), inside[:, 0].sum(1)], 1).tolist()]


def targets_of(people: Tensor) -> list[dict[str, Tensor]]:
    """FCOS's targets of uint8 [B, S, S]: 0 where nobody is, else the person's number, or OUTSIDE."""
    out = []
    for plane in people:
        masks = torch.stack([plane == n for n in plane.unique() if 0 < n < OUTSIDE] or [plane < 0])
        masks = masks[masks.flatten(1).any(1)]
        boxes = masks_to_boxes(masks) if len(masks) else torch.zeros(0, 4, device=plane.device)
        boxes[:, 2:] += 1  # half open, as everywhere here
        labels = torch.full((len(masks),), PERSON, device=plane.device)
        out.append({"boxes": boxes, "labels": labels, "masks": masks.float()})
    return out
