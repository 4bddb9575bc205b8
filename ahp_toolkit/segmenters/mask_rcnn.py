"""torchvision's Mask R-CNN (ResNet-50 FPN v2, COCO): the person instance whose box fits the asked box best.

Every crop is laid on a square canvas of one size, so that its answer does not depend on who shares its batch
(torchvision pads a batch to its largest picture, which changes the features of the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core import torch_io
from ..core.crops import crop_image
from ..core.errors import UserError
from ..core.masks import Box
from .base import Ask, Found

NEEDS_PIXELS = True
PERSON = 1  # COCO's label; a two-class network's person has the same
MATCH = 0.3  # boxes that overlap less are somebody else
_HEAD = "roi_heads.box_predictor.cls_score.weight"


class MaskRcnn:
    """A ready Mask R-CNN. ``net`` takes a list of float RGB [3, size, size] in [0, 1], torchvision's convention."""

    def __init__(self, net: nn.Module, name: str, device: torch.device, batch_size: int, size: int, precision: str):
        self.name = name
        self.net = net.eval().to(device)
        self._device, self._batch, self._size = device, batch_size, size
        self._dtype = torch_io.compute_dtype(device, precision)

    def __call__(self, asks: Sequence[Ask]) -> list[Found]:
        """The best matching person of each box; an empty mask of score 0 where none overlaps it by an IoU of 0.3."""
        return [f for part in torch_io.batches(asks, self._batch) for f in self._batch_of(part)]

    def _batch_of(self, asks: Sequence[Ask]) -> list[Found]:
        with torch_io.steady(self._device, self._dtype):
            pictures = [self._canvas(a) for a in asks]
            return [self._pick(said, a) for said, a in zip(self.net(pictures), asks, strict=True)]

    def _scale(self, ask: Ask) -> float:
        return self._size / max(ask.pixels.shape[:2])

    def _shape(self, ask: Ask) -> tuple[int, int]:
        """Height and width of the crop on the canvas, px."""
        height, width = (max(1, round(v * self._scale(ask))) for v in ask.pixels.shape[:2])
        return height, width

    def _canvas(self, ask: Ask) -> Tensor:
        """The crop at the top left of a canvas in ImageNet's mean colour (0 once normalised, as torchvision pads)."""
        side = float(max(ask.pixels.shape[:2]))
        square = crop_image(ask.pixels, Box(0.0, 0.0, side, side), self._size)
        out = torch.from_numpy(square).to(self._device).permute(2, 0, 1).float() / 255
        h, w = self._shape(ask)
        mean = torch.tensor(torch_io.MEAN, device=self._device).view(3, 1, 1)
        out[:, h:, :] = mean
        out[:, :, w:] = mean
        return out

    def _pick(self, said: dict[str, Tensor], ask: Ask) -> Found:
        scale, (h, w) = self._scale(ask), ask.pixels.shape[:2]
        people = (said["labels"] == PERSON).nonzero()[:, 0].tolist()
        boxes = {i: Box(*(v / scale for v in said["boxes"][i].tolist())).iou(ask.box) for i in people}
        best = max(boxes, key=lambda i: boxes[i], default=-1)
        if best < 0 or boxes[best] < MATCH:
            return Found(np.zeros((h, w), np.bool_), 0.0)
        sh, sw = self._shape(ask)
        small = said["masks"][best, 0, :sh, :sw].float().cpu().numpy()
        score = float(said["scores"][best]) * boxes[best]
        return Found(torch_io.resize_map(small, w, h) > 0.5, round(min(1.0, max(0.0, score)), 4))


def build(
    weights: str | None = None,
    device: str = "auto",
    batch_size: int = 8,
    precision: str = "fp32",
    size: int = 800,
    proposals: int = 1000,
) -> MaskRcnn:
    """A Mask R-CNN with torchvision's COCO weights (None: fetched once) or a local file's; ``random``: for tests.

    Args:
        weights: a torchvision state dict (.pth); the number of classes is read from it, label 1 is the person.
        size: side of the square canvas in px.
        proposals: regions looked at more closely, torchvision's 1000; 300 is faster and nearly as good.

    Raises:
        UserError: when the weights cannot be had or do not fit.
    """
    where = torch_io.pick_device(device)
    if weights == "random":
        with torch_io.seeded(0):
            return MaskRcnn(_net(2, size, proposals), "mask_rcnn@random", where, batch_size, size, precision)
    state = _published() if weights is None else torch_io.load_torch(Path(weights), "a Mask R-CNN state dict (.pth)")
    if not isinstance(state, dict) or _HEAD not in state:
        raise UserError(f"{weights}: expected a state dict of torchvision's maskrcnn_resnet50_fpn_v2, got another one")
    net = _net(int(state[_HEAD].shape[0]), size, proposals)
    torch_io.fill(net, state, weights or "mask_rcnn")
    name = torch_io.short_name("mask_rcnn", torch_io.state_digest(state))
    return MaskRcnn(net, name, where, batch_size, size, precision)


def _net(classes: int, size: int, proposals: int) -> nn.Module:
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    return maskrcnn_resnet50_fpn_v2(
        weights=None,
        weights_backbone=None,
        num_classes=classes,
        min_size=size,
        max_size=size,
        rpn_post_nms_top_n_test=proposals,
        box_detections_per_img=32,  # each pastes a mask of the whole canvas
    )


def _published() -> dict[str, Tensor]:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

    coco = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    try:
        return coco.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as e:  # no network, or a download whose hash is wrong
        raise UserError(
            f"mask_rcnn: its COCO weights could not be fetched ({e}); get {coco.url} elsewhere and give the file with "
            f"--segmenter-weights"
        ) from e
