"""The three file kinds of VOC and SBD, each read to plain values: XML, pairs of palette PNG, MATLAB structs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import values
from ahp_toolkit.core.limits import MAX_LABEL_PIXELS
from ahp_toolkit.core.masks import Bool2D, Box, Label2D, Mask, encode
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.reading.mat import struct_fields
from ahp_toolkit.sources.reading.shared import labels_of, same_size
from ahp_toolkit.storage import images

#: VOC's class order; the index in a mask is the position here, 0 is background (formats §2).
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
_FLAGS = ("occluded", "truncated", "difficult")
_MAX_XML = 2 * 2**20
#: A label map of noise, or an XML of nothing but objects, would else take hours; real photos hold at most dozens.
_MAX_INSTANCES = 1024
_MAX_WORK = 2**32  # px times instances: 16 instances of the largest picture, all of any photo


_NO_BOX = Box(0, 0, 0, 0)


@dataclass(frozen=True)
class Object:
    """An XML object: box 0-based half open, flags True, False or None (unknown); ``bad``: why it cannot be used."""

    label: str
    box: Box = _NO_BOX
    flags: Mapping[str, bool | None] = field(default_factory=dict)
    bad: BadValue | None = None


@dataclass(frozen=True)
class Annotated:
    """An XML file: (width, height) px where they are known, its photo's name, and its objects in order."""

    size: tuple[int, int] | None
    filename: str
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Outlined:
    """One mask with its number in the file and its class ('' for none of the 20)."""

    number: int
    label: str
    mask: Mask


def annotation(path: Path) -> Annotated:
    """Read an annotation XML; direct children only, for the parts of a person are nested objects with boxes too.

    Raises:
        BadValue: ``annotation_<reason>`` when it is missing, too large or no XML.
    """
    try:
        data = images.read_bytes(path)
        if len(data) > _MAX_XML:
            raise BadValue("annotation_too_large", f"{path.name}: {len(data)} bytes, at most {_MAX_XML} are read")
        tree = ET.fromstring(data, ET.XMLParser(target=_NoDoctype()))
    except images.ImageError as e:
        raise BadValue(f"annotation_{e.reason}", str(e)) from e
    except (ET.ParseError, ValueError, LookupError) as e:
        if isinstance(e, BadValue):
            raise
        raise BadValue("annotation_corrupt", f"{path.name}: not XML: {e}") from e
    if tree.tag != "annotation":
        raise BadValue("annotation_corrupt", f"{path.name}: expected <annotation>, got <{tree.tag}>")
    objects = tree.findall("object")
    if len(objects) > _MAX_INSTANCES:
        raise BadValue(
            "annotation_too_large", f"{path.name}: {len(objects)} objects, at most {_MAX_INSTANCES} are read"
        )
    return Annotated(_size(tree), (tree.findtext("filename") or "").strip(), tuple(map(_object, objects)))


class _NoDoctype(ET.TreeBuilder):
    """Refuses a document type: VOC's files have none, and entities declared there can grow without end."""

    def doctype(self, name: str, *_: object) -> None:
        raise BadValue("annotation_corrupt", f"a document type {name[:60]!r}, which no annotation has")


def _size(tree: ET.Element) -> tuple[int, int] | None:
    try:
        return values.size(tree.findtext("size/width"), tree.findtext("size/height"))
    except BadValue:
        return None


def _object(thing: ET.Element) -> Object:
    label = (thing.findtext("name") or "").strip().lower()
    if not label:
        return Object("?", bad=BadValue("unknown_category", "an object without a name"))
    corners = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    if None in corners:
        return Object(label, bad=BadValue("bad_box", f"bndbox: expected xmin, ymin, xmax, ymax in px, got {corners}"))
    try:
        x0, y0, x1, y1 = (values.number(c, "bad_box") for c in corners)
        flags = {name: values.flag(thing.findtext(name)) for name in _FLAGS}
    except BadValue as bad:
        return Object(label, bad=bad)
    # 1-based and inclusive (formats §2): pixel xmax is inside
    return Object(label, Box(x0 - 1, y0 - 1, x1, y1), flags)


def voc_outlines(object_png: Path, class_png: Path, width: int, height: int) -> list[Outlined]:
    """The masks of SegmentationObject with the majority class of SegmentationClass under each; void left out.

    Raises:
        BadValue: ``mask_<reason>`` or ``mask_size``.
    """
    objects = labels_of(object_png, width, height)
    classes = labels_of(class_png, width, height)
    found = []
    for k in _numbers(objects):
        own = objects == k
        found.append(Outlined(k, _majority(classes, own), encode(own)))
    return found


def _numbers(labels: Label2D | NDArray[np.integer[Any]]) -> list[int]:
    if labels.size > MAX_LABEL_PIXELS:
        raise BadValue("mask_too_large", f"{labels.size} px, at most {MAX_LABEL_PIXELS} px of labels")
    numbers = [int(k) for k in np.unique(labels) if k not in (0, VOID)]
    if len(numbers) > _MAX_INSTANCES or len(numbers) * labels.size > _MAX_WORK:
        raise BadValue("mask_corrupt", f"{len(numbers)} instances in one photo of {labels.size} px")
    return numbers


def _majority(classes: Label2D, mask: Bool2D) -> str:
    counts = np.bincount(classes[mask], minlength=256)
    counts[[0, VOID]] = 0
    return _label(int(counts.argmax()))


def _label(index: int) -> str:
    return CLASSES[index] if 0 < index < len(CLASSES) else ""


def sbd_outlines(path: Path, width: int, height: int) -> list[Outlined]:
    """The masks of SBD's inst/<id>.mat (struct GTinst: Segmentation, Categories).

    Raises:
        BadValue: ``mask_<reason>`` when it cannot be read, ``mask_size`` when it is not of the photo's size.
    """
    segmentation, categories = _gt_inst(path)
    same_size(segmentation, width, height, path.name)
    found = []
    for k in _numbers(segmentation):
        label = _label(int(categories[k - 1])) if 0 < k <= categories.size else ""
        found.append(Outlined(k, label, encode(segmentation == k)))
    return found


def _gt_inst(path: Path) -> tuple[Label2D, NDArray[np.int64]]:
    try:
        data = images.read_bytes(path)
    except images.ImageError as e:
        raise BadValue("mask_corrupt" if e.reason == "empty" else f"mask_{e.reason}", str(e)) from e
    try:
        record = struct_fields(data, "GTinst", ("Segmentation", "Categories"))
    except ValueError as e:
        raise BadValue("mask_corrupt", f"{path.name}: expected the struct GTinst of SBD: {e}") from e
    segmentation = np.ascontiguousarray(record["Segmentation"])
    with np.errstate(invalid="ignore"):  # no number is no class
        categories = record["Categories"].ravel().astype(np.int64)
    if segmentation.ndim != 2 or segmentation.dtype.kind not in "iu":
        got = f"{segmentation.dtype} {segmentation.shape}"
        raise BadValue("mask_corrupt", f"{path.name}: expected whole numbers [H, W], got {got}")
    return segmentation, categories
