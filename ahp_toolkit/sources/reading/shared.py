"""What several sources need: one word for each kind of bad data, safe paths, checked boxes, id lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Bool2D, Box, Label2D
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.sources.base import LABEL, PERSON
from ahp_toolkit.storage import images, locations

#: No side of a photo is longer (JPEG's own limit): it keeps rasterising from taking unbounded memory.
MAX_SIDE = 65_535
#: Annotations of one photo (real ones: below 1,000): each is compared with each, so more of them would take hours.
MAX_INSTANCES = 4096


class Bad(ValueError):
    """A record that cannot be used: one snake_case word to count it by, and what was expected and came."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def looked(self, *places: str) -> tuple[str, ...]:
        """The places of a photo where this says that it is missing: see `Loaded`."""
        return places if self.reason == "missing" else ()

    def dropped(self, record_id: str, source: str, label: str = PERSON) -> Dropped:
        """The same as the record the harvest keeps; its detail starts with the label where that is no person's."""
        return Dropped(record_id, "harvest", self.reason, labelled(str(self), label), source)


def labelled(detail: str, label: str) -> str:
    """The detail of a dropped instance as the harvest counts it: ``label=<label>`` goes before what is no person."""
    return detail if label == PERSON else f"{LABEL}{label}: {detail}"


def inside(root: Path, relative: str) -> Path:
    """``relative`` below ``root``: a file, an address, or a member of an archive.

    Raises:
        Bad: ``unsafe_path`` when it leaves the root, links followed.
    """
    try:
        return locations.find(root, relative)
    except (ValueError, OSError, IndexError) as e:
        raise Bad("unsafe_path", f"not a path below the data root: {relative!r} ({e})") from e


def first_there(root: Path, looked: Sequence[str]) -> str:
    """The first of these places below ``root`` that has a picture, else the first of all."""
    if len(looked) == 1:
        return looked[0]
    return next((p for p in looked if _has_picture(root, p)), looked[0])


def _has_picture(root: Path, relative: str) -> bool:
    try:
        return locations.is_picture(inside(root, relative))
    except (Bad, OSError):
        return False


def usable_box(box: Box, width: int, height: int) -> Box:
    """The box clipped to the photo of ``width`` x ``height`` px.

    Raises:
        Bad: ``not_finite``, ``empty_box`` (a side of 0 px or less) or ``box_outside``.
    """
    if not all(map(math.isfinite, box)):
        raise Bad("not_finite", f"a box needs four finite numbers, got {tuple(box)}")
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        raise Bad("empty_box", f"a box needs sides above 0 px, got {box.x1 - box.x0:g} x {box.y1 - box.y0:g}")
    clipped = box.clip(width, height)
    if clipped.area <= 0:
        raise Bad("box_outside", f"the box {tuple(box)} lies outside the photo of {width}x{height} px")
    return clipped


def usable_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px when a photo can be so large.

    Raises:
        Bad: ``bad_size`` or ``too_large``.
    """
    if width <= 0 or height <= 0:
        raise Bad("bad_size", f"a photo needs sides above 0 px, got {width}x{height}")
    if max(width, height) > MAX_SIDE or width * height > images.MAX_PIXELS:
        raise Bad("too_large", f"{width}x{height} px; at most {MAX_SIDE} px a side, {images.MAX_PIXELS} px in all")
    return width, height


def stored_size(path: Path) -> tuple[int, int]:
    """(width, height) px from a picture's header, as stored.

    Raises:
        Bad: with the reason of the ImageError.
    """
    try:
        head = images.header(path)
    except images.ImageError as e:
        raise Bad(e.reason, str(e)) from e
    return usable_size(head.width, head.height)


def labels_of(path: Path, width: int, height: int) -> Label2D:
    """A label picture, uint8 [height, width].

    Raises:
        Bad: ``mask_<reason>`` of the ImageError, or ``mask_size`` when it is not of the photo's size.
    """
    try:
        labels = images.read_labels(path)
    except images.ImageError as e:
        raise Bad(f"mask_{e.reason}", str(e)) from e
    return same_size(labels, width, height, path.name)


def same_size(labels: Label2D, width: int, height: int, name: str) -> Label2D:
    """``labels`` when they are [height, width].

    Raises:
        Bad: ``mask_size``.
    """
    if labels.shape != (height, width):
        got = "x".join(map(str, labels.shape[::-1]))
        raise Bad("mask_size", f"{name}: expected {width}x{height} px like its photo, got {got}")
    return labels


def tight_box(mask: Bool2D) -> Box:
    """The tight box of a mask, bool [H, W].

    Raises:
        Bad: ``empty_mask``.
    """
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not xs.size:
        raise Bad("empty_mask", "the mask has no pixel")
    return Box(float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))


def id_list(path: Path) -> list[str]:
    """The ids of a text file, one a line; empty lines are left out.

    Raises:
        UserError: when the file cannot be read as text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: expected a text file with one id a line, byte {e.start} is no UTF-8") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); expected a text file, one id a line") from e


def coco_key(number: int | str) -> str:
    """The photo key of a COCO image id."""
    return f"coco/{int(number):012d}"
