"""torchvision's Mask R-CNN (ResNet-50 FPN v2, COCO): the person instance whose box fits the prompt's box best.

Every crop lies on a square canvas of one size, so that its result does not depend on the rest of its batch
(torchvision pads a batch to its largest picture, which changes the features of the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ahp_toolkit.core.crops import crop_image
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.segmenters.base import Prompt, Segmentation
from ahp_toolkit.storage.images import Rgb

NEEDS_PIXELS = True
TRAINABLE = False
WEIGHTS = "torchvision's COCO weights, fetched once, or a file with --segmenter-weights"
LICENCE = "code BSD-3-Clause (torchvision); weights trained on COCO"
PERSON = 1  # COCO's label; a two-class network's person has the same
MATCH = 0.3  # IoU; boxes that overlap less belong to somebody else
_HEAD = "roi_heads.box_predictor.cls_score.weight"


def shape_on(shape: Sequence[int], size: int) -> tuple[int, int]:
    """Height and width in px of a crop of that shape [H, W, ...] on the square canvas of ``size`` px."""
    height, width = (max(1, round(v * size / max(shape[:2]))) for v in shape[:2])
    return height, width


def on_canvas(pixels: Rgb, size: int) -> Rgb:
    """RGB uint8 [H, W, 3] at the top left of a black canvas [size, size, 3], its longer side as long as the canvas."""
    side = float(max(pixels.shape[:2]))
    return crop_image(pixels, Box(0.0, 0.0, side, side), size)


class InstanceSegmenter:
    """A ready detector with masks: of its persons it takes the one whose box fits best.

    ``net`` takes a list of float RGB [3, size, size] in [0, 1] (see `_canvas`) and gives for each a dict of boxes
    [N, 4] px, labels [N], scores [N] and mask probabilities [N, 1, size, size]: torchvision's convention.
    """

    def __init__(self, net: nn.Module, name: str, device: torch.device, batch_size: int, size: int, precision: str):
        self.name = name
        self.net = net.eval().to(device)
        self._device, self._batch, self._size = device, batch_size, size
        self._dtype = devices.compute_dtype(device, precision)

    def __call__(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """The best matching person of each box; an empty mask of score 0 where none overlaps it by an IoU of 0.3."""
        return [f for part in tensors.batches(prompts, self._batch) for f in self._batch_of(part)]

    def _batch_of(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        with devices.steady(self._device, self._dtype):
            pictures = [self._canvas(a) for a in prompts]
            return [self._pick(found, a) for found, a in zip(self.net(pictures), prompts, strict=True)]

    def _canvas(self, prompt: Prompt) -> Tensor:
        """The crop at the top left of a canvas in ImageNet's mean colour (0 once normalised, as torchvision pads)."""
        square = on_canvas(prompt.pixels, self._size)
        out = torch.from_numpy(square).to(self._device).permute(2, 0, 1).float() / 255
        h, w = shape_on(prompt.pixels.shape, self._size)
        mean = torch.tensor(tensors.MEAN, device=self._device).view(3, 1, 1)
        out[:, h:, :] = mean
        out[:, :, w:] = mean
        return out

    def _pick(self, found: dict[str, Tensor], prompt: Prompt) -> Segmentation:
        h, w = prompt.pixels.shape[:2]
        scale = self._size / max(h, w)
        people = (found["labels"] == PERSON).nonzero()[:, 0].tolist()
        boxes = {i: Box(*(v / scale for v in found["boxes"][i].tolist())).iou(prompt.box) for i in people}
        best = max(boxes, key=lambda i: boxes[i], default=-1)
        if best < 0 or boxes[best] < MATCH:
            return Segmentation(np.zeros((h, w), np.bool_), 0.0)
        sh, sw = shape_on(prompt.pixels.shape, self._size)
        small = found["masks"][best, 0, :sh, :sw].float().cpu().numpy()
        score = float(found["scores"][best]) * boxes[best]
        return Segmentation(tensors.resize_map(small, w, h) > 0.5, round(min(1.0, max(0.0, score)), 4))


def build(
    weights: str | None = None,
    device: str = "auto",
    batch_size: int = 8,
    precision: str = "fp32",
    size: int = 800,
    proposals: int = 1000,
) -> InstanceSegmenter:
    """A Mask R-CNN with torchvision's COCO weights (None: fetched once) or a local file's; ``random``: for tests.

    Args:
        weights: a torchvision state dict (.pth); the number of classes is read from it, label 1 is the person.
        size: side of the square canvas in px.
        proposals: regions looked at more closely, torchvision's 1000; 300 is faster and nearly as good.

    Raises:
        UserError: when the weights cannot be had or do not fit.
    """
    where = devices.pick_device(device)
    if weights == "random":
        with devices.seeded(0):
            return InstanceSegmenter(_net(2, size, proposals), "mask_rcnn@random", where, batch_size, size, precision)
    state = _published() if weights is None else checkpoints.load_torch(Path(weights), "a Mask R-CNN state dict (.pth)")
    if not isinstance(state, dict) or getattr(state.get(_HEAD), "ndim", 0) != 2 or len(state[_HEAD]) > 1000:
        raise UserError(f"{weights}: expected a state dict of torchvision's maskrcnn_resnet50_fpn_v2, got another one")
    checkpoints.check_tensors(state, weights or "mask_rcnn")
    net = _net(int(state[_HEAD].shape[0]), size, proposals)
    checkpoints.fill(net, state, weights or "mask_rcnn")
    name = checkpoints.short_name("mask_rcnn", checkpoints.state_digest(state))
    return InstanceSegmenter(net, name, where, batch_size, size, precision)


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
