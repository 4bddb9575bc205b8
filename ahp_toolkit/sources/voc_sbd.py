"""PASCAL VOC 2012 with SBD's further outlines (formats §2): one id space, VOC's masks first.

The root holds ``VOCdevkit/VOC2012`` (or is it, or its parent) and may hold SBD as ``benchmark_RELEASE/dataset`` or
``SBD``. Boxes and flags come from the XML; masks from SegmentationObject, else from SBD; a photo without XML takes its
boxes from SBD's masks. VOC's void band (255) belongs to no mask, so it counts neither as area nor at a border. The
photo of an XML has its stem; where there is none, it is the one that ``<filename>`` names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import Entry, Loaded, label_of
from ahp_toolkit.sources.reading import voc_files
from ahp_toolkit.sources.reading.finder import by_stem
from ahp_toolkit.sources.reading.shared import dropped_of, first_there, frame_size, inside, looked_for, usable_box
from ahp_toolkit.sources.reading.voc_files import CLASSES, Annotated, Outlined

LICENCE = "annotations free for research with citation; photos under Flickr's terms of use"
HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
CARRIES = frozenset({"mask", "label", "occluded", "truncated", "difficult"})
RANK = 1

_VOC = ("VOCdevkit/VOC2012/", "VOC2012/", "")
_SBD = ("benchmark_RELEASE/dataset/", "SBD/", "SBD/dataset/", "SBD/benchmark_RELEASE/dataset/")
#: VOC's own names of photos.
_OWN = re.compile(r"(?:19|20)\d\d_\d{6}")
#: A mask and an XML object are one when their boxes agree so well; VOC's own k-th with half of it (formats §2).
_IOU, _IOU_SAME_PLACE = 0.5, 0.25


class _Photo(NamedTuple):
    """Payload: the photo's files relative to the root, '' for none; ``other``: where else the photo may lie."""

    image: str
    other: str
    xmls: tuple[str, ...]
    voc_mask: str
    voc_class: str
    sbd: str
    person_names: Collection[str] = ()


def _folder(root: Path, places: tuple[str, ...], sign: str) -> str | None:
    return next((p for p in places if (root / p / sign).is_dir()), None)


def _places(root: Path) -> tuple[str | None, str | None]:
    """The folders of VOC and of SBD relative to the root, with their slash; None for what is not there."""
    voc, sbd = _folder(root, _VOC, "Annotations"), _folder(root, _SBD, "inst")
    if voc == "" and not (root / "JPEGImages").is_dir():
        voc = None
    if voc is None and sbd is None:
        raise UserError(
            f"{root}: expected VOCdevkit/VOC2012 (with Annotations and JPEGImages) or SBD's benchmark_RELEASE/dataset, "
            "found neither"
        )
    return voc, sbd


def _files(root: Path, folder: str | None, name: str, suffix: str) -> dict[str, str]:
    """stem -> path below the root of the files with an ending (in any case) in a folder."""
    path = root / f"{folder}{name}"
    if folder is None or not path.is_dir():
        return {}
    return {p.stem: f"{folder}{name}/{p.name}" for p in path.iterdir() if p.suffix.lower() == suffix}


def inputs(root: Path) -> list[Path]:
    """Every XML, mask PNG and .mat file, sorted.

    Raises:
        UserError: when there is neither VOC nor SBD.
    """
    voc, sbd = _places(root)
    wanted = [(voc, "Annotations/*.xml"), (voc, "SegmentationObject/*.png"), (voc, "SegmentationClass/*.png")]
    wanted.append((sbd, "inst/*.mat"))
    return sorted(p for folder, pattern in wanted if folder is not None for p in (root / folder).glob(pattern))


def total(root: Path) -> int:
    """The number of entries of ``scan``, from the file names."""
    return sum(1 for _ in scan(root))


def scan(root: Path, name: str = "voc_sbd", person_names: Collection[str] = ()) -> Iterator[Entry]:
    """Every photo with an XML or an SBD outline, in the order of ids.

    Raises:
        UserError: when there is neither VOC nor SBD.
    """
    voc, sbd = _places(root)
    xml, seg = _files(root, voc, "Annotations", ".xml"), _files(root, voc, "SegmentationObject", ".png")
    mats, classes = _files(root, sbd, "inst", ".mat"), _files(root, voc, "SegmentationClass", ".png")
    photos = by_stem(root, f"{voc}JPEGImages") if voc is not None else {}
    others = by_stem(root, f"{sbd}img") if sbd is not None else {}
    xmls: dict[str, list[str]] = {stem: [] for stem in mats}
    for stem in sorted(xml):
        xmls.setdefault(_photo_stem(root, stem, xml[stem], photos, others), []).append(xml[stem])
    for stem in sorted(xmls):
        # SBD's copy is read where VOC has none
        at = [f"{voc}JPEGImages/{photos.get(stem, f'{stem}.jpg')}"] if voc is not None else []
        at += [f"{sbd}img/{others.get(stem, f'{stem}.jpg')}"] if stem in mats else []
        image, other = (*(at if stem in photos else at[::-1]), "")[:2]
        masks = (seg.get(stem, ""), classes.get(stem, f"{voc}SegmentationClass/{stem}.png") if stem in seg else "")
        payload = _Photo(image, other, tuple(xmls[stem]), *masks, mats.get(stem, ""), person_names)
        yield Entry(f"{name}/{stem}", payload)


