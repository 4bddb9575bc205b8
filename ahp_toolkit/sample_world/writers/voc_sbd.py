"""Scenes to the files of VOC 2012 and SBD."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Label2D
from ahp_toolkit.core.records import Instance, SourceImage
from ahp_toolkit.sample_world.writers.base import Scene
from ahp_toolkit.sources.reading.voc_files import CLASSES
from ahp_toolkit.storage import files, images

_VOC = "VOCdevkit/VOC2012"
_SBD = "benchmark_RELEASE/dataset"


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """Write VOCdevkit/VOC2012 (XML, palette PNG, ImageSets) and benchmark_RELEASE/dataset (.mat).

    A photo whose instances all have masks and no flag of occlusion, truncation or difficulty is written as SBD's, with
    boxes lost (they are the masks'); the others as VOC's. Instance ids must be ``#1``, ``#2``, ... in order; other
    flags are lost, and where two masks overlap the later one has the pixels.

    Raises:
        UserError: for other ids, or a label that is none of the 20 classes.
    """
    lists: dict[str, list[str]] = {}
    for scene in scenes:
        stem = scene.image.image.image_id.partition("/")[2]
        _check(scene.image)
        if _is_sbd(scene.image):
            images.write_jpeg(root / _SBD / "img" / f"{stem}.jpg", scene.pixels)
            _write_mat(root / _SBD / "inst" / f"{stem}.mat", "GTinst", scene.image)
            _write_mat(root / _SBD / "cls" / f"{stem}.mat", "GTcls", scene.image)
            lists.setdefault(f"{_SBD}/{scene.split}.txt", []).append(stem)
            continue
        images.write_jpeg(root / _VOC / "JPEGImages" / f"{stem}.jpg", scene.pixels)
        _write_xml(root / _VOC / "Annotations" / f"{stem}.xml", stem, scene.image)
        lists.setdefault(f"{_VOC}/ImageSets/Main/{scene.split}.txt", []).append(stem)
        if _write_masks(root / _VOC, stem, scene.image):
            lists.setdefault(f"{_VOC}/ImageSets/Segmentation/{scene.split}.txt", []).append(stem)
    for name, stems in lists.items():
        with files.atomic(root / name, "w") as f:
            f.write("".join(f"{s}\n" for s in stems))


def _check(image: SourceImage) -> None:
    for k, instance in enumerate(image.instances, 1):
        if instance.instance_id != f"{image.image.image_id}#{k}":
            raise UserError(f"VOC counts a photo's objects: expected the id #{k}, got {instance.instance_id!r}")
        if instance.label not in CLASSES[1:]:
            raise UserError(f"VOC has 20 classes, {instance.label!r} of {instance.instance_id} is none of them")


def _is_sbd(image: SourceImage) -> bool:
    flags = [(i.flags.occluded, i.flags.truncated, i.flags.difficult) for i in image.instances]
    return all(i.mask for i in image.instances) and all(f == (None, None, None) for f in flags)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _write_xml(path: Path, stem: str, image: SourceImage) -> None:
    top = ET.Element("annotation")
    ET.SubElement(top, "folder").text = "VOC2012"
    ET.SubElement(top, "filename").text = f"{stem}.jpg"
    size = ET.SubElement(top, "size")
    for side, value in (("width", image.image.width), ("height", image.image.height), ("depth", 3)):
        ET.SubElement(size, side).text = str(value)
    ET.SubElement(top, "segmented").text = str(int(any(i.mask for i in image.instances)))
    for instance in image.instances:
        _add_object(top, instance)
    with files.atomic(path) as f:
        f.write(ET.tostring(top))


def _add_object(top: ET.Element, instance: Instance) -> None:
    thing = ET.SubElement(top, "object")
    ET.SubElement(thing, "name").text = instance.label
    ET.SubElement(thing, "pose").text = "Unspecified"
    for name in ("truncated", "occluded", "difficult"):
        flag = getattr(instance.flags, name)
        if flag is not None:
            ET.SubElement(thing, name).text = str(int(flag))
    x0, y0, x1, y1 = instance.box
    bndbox = ET.SubElement(thing, "bndbox")
    for side, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
        ET.SubElement(bndbox, side).text = _number(value)


def _maps(image: SourceImage) -> tuple[Label2D, Label2D]:
    """(instance numbers, class indices), uint8 [H, W], background 0."""
    objects = np.zeros((image.image.height, image.image.width), np.uint8)
    classes = np.zeros_like(objects)
    for k, instance in enumerate(image.instances, 1):
        if instance.mask:
            where = instance.mask.decode()
            objects[where], classes[where] = k, CLASSES.index(instance.label)
    return objects, classes


def _write_masks(folder: Path, stem: str, image: SourceImage) -> bool:
    if not any(i.mask for i in image.instances):
        return False
    palette = voc_palette()
    for name, labels in zip(("SegmentationObject", "SegmentationClass"), _maps(image), strict=True):
        images.write_palette_png(folder / name / f"{stem}.png", labels, palette)
    return True


def voc_palette() -> list[int]:
    """VOC's 256 colours, flat R, G, B: the bits of the index dealt out to the three channels, highest bits first."""
    palette = []
    for index in range(256):
        for channel in range(3):
            palette.append(sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return palette


def _write_mat(path: Path, name: str, image: SourceImage) -> None:
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    objects, classes = _maps(image)
    indices = np.array([[CLASSES.index(i.label)] for i in image.instances], np.uint8).reshape(-1, 1)
    numbers = range(1, len(image.instances) + 1) if name == "GTinst" else range(1, len(CLASSES))
    labels = objects if name == "GTinst" else classes
    edges = np.empty((len(numbers), 1), object)
    for row, number in enumerate(numbers):
        edges[row, 0] = csc_matrix(_edge(labels == number))
    key, present = ("Categories", indices) if name == "GTinst" else ("CategoriesPresent", np.unique(indices)[:, None])
    buffer = io.BytesIO()
    savemat(buffer, {name: {"Segmentation": labels, "Boundaries": edges, key: present}}, do_compression=True)
    with files.atomic(path) as f:
        f.write(buffer.getvalue())


def _edge(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The mask's pixels that touch a pixel outside it."""
    framed = np.pad(mask, 1)
    inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return mask & ~inner
