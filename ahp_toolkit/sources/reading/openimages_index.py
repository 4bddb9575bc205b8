"""Where Open Images' files lie, and one pass over each CSV of a split into groupers on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.sources.base import PERSON
from ahp_toolkit.sources.reading.grouping import Grouper
from ahp_toolkit.sources.reading.openimages_csv import (
    NO_FLAG,
    Block,
    Codes,
    blocks,
    flag,
    flags,
    hex_key,
    hex_keys,
    numbers,
    read_small,
)

SPLITS = ("train", "validation", "test")
FOLDERS = ("", "annotations")
PERSON_MID = "/m/01g317"
#: The human classes and their depth below Person, for folders without the hierarchy JSON (formats §5).
HUMANS = {PERSON_MID: 0, "/m/04yx4": 1, "/m/03bt1vf": 1, "/m/01bl7v": 1, "/m/05r655": 1}
#: Their names, as some tools write them for the MIDs.
HUMAN_NAMES = ("person", "man", "woman", "boy", "girl")
HIERARCHY = "bbox_labels_600_hierarchy.json"
CLASSES = ("oidv7-class-descriptions-boxable.csv", "class-descriptions-boxable.csv")
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
#: Why a row is bad, by the number that stands in its field ``bad``.
BAD = ("", "bad_record", "bad_box", "bad_flag")
BOX = np.dtype([("key", "u8"), ("label", "u2"), ("flags", "i1", 5), ("bad", "i1"), ("box", "f8", 4)])
MASK = np.dtype([("key", "u8"), ("label", "u2"), ("box", "f8", 4), ("end", "i8")])
INFO = np.dtype([("key", "u8"), ("end", "i8")])
_SIDES = ("XMin", "XMax", "YMin", "YMax")
_LABEL = pa.dictionary(pa.int32(), pa.string())
_BOX_COLUMNS = {"ImageID": pa.string(), "LabelName": _LABEL, **dict.fromkeys(_SIDES, pa.float64())}
_FLAG_COLUMNS = dict.fromkeys(FLAGS, pa.int8())
_MASK_SIDES = tuple(f"Box{side}" for side in _SIDES)
_MASK_COLUMNS = {
    "MaskPath": pa.string(), "ImageID": pa.string(), "LabelName": _LABEL, **dict.fromkeys(_MASK_SIDES, pa.float64())
}  # fmt: skip
_INFO_COLUMNS = {"ImageID": pa.string(), "OriginalURL": pa.string()}
_LICENCE_COLUMN = {"License": pa.string()}
_FLICKR = re.compile(r"https?://[^/]*flickr\.com/")
_NUMBER = re.compile(r"(?<!\d)(\d+)_")  # the look behind keeps a text of nothing but digits linear
_MAX_LABELS = 60_000
_MAX_TEXT = 1024

Rejects = Iterator[tuple[str, str, str]]


class Label(NamedTuple):
    """A class: its MID, its lower-case name (every human class ``person``), and depth below Person (-1: no human)."""

    mid: str
    name: str
    depth: int


def first_of(root: Path, names: Sequence[str]) -> Path | None:
    """The first file of these names below ``root`` or its annotations folder."""
    found = (root / folder / name for name in names for folder in FOLDERS)
    return next((path for path in found if path.is_file()), None)


def box_files(root: Path) -> dict[str, Path]:
    """The box CSV of each split that is there.

    Raises:
        UserError: when there is none.
    """
    found = {}
    for split in SPLITS:
        names = [f"{prefix}{split}-annotations-bbox.csv" for prefix in ("oidv7-", "oidv6-", "")]
        path = first_of(root, names)
        if path is not None:
            found[split] = path
    if not found:
        raise UserError(f"{root}: no Open Images here, expected oidv6-train-annotations-bbox.csv or the like in it")
    return found


def mask_file(root: Path, split: str) -> Path | None:
    """The mask CSV of a split."""
    return first_of(root, [f"{split}-annotations-object-segmentation.csv"])


def info_file(root: Path, split: str) -> Path | None:
    """The image-info CSV of a split."""
    return first_of(root, [f"{split}-images-boxable-with-rotation.csv", f"{split}-images-with-rotation.csv"])


def humans(root: Path) -> dict[str, int]:
    """MIDs of the human classes -> depth below Person: from the hierarchy JSON, else the five known ones.

    Raises:
        UserError: when the hierarchy is no JSON.
    """
    path = first_of(root, [HIERARCHY])
    if path is None:
        return dict(HUMANS)
    try:
        person = _node(json.loads(values.decode_text(path.read_bytes())))
        return _depths(person, 0) if person else dict(HUMANS)
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: cannot be read as JSON ({e}); fetch the file again") from e


def _subclasses(node: dict[str, Any]) -> list[dict[str, Any]]:
    below = node.get("Subcategory")
    return [n for n in below if isinstance(n, dict)] if isinstance(below, list) else []


def _node(node: Any) -> dict[str, Any] | None:
    """The node of Person at or below a node."""
    if not isinstance(node, dict):
        return None
    if node.get("LabelName") == PERSON_MID:
        return node
    return next((found for n in _subclasses(node) if (found := _node(n))), None)


def _depths(node: dict[str, Any], depth: int) -> dict[str, int]:
    found = {str(node.get("LabelName")): depth}
    for below in _subclasses(node):
        for mid, d in _depths(below, depth + 1).items():
            found.setdefault(mid, d)
    return found


def class_names(root: Path) -> dict[str, str]:
    """MID -> lower-case display name; empty where there is no class file."""
    path = first_of(root, CLASSES)
    rows = read_small(path) if path else []
    return {row[0]: row[1].strip().lower() for row in rows if len(row) >= 2 and row[0] != "LabelName"}


@dataclass
class Sink:
    """Where the CSVs of one split go."""

    folder: Path
    codes: Codes = field(default_factory=Codes)

    def __post_init__(self) -> None:
        self.boxes = Grouper(self.folder, "boxes", BOX)
        self.masks = Grouper(self.folder, "masks", MASK, texts=True)
        self.infos = Grouper(self.folder, "infos", INFO, texts=True)

    def labels(self, root: Path, person_names: Collection[str]) -> tuple[Label, ...]:
        """The classes met, by code. A class may be given by its MID or by its name."""
        depth, names = humans(root), class_names(root)
        named = dict(zip(HUMAN_NAMES, HUMANS.values(), strict=True))
        found = []
        for mid in self.codes.of:
            plain = mid.strip().lower()
            name = names.get(mid) or plain
            level = depth.get(mid, named.get(plain, 0 if {plain, name} & set(person_names) else -1))
            found.append(Label(mid, PERSON if level >= 0 else name, level))
        return tuple(found)

    def full(self, path: Path) -> None:
        """Check that the labels still have numbers.

        Raises:
            UserError: when there are more classes than an annotation file can have.
        """
        if len(self.codes.of) > _MAX_LABELS:
            raise UserError(f"{path}: more than {_MAX_LABELS} different LabelNames; this is no Open Images box file")


def pass_boxes(path: Path, sink: Sink) -> Rejects:
    """Fill ``sink.boxes``; gives (id, reason, detail) of rows that belong to no image."""
    for block in blocks(path, _BOX_COLUMNS, _FLAG_COLUMNS):
        if block.table is None:
            yield from _loose_boxes(block, sink)
            continue
        table = block.table
        rows, good = _box_rows(table, sink.codes)
        sink.full(path)
        yield from _no_image(table["ImageID"], good)
        sink.boxes.add(rows if bool(good.all()) else rows[good])


def _box_rows(table: pa.Table, codes: Codes) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """(rows, whether each has a legal ImageID) of a typed block."""
    rows = np.empty(table.num_rows, BOX)
    rows["key"], good = hex_keys(table["ImageID"])
    rows["label"], rows["bad"] = codes.column(table["LabelName"]), 0
    for n, name in enumerate(FLAGS):
        known = flags(table[name] if name in table.column_names else None, len(rows))
        rows["flags"][:, n] = known
        if known.size and (known.min() < -1 or known.max() > 1):
            rows["bad"][(known < -1) | (known > 1)] = BAD.index("bad_flag")
    for n, name in enumerate(_SIDES):
        side = numbers(table[name])
        rows["box"][:, n] = side
        if not np.isfinite(side.sum()):  # one NaN or infinity shows in the sum
            rows["bad"][~np.isfinite(side)] = BAD.index("bad_box")
    return rows, good


def _no_image(column: pa.ChunkedArray, good: NDArray[np.bool_]) -> Rejects:
    for at in np.flatnonzero(~good).tolist():
        yield str(column[at].as_py())[:60], "bad_record", "ImageID: expected 16 hex digits"


def _loose_boxes(block: Block, sink: Sink) -> Rejects:
    rows = []
    for row in block.loose:
        key = hex_key(row["ImageID"])
        if key is None:
            yield str(row["ImageID"])[:60], "bad_record", "ImageID: expected 16 hex digits"
            continue
        box = _sides(row, _SIDES)
        known = [flag(row.get(name)) for name in FLAGS]
        bad = "bad_box" if box is None else "bad_flag" if NO_FLAG in known else ""
        label = sink.codes.code(row["LabelName"] or "")
        rows.append((key, label, [0 if f == NO_FLAG else f for f in known], BAD.index(bad), box or [0.0] * 4))
    if rows:
        sink.boxes.add(np.array([tuple(r) for r in rows], BOX))


def _sides(row: dict[str, str | None], names: Sequence[str]) -> list[float] | None:
    """Four finite numbers, or None."""
    try:
        return [values.number(row[name]) for name in names]
    except values.BadValue:
        return None


def pass_masks(path: Path, sink: Sink) -> Rejects:
    """Fill ``sink.masks`` with the boxes and file names of the masks."""
    for block in blocks(path, _MASK_COLUMNS):
        if block.table is None:
            yield from _loose_masks(block, sink)
            continue
        table = block.table
        rows = np.zeros(table.num_rows, MASK)
        rows["key"], good = hex_keys(table["ImageID"])
        rows["label"] = sink.codes.column(table["LabelName"])
        for n, name in enumerate(_MASK_SIDES):
            rows["box"][:, n] = numbers(table[name])
        sink.full(path)
        yield from _no_image(table["ImageID"], good)
        texts = [(t or "").encode()[:_MAX_TEXT] for t in table["MaskPath"].to_pylist()]
        sink.masks.add(rows[good], [t for t, ok in zip(texts, good.tolist(), strict=True) if ok])


def _loose_masks(block: Block, sink: Sink) -> Rejects:
    rows, texts = [], []
    for row in block.loose:
        key, box = hex_key(row["ImageID"]), _sides(row, _MASK_SIDES)
        if key is None or box is None:
            yield str(row["MaskPath"])[:60], "bad_mask_record", f"expected an ImageID and four numbers, got {row}"[:300]
            continue
        rows.append((key, sink.codes.code(row["LabelName"] or ""), box, 0))
        texts.append((row["MaskPath"] or "").encode()[:_MAX_TEXT])
    if rows:
        sink.masks.add(np.array(rows, MASK), texts)


def pass_infos(path: Path, sink: Sink) -> None:
    """Fill ``sink.infos`` with Flickr's photo number and the licence of each image, a tab between them."""
    for block in blocks(path, _INFO_COLUMNS, _LICENCE_COLUMN):
        if block.table is not None:
            keys, good = hex_keys(block.table["ImageID"])
            urls = block.table["OriginalURL"].to_pylist()
            has_licence = "License" in block.table.column_names
            licences = block.table["License"].to_pylist() if has_licence else [None] * len(urls)
        else:
            plain = [
                (key, row["OriginalURL"], row.get("License"))
                for row in block.loose
                if (key := hex_key(row["ImageID"])) is not None
            ]
            keys, good = np.array([k for k, _, _ in plain], np.uint64), np.ones(len(plain), bool)
            urls, licences = [u for _, u, _ in plain], [n for _, _, n in plain]
        rows = np.zeros(len(keys), INFO)
        rows["key"] = keys
        texts = [f"{flickr_number(u)}\t{n or ''}".encode()[:_MAX_TEXT] for u, n in zip(urls, licences, strict=True)]
        sink.infos.add(rows[good], [t for t, ok in zip(texts, good.tolist(), strict=True) if ok])


def flickr_number(url: str | None) -> str:
    """Flickr's photo number: the digits before the first ``_`` of the file name; empty for another host."""
    if not url or not _FLICKR.match(url):
        return ""
    found = _NUMBER.search(url[-_MAX_TEXT:].rpartition("/")[2])
    return found[1] if found else ""