def _photo_stem(root: Path, stem: str, xml: str, *photos: Collection[str]) -> str:
    """The stem of an XML's photo: its own, else its ``<filename>``'s, where only that photo is there."""
    if not photos[0] or any(stem in known for known in photos):
        return stem
    try:
        named = voc_files.annotation(inside(root, xml)).filename.replace("\\", "/")
    except BadValue:
        return stem
    other = PurePosixPath(named).stem
    return other if any(other in known for known in photos) else stem


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its instances. What is wrong with a whole mask file is dropped as ``<image id>/mask``."""
    photo: _Photo = entry.payload
    looked = tuple(p for p in (photo.image, photo.other) if p)
    dropped: list[Dropped] = []
    try:
        photo = photo._replace(image=first_there(root, looked), other="")
        paths = {p: inside(root, p) for p in (photo.image, *photo.xmls, *photo[3:6]) if p}
        annotated = [voc_files.annotation(paths[xml]) for xml in photo.xmls]
        size = next((a.size for a in annotated if a.size), None)
        width, height = frame_size(paths[photo.image], size)
    except BadValue as bad:
        return Loaded(None, (dropped_of(bad, entry.image_id, entry.source),), looked_for(bad, looked))
    stem = entry.image_id.partition("/")[2]
    key = f"voc/{stem}" if _OWN.fullmatch(stem) else entry.image_id
    image = ImageRef(entry.image_id, entry.source, photo.image, width, height, key)
    outlined, numbered = _outlines(paths, photo, image, dropped)
    boxed = _boxes(annotated, image, photo.person_names, dropped)
    pairs = _pairs(boxed, outlined, numbered)
    instances = [replace(i, mask=outlined[pairs[k]].mask) if k in pairs else i for k, i in boxed.items()]
    used = set(pairs.values())
    names = {i.instance_id for i in instances} | {d.id for d in dropped}
    for n, outline in enumerate(outlined):
        if n not in used:
            _add_alone(outline, image, names, instances, dropped)
    return Loaded(SourceImage(image, tuple(instances)), tuple(dropped), looked)


def _boxes(
    annotated: Sequence[Annotated], image: ImageRef, person_names: Collection[str], dropped: list[Dropped]
) -> dict[int, Instance]:
    """XML objects by their place, counted from 1, as instances without masks; a second XML repeats none."""
    found: dict[int, Instance] = {}
    for k, thing in enumerate((t for a in annotated for t in a.objects), 1):
        instance_id = f"{image.image_id}#{k}"
        label = label_of(thing.label, person_names)
        try:
            if thing.bad is not None:
                raise thing.bad
            box = usable_box(thing.box, image.width, image.height)
            if len(annotated) > 1 and any((i.label, i.box) == (label, box) for i in found.values()):
                raise BadValue("duplicate", "the same object is in two XML files of the photo")
            found[k] = Instance(instance_id, label, box, flags=Flags(**thing.flags))
        except BadValue as bad:
            dropped.append(dropped_of(bad, instance_id, image.source, label))
    return found


def _outlines(
    paths: dict[str, Path], photo: _Photo, image: ImageRef, dropped: list[Dropped]
) -> tuple[list[Outlined], bool]:
    """VOC's masks, whose numbers are the objects' (True); SBD's where VOC has none or has one that cannot be used."""
    size = (image.width, image.height)
    try:
        if photo.voc_mask:
            return voc_files.voc_outlines(paths[photo.voc_mask], paths[photo.voc_class], *size), True
    except BadValue as bad:
        dropped.append(dropped_of(bad, f"{image.image_id}/mask", image.source))
    try:
        return (voc_files.sbd_outlines(paths[photo.sbd], *size) if photo.sbd else []), False
    except BadValue as bad:
        dropped.append(dropped_of(bad, f"{image.image_id}/sbd", image.source))
        return [], False


def _pairs(boxed: dict[int, Instance], outlined: list[Outlined], numbered: bool) -> dict[int, int]:
    """Object place -> position of its outline, best IoU of the boxes first; each once, same class.

    ``numbered``: of outlines that fit as well, to a tenth, the k-th is the k-th object's (VOC's, not SBD's).
    """
    scored: list[tuple[float, bool, float, int, int]] = []
    for n, outline in enumerate(outlined):
        around = outline.mask.box
        for k, instance in boxed.items():
            iou = around.iou(instance.box)
            same_place = numbered and outline.number == k
            if _same_class(instance.label, outline.label) and iou >= (_IOU_SAME_PLACE if same_place else _IOU):
                scored.append((-round(iou, 1), not same_place, -iou, k, n))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for *_, k, n in sorted(scored):
        if k not in pairs and n not in taken:
            pairs[k] = n
            taken.add(n)
    return pairs


def _same_class(label: str, other: str) -> bool:
    return label == other or label not in CLASSES or not other


def _add_alone(
    outline: Outlined, image: ImageRef, names: set[str], instances: list[Instance], dropped: list[Dropped]
) -> None:
    """An outline without an XML object: an instance with the mask's own box (SBD's rule, formats §2)."""
    instance_id = f"{image.image_id}#{outline.number}"
    if instance_id in names:
        instance_id = f"{image.image_id}#mask{outline.number}"
    if not outline.label:
        bad = BadValue("unknown_category", "the mask is of none of the 20 classes")
        dropped.append(dropped_of(bad, instance_id, image.source, "?"))
        return
    instances.append(Instance(instance_id, outline.label, outline.mask.box, outline.mask))
