"""PASCAL VOC 2012 with SBD's further outlines (formats §2): one id space, VOC's masks first.

The root holds ``VOCdevkit/VOC2012`` (or is it, or its parent) and may hold SBD as ``benchmark_RELEASE/dataset`` or
``SBD``. Boxes and flags come from the XML; masks from SegmentationObject, else from SBD; a photo without XML takes its
boxes from SBD's masks. VOC's void band (255) belongs to no mask, so it counts neither as area nor at a border.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.sources.base import PERSON, Entry, Loaded, Scene, read_all
from ahp_toolkit.sources.reading import voc_files
from ahp_toolkit.sources.reading.shared import Bad, first_there, inside, stored_size, usable_box, usable_size
from ahp_toolkit.sources.reading.voc_files import CLASSES, Annotated, Outlined
from ahp_toolkit.sources.writing import voc_sbd

LICENCE = "annotations free for research with citation; photos under Flickr's terms of use"
HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
CARRIES = frozenset({"mask", "label", "occluded", "truncated", "difficult"})
RANK = 1

_NAME = "voc_sbd"
_VOC = ("VOCdevkit/VOC2012/", "VOC2012/", "")
_SBD = ("benchmark_RELEASE/dataset/", "SBD/", "SBD/dataset/", "SBD/benchmark_RELEASE/dataset/")
#: A mask and an XML object are one when their boxes agree so well; VOC's own k-th with half of it (formats §2).
_IOU, _IOU_SAME_PLACE = 0.5, 0.25


class _Photo(NamedTuple):
    """Payload: the photo's files relative to the root, '' for none; ``other``: where else the photo may lie."""

    image: str
    other: str
    xml: str
    voc_mask: str
    voc_class: str
    sbd: str


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


def _stems(root: Path, folder: str | None, name: str, suffix: str) -> set[str]:
    path = root / f"{folder}{name}"
    return set() if folder is None or not path.is_dir() else {p.stem for p in path.iterdir() if p.suffix == suffix}


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
    voc, sbd = _places(root)
    return len(_stems(root, voc, "Annotations", ".xml") | _stems(root, sbd, "inst", ".mat"))


