"""IoU of the boundary regions of amodal masks (Cheng et al., Boundary IoU, CVPR 2021)."""

from __future__ import annotations

import cv2
import numpy as np

from benchmark.features.counts import pair_areas
from benchmark.metric import Bools, MaskBatch, MaskExample, MeanIou, Rows, iou, mean_rows

RATIO = 0.02  # of the crop's diagonal: 7 px at 256x256
_FRAME, _INNER = "#####/#####/#####/#####/#####", "...../.###./.###./.###./....."


def boundary(masks: Bools) -> Bools:
    """bool [n, H, W] to the pixels of each mask within 2 % of the diagonal of its outline (the frame counts)."""
    h, w = masks.shape[1:]
    width = max(1, round(RATIO * float(np.hypot(h, w))))
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    out = np.empty_like(masks)
    for i, mask in enumerate(masks):
        core = cv2.erode(mask.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=[0])
        out[i] = mask & (core == 0)
    return out


class BoundaryIou(MeanIou):
    """Mean IoU of the amodal masks' boundary regions."""

    name = "boundary_iou"
    definition = (
        "Mean over samples of the IoU of the boundary regions of the predicted and the true amodal mask: the pixels of "
        "a mask within 2 % of the crop's diagonal (7 px, chessboard) of its outline (Cheng et al., CVPR 2021); both "
        "empty: 1, one empty: 0."
    )
    # at 5x5 the region is 1 px wide: the rings of a 5x5 and of a 3x3 square, 16 and 8 px, have none in common; the
    # ring of a full 4x5 frame, 14 px, shares 10 with the ring of its left 4x4 part, 12 px: 10 of 16
    examples = (
        MaskExample([_FRAME], [_INNER], [_INNER], 0.0),
        MaskExample(["#####/#####/#####/#####"], ["####./####./####./####."], ["####./####./####./####."], 10 / 16),
    )

    def rows_of(self, batch: MaskBatch) -> Rows:
        """(IoU, 1) of each sample."""
        a = pair_areas(boundary(batch.amodal), boundary(batch.true_amodal))
        return mean_rows(iou(a[:, 2], a[:, 0] + a[:, 1] - a[:, 2]))


METRICS = (BoundaryIou,)
