"""Open Images V4 to V7: box CSVs of 14.6 million rows, masks of some boxes, photos without sizes (formats §5).

``scan`` passes over the CSVs of a split once, writes compact rows to a temporary folder (about 50 bytes a box, under
TMPDIR), groups them there by ImageID, whatever their order, and gives the photos with at least one human, by ImageID.
Boxes fit the stored pixels: those of a photo with an EXIF turn are turned with it, to what viewers show. The Rotation
column is never applied.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import masks
from ahp_toolkit.core.limits import MAX_LABEL_PIXELS
from ahp_toolkit.core.masks import Box, Mask
from ahp_toolkit.core.records import Dropped, Flags, ImageRef, Instance, SourceImage
from ahp_toolkit.core.text import short_line
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import PERSON, Entry, Loaded, PassedOver, passed_over
from ahp_toolkit.sources.reading import openimages_index as index
from ahp_toolkit.sources.reading.grouping import Range, bounds, starts
from ahp_toolkit.sources.reading.openimages_index import BAD, BOX, CLASSES, HIERARCHY, Label
from ahp_toolkit.sources.reading.shared import MAX_INSTANCES, first_there, header_of, inside, labelled, looked_for
from ahp_toolkit.storage import images, locations

NAME = "openimages"
LICENCE = "annotations CC BY 4.0 by Google; images listed as CC BY 2.0, without warranty"
HOMEPAGE = "https://storage.googleapis.com/openimages/web/index.html"
#: What survives ``write`` and ``read``.
CARRIES = frozenset({"mask", "label", "occluded", "truncated", "group", "depiction", "inside"})
RANK = 2
SAME_HUMAN_IOU = 0.9
_FARTHEST = 1000.0  # photos away from the photo: no box at all
MASK_TOLERANCE = 1e-3  # a mask's box is its box when no side differs by more (the two files round differently)
_ROW = np.dtype([(n, BOX[n]) for n in ("label", "flags", "bad", "box")])


class MaskFile(NamedTuple):
    """A mask of an image: its class, its box (XMin, XMax, YMin, YMax, in [0, 1]) and its file name."""

    label: int
    box: tuple[float, ...]
    name: str


class Payload(NamedTuple):
    """What ``load`` needs: the rows (bytes), the masks, and the classes (one tuple for all entries of a split)."""

    split: str
    rows: bytes
    masks: tuple[MaskFile, ...]
    info: str
    labels: tuple[Label, ...]


class Bad(NamedTuple):
    """A row that belongs to no image."""

    id: str
    reason: str
    detail: str


def inputs(root: Path) -> list[Path]:
    """Every annotation file that is there: classes, hierarchy, then boxes, masks and image info of each split.

    Raises:
        UserError: when there is no box CSV.
    """
    boxes = index.box_files(root)
    found = [index.first_of(root, CLASSES), index.first_of(root, [HIERARCHY])]
    for split, path in boxes.items():
        found += [path, index.mask_file(root, split), index.info_file(root, split)]
    return [path for path in found if path is not None]


def scan(root: Path, name: str = NAME, person_names: Collection[str] = ()) -> Iterator[Entry]:
    """Every photo with a human, by ImageID within a split, with all its boxes in the file's order.

    Raises:
        UserError: when a file is missing, lacks a column or is cut short.
    """
    for split, path in index.box_files(root).items():
        with tempfile.TemporaryDirectory(prefix="ahp-openimages-") as temp:
            sink = index.Sink(Path(temp))
            for bad in _fill(root, split, path, sink):
                yield Entry(f"{name}/{split}#{short_line(bad.id)}", bad)
            groupers = (sink.boxes, sink.masks, sink.infos)
            cuts = bounds(groupers)
            labels = sink.labels(root, person_names)
            left_out = np.zeros(len(labels), np.int64)
            for boxes, found, infos in zip(*(g.read(cuts) for g in groupers), strict=True):
                yield from _range((name, split), boxes, found, infos, labels)
                left_out += _left_out(boxes.rows, labels)
            found_others = passed_over([label.name for label in labels], left_out.tolist())
            if found_others is not None:
                yield Entry(f"{name}/@{split}", found_others)


def _fill(root: Path, split: str, boxes: Path, sink: index.Sink) -> Iterator[Bad]:
    for row in index.pass_boxes(boxes, sink):
        yield Bad(*row)
    mask_csv, info_csv = index.mask_file(root, split), index.info_file(root, split)
    if mask_csv is not None:
        for row in index.pass_masks(mask_csv, sink):
            yield Bad(*row)
    if info_csv is not None:
        index.pass_infos(info_csv, sink)


def _range(
    where: tuple[str, str], boxes: Range, mask_rows: Range, infos: Range, labels: tuple[Label, ...]
) -> Iterator[Entry]:
    """The entries of one range of ImageIDs; ``where`` is the names of the source and of its split."""
    source, split = where
    rows = boxes.rows
    first = starts(rows["key"])
    if not len(first):
        return
    human = np.array([label.depth >= 0 for label in labels])
    chosen = np.flatnonzero(np.logical_or.reduceat(human[rows["label"]], first))
    keys = rows["key"][first]
    last = np.append(first[1:], len(rows))
    size = _ROW.itemsize
    # a row of an entry is a row's tail
    data = rows.view(np.uint8).reshape(len(rows), -1)[:, -size:].tobytes()
    low, high = (np.searchsorted(mask_rows.rows["key"], keys[chosen], side).tolist() for side in ("left", "right"))
    info_at = np.searchsorted(infos.rows["key"], keys[chosen])
    known = np.append(infos.rows["key"], 0)[info_at] == keys[chosen]
    known &= info_at < len(infos.rows)
    columns = [a[chosen].tolist() for a in (keys, first, last)]
    for key, a, b, la, lb, at, there in zip(*columns, low, high, info_at.tolist(), known.tolist(), strict=True):
        info = infos.texts[at].decode("utf-8", "replace") if there else ""
        found = _mask_files(mask_rows, la, lb) if lb > la else ()
        yield Entry(f"{source}/{key:016x}", Payload(split, data[a * size : b * size], found, info, labels))


def _left_out(rows: NDArray[np.void], labels: tuple[Label, ...]) -> NDArray[np.int64]:
    """How many boxes of each class the photos without a human have, int64 [labels]."""
    first = starts(rows["key"])
    if not len(first):
        return np.zeros(len(labels), np.int64)
    human = np.array([label.depth >= 0 for label in labels])
    chosen = np.logical_or.reduceat(human[rows["label"]], first)
    alone = ~np.repeat(chosen, np.diff(np.append(first, len(rows))))
    return np.bincount(rows["label"][alone], minlength=len(labels))


def _mask_files(found: Range, start: int, stop: int) -> tuple[MaskFile, ...]:
    rows = found.rows[start:stop]
    texts = (t.decode("utf-8", "replace") for t in found.texts[start:stop])
    boxes = (tuple(b) for b in rows["box"].tolist())
    return tuple(map(MaskFile, rows["label"].tolist(), boxes, texts))


class _Item(NamedTuple):
    """A usable row: the instance, still without mask, its class and box in [0, 1], and its mask's file name."""

    instance: Instance
    label: int
    box: tuple[float, ...]
    mask: str = ""


