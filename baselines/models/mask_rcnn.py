"""Mask R-CNN (He et al., ICCV 2017), torchvision's, trained on the person's amodal mask and box.

The image is all it sees; of the instances that it finds, the one that matches the initial mask best is taken, and where
none does, the initial mask is the answer. Ours differs: random weights unless ``pretrained`` (torchvision's ImageNet
backbone); crops are enlarged to ``min_size`` px, since torchvision's anchors are 32 px and up; 200 ``proposals`` of a
picture go on to the heads (published: 2000 in training, 1000 at test time), since a crop holds few people; batch norms
learn as everything else does (published: frozen, and with them the first layers).

Several processes do not train exactly as one here: torchvision draws proposals and anchors at random and takes its
means over those drawn, a process at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from ahp_toolkit.core.errors import UserError
from baselines.base import GENERATOR, Baseline, Batch, MaskBaseline, Optimizer, Output
from baselines.layers.aids import Carried
from baselines.training.settings import (
    MAX_NUMBER,
    Between,
    Count,
    Share,
    SharedMaskSettings,
    Width,
    make_settings,
    refuse_name,
)

PAPER = "He et al., Mask R-CNN, ICCV 2017"
TASKS = ("mask",)
IN_PAPER = True
VERSION = 1
BOX_PX = 7  # side of the pooled box
_TERMS = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")


@dataclass(frozen=True)
class MaskRcnnSettings(SharedMaskSettings):
    """``backbone``: a torchvision ResNet; ``min_size``: shorter side that the network sees, px.

    ``width``: channels of the feature pyramid and of both heads; the published 256 is the default. ``two``: the visible
    part of a person is a second class; ``carried``: an instance's mask logits begin at the initial mask inside its box.
    """

    width: Width = 256
    backbone: str = "resnet50"
    pretrained: bool = False
    min_size: Annotated[int, Between(32, MAX_NUMBER)] = 512
    proposals: Count = 200
    min_overlap: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [name for name in torchvision.models.list_models() if name in resnet.__all__]
        if self.backbone not in known:
            raise refuse_name("backbone", self.backbone, known)


def build(task: str, **settings: Any) -> Baseline:
    """Mask R-CNN for "mask"."""
    return MaskRcnn(make_settings(MaskRcnnSettings, settings))


class MaskRcnn(MaskBaseline):
    """Amodal instance segmentation; the losses are torchvision's five."""

    settings: MaskRcnnSettings

    def __init__(self, s: MaskRcnnSettings) -> None:
        super().__init__(s, dict.fromkeys(_TERMS, 1.0))
        classes = 1 + self.heads  # background, the whole person, its visible part
        # every layer trains and none is frozen: random weights need all of them, and batch norm needs its statistics
        backbone = resnet_fpn_backbone(
            backbone_name=s.backbone,
            weights="DEFAULT" if s.pretrained else None,
            trainable_layers=5,
            norm_layer=torch.nn.BatchNorm2d,
        )
        levels = [block[0].in_channels for block in backbone.fpn.inner_blocks]
        backbone.fpn = FeaturePyramidNetwork(levels, s.width, LastLevelMaxPool())
        backbone.out_channels = s.width
        self.net = MaskRCNN(
            backbone,
            min_size=s.min_size,
            max_size=4 * s.min_size,
            rpn_post_nms_top_n_train=s.proposals,
            rpn_post_nms_top_n_test=s.proposals,
            box_detections_per_img=10,
            box_head=TwoMLPHead(s.width * BOX_PX**2, 4 * s.width),
            box_predictor=FastRCNNPredictor(4 * s.width, classes),
            mask_head=MaskRCNNHeads(s.width, (s.width,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(s.width, s.width, classes),
        )
        self.beside = Beside()
        if self.carried is not None:
            self.carried = None  # inside the predictor of masks
            roi = self.net.roi_heads
            roi.mask_roi_pool = Pool(roi.mask_roi_pool, self.beside)
            roi.mask_predictor = Predictor(roi.mask_predictor, classes, self.beside)

    def optimizers(self) -> dict[str, Optimizer]:
        """SGD with momentum, weight decay 1e-4; a quarter of §3.1's 0.02, or 1e-3 from random weights.

        Random weights at 5e-3 and full width give a loss that is no number within 20 steps: there is no warm start.
        """
        return {GENERATOR: Optimizer("sgd", 5e-3 if self.settings.pretrained else 1e-3, weight_decay=1e-4)}

    def forward(self, batch: Batch) -> Output:
        """In training the five loss terms in ``extra``; else the matching instance's probability as logits."""
        self.check_input(batch)
        images = list((batch.image + 1) / 2)
        self.beside.initial = batch.given
        try:
            if self.training:
                truth = [batch.need("amodal"), batch.need("modal")][: self.heads]
                return Output(extra=self.net(images, _targets(torch.cat(truth, 1))))
            people = list(zip(self.net(images), batch.given, strict=True))
        finally:
            self.beside.clear()
        found = [torch.stack([self._match(f, g, label) for f, g in people]) for label in range(1, self.heads + 1)]
        logits = [torch.logit(f, eps=1e-4) for f in found]
        return Output(amodal=logits[0], modal=logits[1] if self.heads == 2 else None)

    def _match(self, found: dict[str, Tensor], given: Tensor, label: int) -> Tensor:
        """[1, H, W] probability of the label's instance that covers the given mask best; that mask if none does."""
        masks = found["masks"][found["labels"] == label]
        if len(masks) == 0:
            return given
        hard = (masks > 0.5).to(given.dtype)
        inter = (hard * given).sum((1, 2, 3))
        overlap = inter / ((hard + given) > 0).sum((1, 2, 3)).clamp(min=1)
        best = int(overlap.argmax())
        return masks[best] if overlap[best] >= self.settings.min_overlap else given

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """torchvision's terms, computed in the training forward pass."""
        if not output.extra:
            raise UserError("mask_rcnn has loss terms only for a forward pass in training mode")
        return {name: output.extra[name] for name in _TERMS}


def _targets(masks: Tensor) -> list[dict[str, Tensor]]:
    """One person a crop, float 0/1 [B, labels, H, W]: a box around each of its masks. An empty mask has no box."""
    targets = []
    for person in masks > 0.5:
        kept = [k for k, mask in enumerate(person) if mask.any()]
        boxes = person.new_zeros((len(kept), 4), dtype=torch.float32)
        for box, k in zip(boxes, kept, strict=True):
            ys, xs = person[k].nonzero(as_tuple=True)
            box.copy_(torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]))
        labels = torch.tensor([k + 1 for k in kept], dtype=torch.int64, device=masks.device)
        targets.append({"boxes": boxes, "labels": labels, "masks": person[kept].to(torch.uint8)})
    return targets


