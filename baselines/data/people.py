"""Who is to be completed in a folder of photos: boxes, label pictures, and a folder of its own for each person."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Box
from ahp_toolkit.storage import images

MOST_VALUES = 100  # a label picture with more people than this is taken for a soft mask


def names_of(photos: Sequence[Path]) -> list[str]:
    """A name for each photo of one folder, its own also where upper and lower case are one.

    The stem; where another photo has that stem, or is called so in full, the whole file name.
    """
    stems = Counter(p.stem.casefold() for p in photos)
    full = {p.name.casefold() for p in photos if p.suffix}
    return [p.stem if stems[p.stem.casefold()] == 1 and p.stem.casefold() not in full else p.name for p in photos]


def box_of(text: str) -> Box:
    """A box from ``X0,Y0,X1,Y1``.

    Raises:
        UserError: when it is no box.
    """
    try:
        x0, y0, x1, y1 = (float(v) for v in text.split(","))
    except ValueError as e:
        raise UserError(f"box {text}: expected X0,Y0,X1,Y1 in px, such as 10,20,200,400") from e
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or x0 >= x1 or y0 >= y1:
        raise UserError(f"box {text}: expected X0,Y0,X1,Y1 in px with X0 < X1 and Y0 < Y1, such as 10,20,200,400")
    return Box(x0, y0, x1, y1)


def boxes_file(path: Path | None) -> dict[str, list[str]]:
    """The boxes of each photo's name as text, unchecked: a bad one is its own person's fault, not the file's.

    Raises:
        UserError: when the file is not JSON of lists by name.
    """
    if path is None:
        return {}
    try:
        boxes = json.loads(path.read_bytes())
        if not isinstance(boxes, dict) or not all(isinstance(boxes, list) for boxes in boxes.values()):
            raise ValueError("no lists by name")
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: expected JSON such as {{'a.jpg': [[10, 20, 200, 400]]}} ({e})") from e
    return {name: [_text(b) for b in boxes] for name, boxes in boxes.items()}


def _text(box: Any) -> str:
    return ",".join(map(str, box)) if isinstance(box, list) else str(box)


def mask_file(mask: Path | None, photo: Path) -> Path | None:
    """The label picture of a photo: ``mask`` itself, or in that folder ``a.jpg.png``, else ``a.png``; None: none."""
    if mask is None or not mask.is_dir():
        return mask
    found = (mask / f"{name}.png" for name in (photo.name, photo.stem))
    return next((file for file in found if file.exists()), None)


def masks_in(file: Path) -> Iterator[NDArray[np.bool_]]:
    """The people of a label picture, bool [H, W], by rising value; a soft mask, 0 to 255, is one person.

    Soft: more of its values have no 3x3 px of their own than have, as a smoothed edge leaves them.

    Raises:
        UserError: when it cannot be read, or is soft and not mostly white.
    """
    try:
        labels = images.read_labels(file)
    except images.ImageError as e:
        raise UserError(f"--mask {file}: {e}") from e
    values = np.setdiff1d(labels, [0])
    if not _is_soft(labels, values):
        yield from (labels == value for value in values)
        return
    if (labels >= 224).sum() * 2 < (labels > 0).sum():
        raise UserError(
            f"--mask {file}: expected one value a person, or one person in white, got {len(values)} greys as of "
            "smoothed edges; save it without smoothing, as PNG"
        )
    yield labels >= 128


def _is_soft(labels: NDArray[np.uint8], values: NDArray[np.uint8]) -> bool:
    square = np.ones((3, 3), np.uint8)
    flat = labels[cv2.erode(labels, square) == cv2.dilate(labels, square)]
    own = len(np.intersect1d(flat, values))
    # two thin people are no soft edge
    return len(values) > MOST_VALUES or (len(values) > 2 and len(values) - own > own)