def load(root: Path, entry: Entry) -> Loaded:
    """The photo with its boxes in stored pixels, and masks where there are; bad records are in ``dropped``."""
    p: Payload | Bad | PassedOver = entry.payload
    if isinstance(p, PassedOver):
        return Loaded(None, is_photo=False, passed_over=p.labels)
    if isinstance(p, Bad):
        return Loaded(None, (_drop(entry.source, p.id, p.reason, p.detail),), is_photo=False)
    key = entry.image_id.split("/", 1)[1]
    looked = tuple(f"{folder}/{key}.jpg" for folder in _folders(p.split, key))
    try:
        count = len(p.rows) // _ROW.itemsize + len(p.masks)
        if count > MAX_INSTANCES:
            raise BadValue("too_many", f"{count} boxes and masks, at most {MAX_INSTANCES}")
        where = first_there(root, looked)
        head = header_of(inside(root, where))
        (width, height), _ = head.frame(None)
    except BadValue as bad:
        return Loaded(None, (_drop(entry.source, entry.image_id, bad.reason, str(bad)),), looked_for(bad, looked))
    number, _, licence = p.info.partition("\t")
    photo = f"{NAME}/{key} flickr/{number}" if number else f"{NAME}/{key}"
    ref = ImageRef(entry.image_id, entry.source, where, width, height, photo, licence=licence or LICENCE)
    dropped: list[Dropped] = []
    items = _items(ref, head.orientation, np.frombuffer(p.rows, _ROW), p.labels, dropped)
    items = _match(items, p, ref, dropped)
    items = _one_per_human(items, p.labels, ref.source, dropped)
    files = _MaskFiles(root, p.split, ref, head.orientation, dropped)
    instances = tuple(files.added_to(item) for item in items)
    return Loaded(SourceImage(ref, instances), tuple(dropped))


