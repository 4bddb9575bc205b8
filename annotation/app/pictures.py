"""The pictures of the panel: a square crop of the photo with context, and its mask or body parts, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from ahp_toolkit.core import crops
from ahp_toolkit.core.masks import Label2D
from ahp_toolkit.core.records import Segmented
from ahp_toolkit.storage import images
from ahp_toolkit.storage.images import ImageError
from ahp_toolkit.storage.photos import Photos

SIZE = 640
CONTEXT = 1.6
WHOLE = 255  # the label of a person whose parts are not known


class Pictures:
    """Crops of candidates. Photos are found below ``roots`` (source -> folder)."""

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._photos = Photos(roots)

    def of(self, s: Segmented) -> dict[str, Any]:
        """``photo`` (JPEG), ``label`` (PNG, 0 outside, 1..19 body part or 255), ``problem`` where there is no photo.

        ``crop`` is the square (x0, y0, x1, y1), px of the photo; it may reach outside it (black there).
        """
        box = crops.square_around(s.mask.box, CONTEXT)
        out: dict[str, Any] = {"photo": "", "problem": "", "crop": [int(v) for v in box]}
        label = np.where(crops.crop_mask(s.mask, box, SIZE), np.uint8(WHOLE), np.uint8(0))
        if s.parsing is not None:
            parts = crops.crop_labels(s.parsing.decode(), box, SIZE)
            label = np.where((label > 0) & (parts > 0), parts, label)
        out["label"] = png(label)
        try:
            pixels = self._photos.read(s.candidate.image)
        except ImageError as e:
            return out | {"problem": f"the photo cannot be shown: {e}"}
        shown = crops.crop_image(pixels, box, min(SIZE, max(64, int(box.width))))
        return out | {"photo": jpeg(shown)}


def png(labels: Label2D) -> str:
    """uint8 [H, W] as a PNG data URI."""
    return "data:image/png;base64," + base64.b64encode(images.encode(labels, ".png")).decode()


def jpeg(pixels: images.Rgb) -> str:
    """RGB uint8 [H, W, 3] as a JPEG data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(images.encode_jpeg(pixels, 88)).decode()