def scan(root: Path, name: str = _NAME) -> Iterator[Entry]:
    """Every photo with an XML or an SBD outline, in the order of ids.

    Raises:
        UserError: when there is neither VOC nor SBD.
    """
    voc, sbd = _places(root)
    xml, seg = _stems(root, voc, "Annotations", ".xml"), _stems(root, voc, "SegmentationObject", ".png")
    photos, mats = _stems(root, voc, "JPEGImages", ".jpg"), _stems(root, sbd, "inst", ".mat")
    for stem in sorted(xml | mats):
        # SBD's copy is read where VOC has none
        at = [f"{voc}JPEGImages/{stem}.jpg"] if voc is not None else []
        at += [f"{sbd}img/{stem}.jpg"] if stem in mats else []
        image, other = (*(at if stem in photos else at[::-1]), "")[:2]
        yield Entry(
            f"{name}/{stem}",
            _Photo(
                image,
                other,
                f"{voc}Annotations/{stem}.xml" if stem in xml else "",
                f"{voc}SegmentationObject/{stem}.png" if stem in seg else "",
                f"{voc}SegmentationClass/{stem}.png" if stem in seg else "",
                f"{sbd}inst/{stem}.mat" if stem in mats else "",
            ),
        )


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its instances. What is wrong with a whole mask file is dropped as ``<image id>/mask``."""
    photo: _Photo = entry.payload
    looked = tuple(p for p in (photo.image, photo.other) if p)
    dropped: list[Dropped] = []
    try:
        photo = photo._replace(image=first_there(root, looked), other="")
        files = {path: inside(root, path) for path in photo if path}
        said = voc_files.annotation(files[photo.xml]) if photo.xml else None
        size = said.size if said and said.size else stored_size(files[photo.image])
        width, height = usable_size(*size)
    except Bad as bad:
        return Loaded(None, (bad.dropped(entry.image_id, entry.source),), bad.looked(*looked))
    stem = entry.image_id.partition("/")[2]
    image = ImageRef(entry.image_id, entry.source, photo.image, width, height, f"voc/{stem}")
    outlined, numbered = _outlines(files, photo, image, dropped)
    boxed = _boxes(said, image, dropped)
    pairs = _pairs(boxed, outlined, numbered)
    instances = [_with_outline(i, outlined[pairs[k]] if k in pairs else None) for k, i in boxed.items()]
    used = set(pairs.values())
    names = {i.instance_id for i in instances} | {d.id for d in dropped}
    for n, outline in enumerate(outlined):
        if n not in used:
            _add_alone(outline, image, names, instances, dropped)
    return Loaded(SourceImage(image, tuple(instances)), tuple(dropped), looked)


def _boxes(said: Annotated | None, image: ImageRef, dropped: list[Dropped]) -> dict[int, Instance]:
    """XML objects by their place, counted from 1, as instances without masks."""
    found: dict[int, Instance] = {}
    for k, thing in enumerate(said.objects if said else (), 1):
        instance_id = f"{image.image_id}#{k}"
        try:
            if isinstance(thing, Bad):
                raise thing
            box = usable_box(thing.box, image.width, image.height)
            found[k] = Instance(instance_id, thing.label, box, flags=Flags(**thing.flags))
        except Bad as bad:
            label = "" if isinstance(thing, Bad) else thing.label
            dropped.append(bad.dropped(instance_id, image.source, label or PERSON))
    return found


def _outlines(
    files: dict[str, Path], photo: _Photo, image: ImageRef, dropped: list[Dropped]
) -> tuple[list[Outlined], bool]:
    """VOC's masks, whose numbers are the objects' (True); SBD's where VOC has none or has one that cannot be used."""
    size = (image.width, image.height)
    try:
        if photo.voc_mask:
            return voc_files.voc_outlines(files[photo.voc_mask], files[photo.voc_class], *size), True
    except Bad as bad:
        dropped.append(bad.dropped(f"{image.image_id}/mask", image.source))
    try:
        return (voc_files.sbd_outlines(files[photo.sbd], *size) if photo.sbd else []), False
    except Bad as bad:
        dropped.append(bad.dropped(f"{image.image_id}/sbd", image.source))
        return [], False


def _pairs(boxed: dict[int, Instance], outlined: list[Outlined], numbered: bool) -> dict[int, int]:
    """Object place -> position of its outline, best IoU of the boxes first; each once, same class.

    ``numbered``: of outlines that fit as well, to a tenth, the k-th is the k-th object's (VOC's; SBD counts anew).
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


def _with_outline(instance: Instance, outline: Outlined | None) -> Instance:
    if outline is None:
        return instance
    return Instance(instance.instance_id, instance.label, instance.box, outline.mask, None, instance.flags)


def _add_alone(
    outline: Outlined, image: ImageRef, names: set[str], instances: list[Instance], dropped: list[Dropped]
) -> None:
    """An outline without an XML object: an instance with the mask's own box (SBD's rule, formats §2)."""
    instance_id = f"{image.image_id}#{outline.number}"
    if instance_id in names:
        instance_id = f"{image.image_id}#mask{outline.number}"
    if not outline.label:
        bad = Bad("unknown_category", "the mask is of none of the 20 classes")
        dropped.append(bad.dropped(instance_id, image.source, "?"))
        return
    instances.append(Instance(instance_id, outline.label, outline.mask.box, outline.mask))


def read(root: Path, name: str = _NAME) -> Iterator[SourceImage]:
    """``scan`` and ``load`` in one."""
    return read_all(root, name, scan, load)


def write(root: Path, scenes: Iterable[Scene]) -> None:
    """Write VOCdevkit/VOC2012 (XML, palette PNG, ImageSets) and benchmark_RELEASE/dataset (.mat).

    A photo whose instances all have masks and say nothing of occlusion, truncation or difficulty is written as SBD's,
    with boxes lost (they are the masks'); the others as VOC's. Instance ids must be ``#1``, ``#2``, ... in order; other
    flags are lost, and where two masks overlap the later one has the pixels.

    Raises:
        UserError: for other ids, or a label that is none of the 20 classes.
    """
    voc_sbd.write(root, scenes)