def _folders(split: str, key: str) -> tuple[str, ...]:
    """Where photos lie; train comes as archives by the first digit of the ImageID (``train_0``)."""
    return split, f"images/{split}", f"{split}/data", f"{split}_{key[0]}"


def instance_id(image_id: str, mid: str, box: Sequence[float]) -> str:
    """The id of a box (XMin, XMax, YMin, YMax, in [0, 1]): class and coordinates in 1/10,000, as rows have no id.

    Row order and decimals differ from version to version; class and place do not.
    """
    x0, x1, y0, y1 = (round(10_000 * v) for v in box)
    return f"{image_id}#{mid.replace('/', '')}-{x0:05d}-{y0:05d}-{x1:05d}-{y1:05d}"


def _items(
    ref: ImageRef, orientation: int, rows: NDArray[np.void], labels: Sequence[Label], dropped: list[Dropped]
) -> list[_Item]:
    items: dict[str, _Item] = {}
    # column by column: a row's own tolist leaves arrays in it, and no numpy truth is True
    for label, flags, bad, sides in zip(*(rows[n].tolist() for n in _ROW.names or ()), strict=True):
        box = tuple(sides)
        if not bad and max(map(abs, box)) > _FARTHEST:
            bad = BAD.index("bad_box")
        id_ = instance_id(ref.image_id, labels[label].mid or "none", box) if not bad else f"{ref.image_id}#{BAD[bad]}"
        shown = box if bad else _shown(box, orientation)
        # nanopixels are noise of the division that made the CSV's numbers
        x0, x1, y0, y1 = (
            0.0 if bad else round(v * s, 9)
            for v, s in zip(shown, (ref.width, ref.width, ref.height, ref.height), strict=True)
        )
        clipped = Box(x0, y0, x1, y1).clip(ref.width, ref.height)
        reason = _fault(bad, labels[label], Box(x0, y0, x1, y1), clipped) or ("duplicate" if id_ in items else "")
        if reason:
            detail = f"{labels[label].mid} XMin, XMax, YMin, YMax = {sides}, {flags}"
            dropped.append(_drop(ref.source, id_, reason, detail, labels[label].name))
            continue
        instance = Instance(id_, labels[label].name, clipped, flags=_flags(flags))
        items[id_] = _Item(instance, label, box)
    return list(items.values())


def _shown(box: tuple[float, ...], orientation: int) -> tuple[float, ...]:
    """A box (XMin, XMax, YMin, YMax, in [0, 1]) of the stored pixels in the photo as viewers turn it by its EXIF."""
    x0, x1, y0, y1 = box
    if orientation in (2, 3, 6, 7):  # the axis that ends as x runs backwards
        x0, x1, y0, y1 = (x0, x1, 1 - y1, 1 - y0) if orientation in (6, 7) else (1 - x1, 1 - x0, y0, y1)
    if orientation in (3, 4, 7, 8):
        x0, x1, y0, y1 = (1 - x1, 1 - x0, y0, y1) if orientation in (7, 8) else (x0, x1, 1 - y1, 1 - y0)
    return (y0, y1, x0, x1) if orientation in (5, 6, 7, 8) else (x0, x1, y0, y1)


def _fault(bad: int, label: Label, box: Box, clipped: Box) -> str:
    """The reason why a row is no instance; empty where it is one."""
    if bad:
        return BAD[bad]
    if not label.mid.strip():
        return "bad_record"
    if box.x1 < box.x0 or box.y1 < box.y0:
        return "bad_box"
    if box.width < 1 or box.height < 1:
        return "zero_area"
    return "box_outside" if clipped.area <= 0 else ""


def _flags(row: Sequence[int]) -> Flags:
    """Tri-state: -1 is unknown, not true."""
    occluded, truncated, group, depiction, inside = (None if v < 0 else v == 1 for v in row)
    return Flags(occluded=occluded, truncated=truncated, group=group, depiction=depiction, inside=inside)