@dataclass
class Beside:
    """What the mask head is shown beside features: initial masks [B, 1, S, S], the boxes and side of their pictures."""

    initial: Tensor | None = None
    boxes: Sequence[Tensor] = ()
    side: int = 0

    def clear(self) -> None:
        """Let go of a batch."""
        self.initial, self.boxes = None, ()


class Pool(nn.Module):
    """torchvision's pooling of features, which notes the boxes."""

    def __init__(self, pool: nn.Module, beside: Beside) -> None:
        super().__init__()
        self.pool, self.beside = pool, beside

    def forward(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], shapes: Sequence[Any]) -> Tensor:
        """As `MultiScaleRoIAlign`."""
        self.beside.boxes, self.beside.side = boxes, shapes[0][0]
        return self.pool(features, boxes, shapes)


class Predictor(nn.Module):
    """torchvision's predictor of masks, whose logits begin at the initial mask inside each box."""

    def __init__(self, predictor: nn.Module, classes: int, beside: Beside) -> None:
        super().__init__()
        self.predictor, self.beside, self.carried = predictor, beside, Carried(classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, s, s] of all boxes to logits [N, classes, 2 s, 2 s]."""
        logits, initial = self.predictor(x), self.beside.initial
        assert initial is not None
        scale = initial.shape[-1] / self.beside.side
        return self.carried(logits, roi_align(initial, list(self.beside.boxes), logits.shape[-1], scale, aligned=True))
