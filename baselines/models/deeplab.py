"""DeepLab v3+ (Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018), from image and mask.

segmentation-models-pytorch's DeepLabV3Plus with the initial mask as a fourth input channel and one output class, the
whole person. Ours differs: ResNet-50 instead of
Xception (``encoder``), random weights unless ``encoder_weights`` names some that the library can fetch; the rate is
the recipe's, constant or a cosine, in place of the published polynomial decay; the library's decoder has one 3x3
convolution after joining the low features, the paper's best one two (table 2). Atrous rates are the published 6, 12, 18
at an output stride of 16; the library's own are 12, 24, 36.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.segmenters.deeplab import RATES
from baselines.base import GENERATOR, Baseline, Batch, MaskBaseline, Optimizer, Output
from baselines.layers import losses as L
from baselines.training.settings import SharedMaskSettings, Width, make_settings, refuse_name

PAPER = "Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018"
TASKS = ("mask",)
IN_PAPER = True
VERSION = 2


@dataclass(frozen=True)
class DeeplabSettings(SharedMaskSettings):
    """``encoder``: a segmentation-models-pytorch encoder; ``encoder_weights``: "imagenet", or "" for none.

    ``width`` is the decoder's channels.
    """

    width: Width = 256
    encoder: str = "resnet50"
    encoder_weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_encoder(self.encoder, self.encoder_weights)


def _check_encoder(name: str, weights: str) -> None:
    if name.startswith("tu-") and timm.is_model(name[3:]):  # the library hands these to timm, weights and all
        return
    # "mit_..." cannot be dilated, and fails on the meta device before it can say so
    known = [n for n in smp.encoders.get_encoder_names() if not n.startswith("mit_")]
    if name not in known:
        raise refuse_name("encoder", name, known)
    trained = smp.encoders.encoders[name]["pretrained_settings"]
    if weights and weights not in trained:
        raise refuse_name("encoder_weights", weights, trained)


def build(task: str, **settings: Any) -> Baseline:
    """DeepLab v3+ for "mask"."""
    return Deeplab(make_settings(DeeplabSettings, settings))


class Deeplab(MaskBaseline):
    """Semantic segmentation of the whole person."""

    settings: DeeplabSettings

    def __init__(self, s: DeeplabSettings) -> None:
        super().__init__(s, {"mask": 1.0})
        try:
            self.net = smp.DeepLabV3Plus(
                s.encoder,
                encoder_weights=s.encoder_weights or None,
                decoder_atrous_rates=RATES,
                decoder_channels=s.width,
                in_channels=4,
                classes=self.heads,
            )
        except (ValueError, NotImplementedError) as e:  # not every encoder can be dilated
            raise UserError(f"encoder {s.encoder} cannot serve DeepLab v3+ ({e}); resnet50 can") from e

    def optimizers(self) -> dict[str, Optimizer]:
        """SGD with momentum, 7e-3 (§4)."""
        return {GENERATOR: Optimizer("sgd", 7e-3, weight_decay=4e-5)}

    def forward(self, batch: Batch) -> Output:
        """Mask logits."""
        self.check_input(batch)
        return self.masks(self.net(torch.cat([batch.image, batch.given], 1)), batch.given)

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """Cross-entropy of the whole mask."""
        mask = L.mask_ce(output.need("amodal"), batch.need("amodal"))
        return {"mask": mask, **self.modal_term(output, batch.need("modal"))}
