"""The two stages at inference: masks and pictures on 256x256 crops, from models trained at any size.

A model sees the crop at its own size; its masks are enlarged while they are soft and beside the initial mask (see
`beside_initial`), its picture linearly, raw as it is: with the occluder put back around it, the occluder's colour would
come into the hole. What a model does not paint keeps the crop's own pixels, at 256 px.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ahp_toolkit.core.crops import SIDE
from ahp_toolkit.nets.devices import compute_dtype
from baselines.base import Batch, Result
from baselines.inference.graphs import Graphs
from baselines.training.runs import Loaded


@dataclass(frozen=True)
class Masks:
    """Stage 1's answer for a batch, float 0/1 [B, 1, 256, 256]; parsings int64 [B, s, s] at the model's size or None.

    ``own_modal``: whether the model has a modal output; without, ``modal`` is the initial mask.
    """

    modal: Tensor
    amodal: Tensor
    modal_parsing: Tensor | None
    parsing: Tensor | None
    own_modal: bool
    seconds: float

    @property
    def invisible(self) -> Tensor:
        """amodal AND NOT modal."""
        return self.amodal * (1 - self.modal)


def resized_mask(mask: Tensor, size: int) -> Tensor:
    """Float 0/1 masks [B, 1, h, w] to size x size, linear and cut at a half."""
    if mask.shape[-1] == size:
        return mask
    soft = F.interpolate(mask.float(), size=(size, size), mode="bilinear", antialias=mask.shape[-1] > size)
    return (soft > 0.5).to(mask.dtype)


def resized_labels(labels: Tensor | None, size: int) -> Tensor | None:
    """int64 labels [B, h, w] to size x size, nearest."""
    if labels is None or labels.shape[-1] == size:
        return labels
    return F.interpolate(labels[:, None].float(), size=(size, size), mode="nearest-exact")[:, 0].long()


def resized_image(image: Tensor, size: int) -> Tensor:
    """Pictures [B, 3, h, w] to size x size, linear."""
    if image.shape[-1] == size:
        return image
    return F.interpolate(image.float(), size=(size, size), mode="bilinear", antialias=image.shape[-1] > size)


def answer(model: Loaded, batch: Batch, precision: str = "fp32") -> tuple[Result, float]:
    """The model's own answer, and the seconds it took."""
    device = batch.image.device
    dtype = compute_dtype(device, precision)
    predict = model.graphs.setdefault(dtype, Graphs(model.net, dtype))
    with torch.inference_mode():
        begun = _now(device)
        result = predict(batch)
        return result, _now(device) - begun


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def complete_masks(model: Loaded, batch: Batch, given: Tensor, precision: str = "fp32") -> Masks:
    """Stage 1. ``batch`` at the model's size; ``given``: the initial masks [B, 1, 256, 256]."""
    result, seconds = answer(model, Batch(batch.image, batch.given), precision)
    if result.amodal is None or result.modal is None:
        raise ValueError(f"expected masks of {model.name}, got none")
    own = result.modal is not batch.given
    amodal = beside_initial(result.amodal, batch.given, given)
    modal = beside_initial(result.modal, batch.given, given) if own else given
    if own:  # spec §3: amodal := amodal OR the refined modal mask
        amodal = torch.maximum(amodal, modal)
    return Masks(modal, amodal, result.modal_parsing, result.parsing, own, seconds)


def beside_initial(found: Tensor, shown: Tensor, initial: Tensor) -> Tensor:
    """A model's mask at 256 px, float 0/1 [B, 1, 256, 256]: the initial mask with what the model adds and leaves out.

    Where the model keeps the initial mask, that mask's own sharpness stays. Enlarging a coarse mask by itself and
    subtracting the fine initial one would leave a ring of hidden pixels along the whole outline. Outside the initial
    mask a pixel is the person's where more of what was added lies around it than of background; inside, where no more
    was left out than kept. At 256 px the answer is the model's own mask, cut at a half.

    Args:
        found: the model's answer, float [B, 1, s, s] in [0, 1], over a half where the person is.
        shown: the initial mask that the model saw, float 0/1 [B, 1, s, s].
        initial: the same at 256 px.
    """
    if found.shape[-1] == SIDE:
        return (found > 0.5).to(initial.dtype)
    kinds = [found * (1 - shown), (1 - found) * (1 - shown), shown * (1 - found), shown * found]
    added, ground, left, kept = F.interpolate(torch.cat(kinds, 1).float(), (SIDE, SIDE), mode="bilinear").split(1, 1)
    return torch.where(initial > 0, left <= kept, added > ground).to(initial.dtype)


def fed_by(batch: Batch, masks: Masks) -> Batch:
    """What stage 2 is handed in the cascade: the batch (at its size) with stage 1's masks and parsings."""
    size = batch.image.shape[-1]
    modal, amodal = resized_mask(masks.modal, size), resized_mask(masks.amodal, size)
    amodal = torch.maximum(amodal, modal)
    labels = resized_labels(masks.parsing, size), resized_labels(masks.modal_parsing, size)
    return Batch(batch.image, batch.given, modal, amodal, labels[0], labels[1])


def painting(model: Loaded, batch: Batch, precision: str = "fp32") -> tuple[Tensor, float]:
    """Stage 2's raw paintings float32 [B, 3, 256, 256] in levels of 0 to 255, of which the hole counts; the seconds.

    ``batch``: at the model's size, with the masks and parsings it is fed.
    """
    result, seconds = answer(model, batch, precision)
    if result.image is None:
        raise ValueError(f"expected a picture of {model.name}, got none")
    return (resized_image(result.image.float(), SIDE) + 1) * 127.5, seconds


def paint(
    model: Loaded, batch: Batch, image: Tensor, invisible: Tensor, precision: str = "fp32"
) -> tuple[Tensor, float]:
    """Stage 2: the recovered crops uint8 [B, 256, 256, 3] and the seconds.

    Args:
        batch: as `painting`.
        image: the crops uint8 [B, 3, 256, 256]; kept outside ``invisible``.
        invisible: float 0/1 [B, 1, 256, 256].
    """
    raw, seconds = painting(model, batch, precision)
    out = torch.where(invisible > 0, raw.round().clamp(0, 255).to(torch.uint8), image)
    return out.permute(0, 2, 3, 1).contiguous(), seconds
