"""What several sources need: records of bad values, safe paths, checked boxes and sizes, label pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ahp_toolkit.core import values
from ahp_toolkit.core.masks import Bool2D, Box, Label2D
from ahp_toolkit.core.records import Dropped
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import LABEL, PERSON
from ahp_toolkit.sources.reading.finder import SUFFIXES, of_any_case
from ahp_toolkit.storage import images, locations

#: No side of a photo is longer (JPEG's own limit): it keeps rasterising from taking unbounded memory.
MAX_SIDE = 65_535
#: Annotations of one photo (real ones: below 1,000): each is compared with each, so more of them would take hours.
MAX_INSTANCES = 4096


def looked_for(bad: BadValue, places: Sequence[str]) -> tuple[str, ...]:
    """The places of a photo where ``bad`` means that it is missing: see `Loaded`."""
    return tuple(places) if bad.reason == "missing" else ()


def dropped_of(bad: BadValue, record_id: str, source: str, label: str = PERSON) -> Dropped:
    """The record of a bad value that the harvest keeps; its detail starts with the label where that is no person's."""
    return Dropped(record_id, "harvest", bad.reason, labelled(str(bad), label), source)


def labelled(detail: str, label: str) -> str:
    """The detail of a dropped instance as the harvest counts it: ``label=<label>`` goes before what is no person."""
    return detail if label == PERSON else f"{LABEL}{label}: {detail}"


def inside(root: Path, relative: str) -> Path:
    """``relative`` below ``root``: a file, an address, or a member of an archive.

    Raises:
        BadValue: ``unsafe_path`` when it leaves the root, links followed.
    """
    try:
        return locations.find(root, relative)
    except (ValueError, OSError, IndexError) as e:
        raise BadValue("unsafe_path", f"not a path below the data root: {relative!r} ({e})") from e


def first_there(root: Path, places: Sequence[str]) -> str:
    """The first of these places below ``root`` that has a picture, endings without case; else the first of all."""
    there = next((p for p in places if _has_picture(root, p)), None)
    return there or next((other for place in places if (other := of_any_case(root, place))), places[0])


def _has_picture(root: Path, relative: str) -> bool:
    try:
        return locations.is_picture(inside(root, relative))
    except (BadValue, OSError):
        return False


def usable_box(box: Box, width: int, height: int) -> Box:
    """The box clipped to the photo of ``width`` x ``height`` px.

    Raises:
        BadValue: ``not_finite``, ``empty_box`` (a side of 0 px or less) or ``box_outside``.
    """
    if not all(map(math.isfinite, box)):
        raise BadValue("not_finite", f"a box needs four finite numbers, got {tuple(box)}")
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        raise BadValue("empty_box", f"a box needs sides above 0 px, got {box.x1 - box.x0:g} x {box.y1 - box.y0:g}")
    clipped = box.clip(width, height)
    if clipped.area <= 0:
        raise BadValue("box_outside", f"the box {tuple(box)} lies outside the photo of {width}x{height} px")
    return clipped


def usable_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px when a photo can be so large.

    Raises:
        BadValue: ``bad_size`` or ``too_large``.
    """
    if width <= 0 or height <= 0:
        raise BadValue("bad_size", f"a photo needs sides above 0 px, got {width}x{height}")
    if max(width, height) > MAX_SIDE or width * height > images.MAX_PIXELS:
        raise BadValue("too_large", f"{width}x{height} px; at most {MAX_SIDE} px a side, {images.MAX_PIXELS} px in all")
    return width, height


def header_of(path: Path) -> images.Header:
    """The header of a picture.

    Raises:
        BadValue: with the reason of the ImageError.
    """
    try:
        return images.header(path)
    except images.ImageError as e:
        raise BadValue(e.reason, str(e)) from e


def frame_size(path: Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """(width, height) px of the frame that annotations live in: as annotated, else of the photo as viewers show it.

    Raises:
        BadValue: with the reason of the ImageError, ``bad_size`` or ``too_large``.
    """
    return usable_size(*(header_of(path).frame(None)[0] if size is None else size))


def stored_frame(path: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height) px of a photo that is opened: as annotated, where it fits the file; else as viewers show it.

    Raises:
        BadValue: with the reason of the ImageError (``size_mismatch`` too), ``bad_size`` or ``too_large``.
    """
    try:
        return usable_size(*images.header(path).frame(size)[0])
    except images.ImageError as e:
        raise BadValue(e.reason, str(e)) from e


def shared_frame(photo: Path, labels: Path) -> tuple[int, int]:
    """(width, height) px of the frame that a photo and its label picture share; the photo's alone without a picture.

    Raises:
        BadValue: with the reason of the photo's ImageError, ``bad_size`` or ``too_large``.
    """
    head = header_of(photo)
    try:
        annotated = images.header(labels)
        size, _ = head.frame((annotated.width, annotated.height))
    except images.ImageError:
        size, _ = head.frame(None)
    return usable_size(*size)


def labels_of(path: Path, width: int, height: int) -> Label2D:
    """A label picture, uint8 [height, width].

    Raises:
        BadValue: ``mask_<reason>`` of the ImageError, or ``mask_size`` when it is not of the photo's size.
    """
    try:
        labels = images.read_labels(path)
    except images.ImageError as e:
        raise BadValue(f"mask_{e.reason}", str(e)) from e
    return same_size(labels, width, height, path.name)


def same_size(labels: Label2D, width: int, height: int, name: str) -> Label2D:
    """``labels`` when they are [height, width].

    Raises:
        BadValue: ``mask_size``.
    """
    if labels.shape != (height, width):
        got = "x".join(map(str, labels.shape[::-1]))
        raise BadValue("mask_size", f"{name}: expected {width}x{height} px like its photo, got {got}")
    return labels


def tight_box(mask: Bool2D) -> Box:
    """The tight box of a mask, bool [H, W].

    Raises:
        BadValue: ``empty_mask``.
    """
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not xs.size:
        raise BadValue("empty_mask", "the mask has no pixel")
    return Box(float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))


def coco_key(number: int | str) -> str:
    """The photo key of a COCO image id."""
    return f"coco/{int(number):012d}"


def stems_of(path: Path) -> list[str]:
    """The photos of an id list, one a line, without the ending of a picture.

    Raises:
        UserError: when the file cannot be read as text.
    """
    return [
        stem if dot and f".{suffix.lower()}" in SUFFIXES else line
        for line in values.read_lines(path)
        for stem, dot, suffix in [line.rpartition(".")]
    ]
