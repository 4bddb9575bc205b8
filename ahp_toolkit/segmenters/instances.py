"""Instance segmenters: a detector's person whose box fits the asked box best.

Every crop is laid on a square canvas of one size, so that its answer does not depend on who shares its batch
(torchvision pads a batch to its largest picture, which changes the features of the others).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ahp_toolkit.core.crops import crop_image
from ahp_toolkit.core.masks import Box
from ahp_toolkit.nets import torch_io
from ahp_toolkit.segmenters.base import Ask, Found
from ahp_toolkit.storage.images import Rgb

PERSON = 1  # COCO's label; a two-class network's person has the same
MATCH = 0.3  # boxes that overlap less are somebody else


def shape_on(shape: Sequence[int], size: int) -> tuple[int, int]:
    """Height and width in px of a crop of that shape [H, W, ...] on the square canvas of ``size`` px."""
    height, width = (max(1, round(v * size / max(shape[:2]))) for v in shape[:2])
    return height, width


def laid(pixels: Rgb, size: int) -> Rgb:
    """RGB uint8 [H, W, 3] at the top left of a black canvas [size, size, 3], its longer side as long as the canvas."""
    side = float(max(pixels.shape[:2]))
    return crop_image(pixels, Box(0.0, 0.0, side, side), size)


class InstanceSegmenter:
    """A ready detector with masks.

    ``net`` takes a list of float RGB [3, size, size] in [0, 1] (see `_canvas`) and gives for each a dict of boxes
    [N, 4] px, labels [N], scores [N] and mask probabilities [N, 1, size, size]: torchvision's convention.
    """

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

    def _canvas(self, ask: Ask) -> Tensor:
        """The crop at the top left of a canvas in ImageNet's mean colour (0 once normalised, as torchvision pads)."""
        square = laid(ask.pixels, self._size)
        out = torch.from_numpy(square).to(self._device).permute(2, 0, 1).float() / 255
        h, w = shape_on(ask.pixels.shape, self._size)
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
        sh, sw = shape_on(ask.pixels.shape, self._size)
        small = said["masks"][best, 0, :sh, :sw].float().cpu().numpy()
        score = float(said["scores"][best]) * boxes[best]
        return Found(torch_io.resize_map(small, w, h) > 0.5, round(min(1.0, max(0.0, score)), 4))
