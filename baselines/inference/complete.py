"""Complete a person in anybody's photograph: masks, recovered photo, cutout with alpha, side-by-side picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ahp_toolkit.core.crops import SIDE, crop_image, crop_labels, square_around
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Box, encode
from ahp_toolkit.nets.devices import pick_device
from ahp_toolkit.nets.tensors import resize_map
from ahp_toolkit.occlusion.paste import Pasted
from ahp_toolkit.segmenters import SEGMENTERS
from ahp_toolkit.segmenters.base import prompt_of
from ahp_toolkit.storage import images
from ahp_toolkit.storage.files import forget_dead
from ahp_toolkit.storage.images import Rgb
from baselines.base import Batch
from baselines.data.samples import collate, planes_of, to_batch
from baselines.inference.cascade import Masks, complete_masks, fed_by, painting
from baselines.training.runs import load_model

PART, WHOLE = 1.5, 1.325  # crop sides in longer sides: of a part of a person; of the whole one (spec §7's mean)
LOOKS = 5  # at a person, at most; two where the second crop holds all of them


@dataclass(frozen=True)
class Completed:
    """A completed person. Masks bool [H, W], the photo's frame; ``recovered`` RGB uint8 [H, W, 3].

    ``cutout`` RGBA uint8 [h, w, 4]: the whole person, cut tight; ``side_by_side`` RGB: photo, masks, recovered photo.
    """

    given: Bool2D
    modal: Bool2D
    amodal: Bool2D
    recovered: Rgb
    cutout: NDArray[np.uint8]
    side_by_side: Rgb
    crop: Box

    @property
    def invisible(self) -> Bool2D:
        """amodal AND NOT modal."""
        return self.amodal & ~self.modal

    def write(self, folder: Path) -> None:
        """Write everything as PNG; masks are 0 and 255."""
        masks, pictures = ("given", "modal", "amodal", "invisible"), ("recovered", "cutout", "side_by_side")
        forget_dead(*(folder / f"{name}.png" for name in (*masks, *pictures)))
        for name in masks:
            images.write_png(folder / f"{name}.png", np.where(getattr(self, name), np.uint8(255), np.uint8(0)))
        for name in pictures:
            images.write_png(folder / f"{name}.png", getattr(self, name))


class Completer:
    """Both stages, loaded once for any number of photos and people.

    Args:
        mask_run, content_run: run folders (or model files).
        segmenter: who makes the initial mask of a person that comes with a box only.

    Raises:
        UserError: when a run is missing, damaged or for the other task.
    """

    def __init__(
        self,
        mask_run: Path,
        content_run: Path,
        device: str = "auto",
        segmenter: str = "mask_rcnn",
        segmenter_weights: str | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.mask = load_model(mask_run, "mask", self.device)
        self.content = load_model(content_run, "content", self.device)
        self._segmenter, self._weights, self._net = segmenter, segmenter_weights, None

    def __call__(self, photo: Rgb, box: Box | None = None, mask: Bool2D | None = None) -> Completed:
        """Complete one person.

        Args:
            photo: RGB uint8 [H, W, 3], as viewers show it.
            box: around what is seen of the person; or
            mask: bool [H, W], the visible part of the person.

        Raises:
            UserError: when neither (or both) is given, the mask is empty or of another size, or the network's is empty.
        """
        if (box is None) == (mask is None):
            raise UserError("expected a box or a mask of the person, one of the two")
        if mask is None:
            assert box is not None
            mask = self._segmented(photo, box)
        if mask.shape != photo.shape[:2]:
            its, own = (f"{a.shape[1]}x{a.shape[0]}" for a in (photo, mask))
            raise UserError(f"expected a mask of the photo's size as viewers show it, {its} px, got {own} px")
        if not mask.any():
            raise UserError("the person's mask is empty; give another box or a mask")
        crop, masks = self._looked(photo, mask)
        return self._finished(photo, mask, crop, masks, self._painted(photo, mask, crop, masks))

    def load_segmenter(self) -> None:
        """Load who makes the masks of boxes, where it is not yet.

        Raises:
            UserError: when it is unknown or its weights are missing: a fault of no single person.
        """
        if self._net is None:
            build: Any = SEGMENTERS.get(self._segmenter).build
            self._net = build(self._weights, device=str(self.device), batch_size=1)

    def _segmented(self, photo: Rgb, box: Box) -> Bool2D:
        height, width = photo.shape[:2]
        if box.clip(width, height).area < 4:
            raise UserError(f"box {tuple(box)}: it holds nothing of the photo, which is {width}x{height} px")
        self.load_segmenter()
        ask, crop = prompt_of(photo, box)
        found = self._net([ask])[0]  # type: ignore[misc]
        mask = np.zeros((height, width), np.bool_)
        x0, y0, x1, y1 = crop.pixels()
        mask[y0:y1, x0:x1] = found.mask
        x0, y0, x1, y1 = box.clip(width, height).pixels()  # only what lies inside the box is kept (paper §4.1)
        outside = np.ones_like(mask)
        outside[y0:y1, x0:x1] = False
        mask &= ~outside
        if not mask.any():
            raise UserError(f"box {tuple(box)}: {self._segmenter} found nobody in it; give a mask with --mask")
        return mask

    def _batch(self, photo: Rgb, given: Bool2D, crop: Box, size: int) -> Batch:
        image, mask = crop_image(photo, crop, size), crop_labels(given, crop, size)  # type: ignore[arg-type]
        none = np.zeros((size, size), np.bool_)
        planes = planes_of(Pasted(image, image, none, none), image, mask.astype(np.bool_), none.view(np.uint8))
        return to_batch(*collate([(torch.from_numpy(planes), False)]), self.device)

    def _looked(self, photo: Rgb, given: Bool2D) -> tuple[Box, Masks]:
        """The person's crop, as in training about the whole person, and the masks in it.

        The first crop is about what is seen, each next one about what was found by then, wider where the last border
        cut the person; the second or a later one that cuts nobody is the last.
        """
        crop = square_around(encode(given).box, PART)
        masks = self._masks(photo, given, crop)
        for _ in range(1, LOOKS):
            found = encode(given | (_full(masks.amodal, crop, photo) > 0.5)).box
            crop = square_around(found, PART if _cut(masks.amodal, crop, photo) else WHOLE)
            masks = self._masks(photo, given, crop)
            if not _cut(masks.amodal, crop, photo):
                break
        return crop, masks

    def _masks(self, photo: Rgb, given: Bool2D, crop: Box) -> Masks:
        full = self._batch(photo, given, crop, SIDE)
        return complete_masks(self.mask, self._batch(photo, given, crop, self.mask.size), full.given)

    def _painted(self, photo: Rgb, given: Bool2D, crop: Box, masks: Masks) -> NDArray[np.float32]:
        raw, _ = painting(self.content, fed_by(self._batch(photo, given, crop, self.content.size), masks))
        return np.ascontiguousarray(raw[0].permute(1, 2, 0).cpu().numpy())

    def _finished(self, photo: Rgb, given: Bool2D, crop: Box, masks: Masks, painted: NDArray[np.float32]) -> Completed:
        modal = _full(masks.modal, crop, photo) > 0.5 if masks.own_modal else given
        # beside a modal mask of the photo's own sharpness: see `cascade.beside_initial`
        ground = _full((1 - masks.amodal) * (1 - masks.modal), crop, photo)
        hidden = ~modal & (_full(masks.invisible, crop, photo) > ground)
        amodal = modal | hidden
        if not amodal.any():
            raise UserError("the mask run found nobody there; give another mask, or a run trained for longer")
        recovered = _pasted_back(photo, painted, crop, hidden)
        return Completed(given, modal, amodal, recovered, _cutout(recovered, amodal),
                         _side_by_side(photo, recovered, modal, amodal, crop), crop)  # fmt: skip


def _cut(amodal: Tensor, crop: Box, photo: Rgb) -> bool:
    """Whether the first mask of a batch of crops touches a border of its crop beyond which the photo goes on."""
    mask, (x0, y0, x1, y1) = amodal[0, 0] > 0.5, crop.pixels()
    height, width = photo.shape[:2]
    borders = ((mask[:, 0], x0 > 0), (mask[0], y0 > 0), (mask[:, -1], x1 < width), (mask[-1], y1 < height))
    return any(on and bool(border.any()) for border, on in borders)


def _enlarged(pixels: NDArray[np.float32], crop: Box, photo: Rgb) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Pixels [s, s] (or [s, s, C]) of a crop at the photo's resolution, linear: where in the photo, and which."""
    x0, y0, x1, y1 = crop.pixels()
    height, width = photo.shape[:2]
    large = resize_map(pixels, x1 - x0, y1 - y0)
    fx0, fy0, fx1, fy1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    return (slice(fy0, fy1), slice(fx0, fx1)), large[fy0 - y0 : fy1 - y0, fx0 - x0 : fx1 - x0]