def _match(items: list[_Item], p: Payload, ref: ImageRef, dropped: list[Dropped]) -> list[_Item]:
    """Give each mask to the nearest box of its class that has none yet."""
    items = list(items)
    for mask in p.masks:
        offsets = [
            (max(abs(a - b) for a, b in zip(item.box, mask.box, strict=True)), n)
            for n, item in enumerate(items)
            if item.label == mask.label and not item.mask and not any(map(math.isnan, mask.box))
        ]
        offset, n = min(offsets, default=(1.0, -1))
        if offset <= MASK_TOLERANCE:
            items[n] = items[n]._replace(mask=mask.name or "?")
        else:
            detail = f"{p.labels[mask.label].mid} {list(mask.box)} has no box of this class at this place"
            dropped.append(_drop(ref.source, f"{ref.image_id}/mask", "mask_without_box", f"{mask.name}: {detail}"))
    return items


def _one_per_human(items: list[_Item], labels: Sequence[Label], source: str, dropped: list[Dropped]) -> list[_Item]:
    """The same human under two classes once: the more specific class stays, with the other's mask if it has none."""
    order = sorted(
        (n for n, item in enumerate(items) if labels[item.label].depth >= 0),
        key=lambda n: (-labels[items[n].label].depth, n),
    )
    kept: list[int] = []
    repeated: set[int] = set()
    for n in order:
        same = next((k for k in kept if _same(items[k], items[n])), None)
        if same is None:
            kept.append(n)
            continue
        repeated.add(n)
        if items[n].mask and not items[same].mask:
            items[same] = items[same]._replace(mask=items[n].mask)
        reason = "duplicate" if items[same].label == items[n].label else "duplicate_label"
        detail = f"the same human as {items[same].instance.instance_id}"
        dropped.append(_drop(source, items[n].instance.instance_id, reason, detail))
    return [item for n, item in enumerate(items) if n not in repeated]


def _same(a: _Item, b: _Item) -> bool:
    # a group's box around one of its members is no second label of it
    one_group = (a.instance.flags.group is True) != (b.instance.flags.group is True)
    return not one_group and a.instance.box.iou(b.instance.box) >= SAME_HUMAN_IOU


class _MaskFiles(NamedTuple):
    """The mask PNGs of a photo."""

    root: Path
    split: str
    ref: ImageRef
    orientation: int
    dropped: list[Dropped]

    def added_to(self, item: _Item) -> Instance:
        """The instance with its mask; without it, and a note ``<image id>/mask``, where it is missing or unreadable."""
        if not item.mask:
            return item.instance
        places = _mask_places(self.split, item.mask)
        try:
            return replace(item.instance, mask=self._mask(places, item.mask))
        except BadValue as bad:
            note = f"{item.instance.instance_id}: {bad}"
            self.dropped.append(_drop(self.ref.source, f"{self.ref.image_id}/mask", bad.reason, note))
            return item.instance

    def _mask(self, places: Sequence[str], name: str) -> Mask:
        """A mask PNG of any resolution, at the photo's; the first that is there.

        Raises:
            BadValue: ``mask_missing``, ``mask_unreadable`` or ``unsafe_path``.
        """
        width, height = self.ref.width, self.ref.height
        if width * height > MAX_LABEL_PIXELS:
            raise BadValue("mask_unreadable", f"{name}: a mask of {width}x{height}, at most {MAX_LABEL_PIXELS} px")
        try:
            pixels = images.read_labels(locations.first(self.root, places))
        except images.ImageError as e:
            raise BadValue("mask_missing" if e.reason == "missing" else "mask_unreadable", str(e)) from e
        except ValueError as e:
            raise BadValue("unsafe_path", str(e)) from e
        pixels = images.turned(pixels, self.orientation)
        grey = 122 if pixels.max(initial=0) > 1 else 0  # 8-bit masks are 0 and 255, 1-bit ones 0 and 1
        ys = ((2 * np.arange(height) + 1) * pixels.shape[0]) // (2 * height)
        xs = ((2 * np.arange(width) + 1) * pixels.shape[1]) // (2 * width)
        mask = masks.encode(pixels[np.ix_(ys, xs)] > grey)
        if not mask.area:
            raise BadValue("mask_unreadable", f"{name}: the mask has no pixel")
        return mask


def _mask_places(split: str, name: str) -> tuple[str, ...]:
    part = f"{split}-masks-{name[0].lower()}"
    folders = (f"{split}-masks/{part}", f"{split}-masks", f"{split}/masks", "masks", part)
    return tuple(f"{folder}/{name}" for folder in folders)


def _drop(source: str, id_: str, reason: str, detail: str, label: str = PERSON) -> Dropped:
    return Dropped(id_ or "?", "harvest", reason, labelled(detail, label or "?"), source)
