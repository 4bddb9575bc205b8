"""torchvision's Mask R-CNN (ResNet-50 FPN v2, COCO): the person instance whose box fits the asked box best."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets import torch_io
from ahp_toolkit.segmenters.instances import InstanceSegmenter

NEEDS_PIXELS = True
_HEAD = "roi_heads.box_predictor.cls_score.weight"


class MaskRcnn(InstanceSegmenter):
    """A ready Mask R-CNN."""


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
    if not isinstance(state, dict) or getattr(state.get(_HEAD), "ndim", 0) != 2 or len(state[_HEAD]) > 1000:
        raise UserError(f"{weights}: expected a state dict of torchvision's maskrcnn_resnet50_fpn_v2, got another one")
    torch_io.check_tensors(state, weights or "mask_rcnn")
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