def _full(mask: Tensor, crop: Box, photo: Rgb) -> NDArray[np.float32]:
    """The first mask of a batch of crops in the photo's frame, float32 [H, W] in [0, 1]; 0 outside the crop."""
    where, part = _enlarged(mask[0, 0].float().cpu().numpy(), crop, photo)
    out = np.zeros(photo.shape[:2], np.float32)
    out[where] = part
    return out


def _pasted_back(photo: Rgb, painted: NDArray[np.float32], crop: Box, hole: Bool2D) -> Rgb:
    """The raw painting of the crop, levels of 0 to 255 [s, s, 3], at the photo's resolution, inside the hole."""
    where, part = _enlarged(painted, crop, photo)
    out = photo.copy()
    np.copyto(out[where], np.rint(part).clip(0, 255).astype(np.uint8), where=hole[where][:, :, None])
    return out


def _cutout(recovered: Rgb, amodal: Bool2D) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = encode(amodal).box.pixels()
    alpha = np.where(amodal[y0:y1, x0:x1], np.uint8(255), np.uint8(0))
    return np.ascontiguousarray(np.dstack([recovered[y0:y1, x0:x1], alpha]))


def _side_by_side(photo: Rgb, recovered: Rgb, modal: Bool2D, amodal: Bool2D, crop: Box) -> Rgb:
    """Photo, photo with the visible part green and the hidden part red, recovered photo: crops of 256 px."""
    before, after = crop_image(photo, crop, SIDE), crop_image(recovered, crop, SIDE)
    seen, whole = (crop_labels(m.view(np.uint8), crop, SIDE) > 0 for m in (modal, amodal))
    tinted = before.copy()
    for mask, colour in ((seen, (0, 160, 0)), (whole & ~seen, (220, 0, 0))):
        tinted[mask] = (before[mask] // 2 + np.array(colour) // 2).astype(np.uint8)
    return np.ascontiguousarray(np.concatenate([before, tinted, after], 1))
