"""COCO instances JSON: the typed, lazy index of one file.

Only what an index needs is decoded; boxes and outlines stay raw JSON until a worker loads the photo. A file that holds
records of other types than COCO's own, or the NaN that Python writes and JSON forbids, is read a second time record by
record, so that only the bad records are lost.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ahp_toolkit.core import values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.values import BadValue

_NULL = Raw(b"null")
Id = int | str


class Image(Struct, gc=False):
    """An image record. ``size``: (width, height) px, None where the file does not know it."""

    id: Id
    file_name: str
    size: tuple[int, int] | None = None
    licence: Id | None = None
    flickr_url: str = ""


class Annotation(Struct, gc=False):
    """An annotation record; ``bbox`` and ``segmentation`` as raw JSON.

    ``more`` is all of the record, where it has fields that change the meaning of these.
    """

    id: int | str
    image_id: int | str
    category_id: int | str
    iscrowd: Any = 0
    bbox: Raw = _NULL
    segmentation: Raw = _NULL
    more: Raw | None = msgspec.field(default=None, name=" ")


class _Image(Struct, gc=False):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None
    license: int | str | None = None
    flickr_url: str | None = None


class _Category(Struct, gc=False):
    id: int
    name: str


class _Licence(Struct, gc=False):
    id: int | str
    name: str = ""


class _File(Struct):
    images: list[_Image]
    annotations: list[Annotation]
    categories: list[_Category]
    licenses: list[_Licence] = []


class _RawFile(Struct):
    images: list[Raw]
    annotations: list[Raw]
    categories: list[Raw]
    licenses: Any = None


class _LooseAnnotation(Struct, gc=False):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    iscrowd: Any = 0
    bbox: Raw = _NULL
    segmentation: Raw = _NULL


@dataclass(frozen=True)
class Malformed:
    """A record that is not what it should be: its list, its ids as far as known, its category's label, and why."""

    kind: str
    ids: tuple[Any, Any]
    label: str
    detail: str


@dataclass
class Index:
    """One file's records. ``malformed`` ones are not among ``images`` and ``annotations``."""

    images: list[Image]
    annotations: list[Annotation]
    labels: dict[Id, str]
    licences: dict[Id, str]
    malformed: list[Malformed] = field(default_factory=list)


#: Fields of a person that change what ``segmentation`` and ``bbox`` mean, by what they hold.
MODAL = (
    "visible_mask", "inmodal_seg", "i_segm", "inmodal_segm", "inmodal_mask", "modal_mask", "modal_segmentation",
    "modal_segm", "modal_seg", "visible_segmentation", "visible_segm", "visible_seg", "inmodal_segmentation",
)  # fmt: skip
AMODAL = ("a_segm", "amodal_segmentation", "amodal_segm", "amodal_seg", "amodal_mask", "full_segmentation", "full_mask")
HIDDEN = ("invisible_mask", "occluded_mask", "invisible_segmentation", "hidden_mask")
MODAL_BOX = ("i_bbox", "inmodal_bbox", "visible_bbox", "modal_bbox", "vis_bbox", "bbox_vis", "vbox", "bbox_visible")
AMODAL_BOX = ("a_bbox", "amodal_bbox", "full_bbox", "fbox", "bbox_full")
RATE = ("occlude_rate", "occlusion_rate", "occlusion_ratio", "occ_rate")
VISIBLE_RATE = ("vis_ratio", "visible_ratio", "visibility_ratio")
_KNOWN = frozenset((*MODAL, *AMODAL, *HIDDEN, *MODAL_BOX, *AMODAL_BOX, *RATE, *VISIBLE_RATE))
#: Fields of the same families that say nothing of the outline: areas, orders, depth.
_FLAGS = ("occluded", "is_occluded", "truncated", "difficult", "ignore", "attributes")
_HARMLESS = frozenset((
    *_FLAGS, "a_area", "i_area", "oco_id", "ico_id", "amodal_area", "inmodal_area", "visible_area", "invisible_area",
    "modal_area", "visibility", "num_visible_keypoints",
))  # fmt: skip
#: Any of these bytes in a file: some annotations may hold fields that change the meaning of others.
_SIGNS = (
    b"modal", b"visib", b'_segm"', b'_bbox"', b"occlu", b"vbox", b"bbox_", b"vis_", b"full_", b"hidden", b"truncated",
    b"difficult", b'"ignore"', b'"attributes"',
)  # fmt: skip
_SUSPICIOUS = re.compile(r"amodal|modal_|_modal|invisible|visible_|_visible|occlu|hidden_mask|[ai]_segm|[ai]_bbox")


def read_index(path: Path) -> Index:
    """Decode one instances file. The raw parts are views into it: copy what is kept.

    Raises:
        UserError: when it is missing, cut short, no JSON, no COCO file, or a person has a field that may change the
            meaning of its outline and is not known.
    """
    data = _map(path)
    try:
        rich = any(data.find(sign) >= 0 for sign in _SIGNS)
        return _decode(data, path, rich)
    except msgspec.DecodeError as e:
        raise UserError(_explain(path, e, len(data))) from e
    except RecursionError as e:
        raise UserError(f"{path}: expected a COCO instances file, the JSON is nested too deep for one") from e


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as f:
            start = f.read(4)
            if start[:2] in (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb") or start == b"\0\0\xfe\xff":
                return values.utf8(start + f.read())
            # mapped, not read: the system may take its pages back while the index is built
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if start else b""
    except BadValue as e:
        raise UserError(f"{path}: expected JSON in UTF-8: {e}; save it as UTF-8") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); expected a COCO instances JSON") from e


def _decode(data: mmap.mmap | bytes, path: Path, rich: bool) -> Index:
    try:
        if rich:
            return _record_by_record(data, path, rich)
        file = msgspec.json.decode(data, type=_File)
    except msgspec.ValidationError:
        return _record_by_record(data, path, rich)
    except msgspec.DecodeError as e:
        if not _at_nan(data, e):
            raise
        return _record_by_record(_NAN.sub(b"null", data), path, rich)
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: expected JSON in UTF-8, a string is not ({e.reason})") from e
    if any(type(v) is str for a in file.annotations for v in (a.id, a.image_id, a.category_id)):
        return _record_by_record(data, path, rich)  # "7" is 7
    images = [
        Image(i.id, i.file_name, values.size(i.width, i.height), i.license, i.flickr_url or "") for i in file.images
    ]
    labels: dict[Id, str] = {c.id: c.name for c in file.categories}
    return Index(images, file.annotations, labels, {n.id: n.name for n in file.licenses})


#: Python's json module writes these for floats that are no numbers; JSON has no such words.
_NAN = re.compile(rb"(?<=[\[,:\s])-?(?:NaN|Infinity)(?=\s*[,\]}])")


def _at_nan(data: mmap.mmap | bytes, error: msgspec.DecodeError) -> bool:
    found = re.search(r"\(byte (\d+)\)", str(error))
    return found is not None and data[int(found[1]) : int(found[1]) + 3] in (b"NaN", b"Inf")


def _record_by_record(data: mmap.mmap | bytes, path: Path, rich: bool) -> Index:
    raw = msgspec.json.decode(data, type=_RawFile)
    index = Index([], [], {}, {})
    for kind, records, take in (
        ("category", raw.categories, _take_category),
        ("licence", raw.licenses if isinstance(raw.licenses, list) else [], _take_licence),
        ("image", raw.images, _take_image),
    ):
        for record in records:
            fields: Any = None
            try:
                fields = msgspec.json.decode(record) if isinstance(record, Raw) else record
                if not isinstance(fields, dict):
                    raise BadValue("malformed", f"expected an object, got {str(fields)[:60]}")
                take(index, fields)
            except (BadValue, msgspec.DecodeError, UnicodeDecodeError) as e:
                ids = (fields.get("id", "?"), "?") if isinstance(fields, dict) else ("?", "?")
                if kind != "licence":  # nothing depends on one
                    index.malformed.append(Malformed(kind, ids, "", str(e)))
    decode = msgspec.json.Decoder(_LooseAnnotation).decode
    for n, record in enumerate(raw.annotations):
        _take_annotation(index, record, decode, (path, n) if rich else None)
    return index


def _take_category(index: Index, record: dict[str, Any]) -> None:
    if not isinstance(record.get("name"), str):
        raise BadValue("malformed", f"expected a name, got {str(record.get('name'))[:60]}")
    index.labels.setdefault(values.identifier(record.get("id")), record["name"])


def _take_licence(index: Index, record: dict[str, Any]) -> None:
    index.licences[values.identifier(record.get("id"))] = str(record.get("name") or "")


def _take_image(index: Index, record: dict[str, Any]) -> None:
    name = record.get("file_name", record.get("path", record.get("url")))
    if not isinstance(name, str):
        raise BadValue("malformed", f"expected a file_name, got {str(name)[:60]}")
    size = values.size(record.get("width"), record.get("height"))
    licence = record.get("license")
    known = values.identifier(licence) if type(licence) in (int, float, str) and licence != "" else None
    url = record.get("flickr_url")
    index.images.append(
        Image(values.identifier(record.get("id")), name, size, known, url if isinstance(url, str) else "")
    )


def _take_annotation(index: Index, record: Raw, decode: Any, rich: tuple[Path, int] | None) -> None:
    try:
        a = decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        index.malformed.append(Malformed("annotation", ("?", "?"), "?", str(e)))
        return
    category = a.category_id
    try:
        category = values.identifier(a.category_id)
        found = Annotation(values.identifier(a.id), values.identifier(a.image_id), category)
    except BadValue as e:
        label = index.labels.get(category, "?") if isinstance(category, (int, str)) else "?"
        ids = tuple(v if isinstance(v, (int, str)) else str(v)[:60] for v in (a.id, a.image_id))
        if rich and b'"regions"' in bytes(record):
            raise UserError(
                f"{rich[0]}: annotation {rich[1]} holds the regions of COCOA, not COCO instances; "
                f"ahp convert cocoa={rich[0]} --to coco makes a file of the visible masks"
            ) from e
        index.malformed.append(Malformed("annotation", (ids[0], ids[1]), label, str(e)))
        return
    found.iscrowd, found.bbox, found.segmentation = a.iscrowd, a.bbox, a.segmentation
    if rich:
        found.more = _more(record, *rich)
    index.annotations.append(found)


def _more(record: Raw, path: Path, number: int) -> Raw | None:
    """The record itself, where it holds fields that change its meaning.

    Raises:
        UserError: for a field that may change it and is not known.
    """
    text = bytes(record)
    if not any(sign in text for sign in _SIGNS):
        return None
    fields: dict[str, Raw] = msgspec.json.decode(record, type=dict[str, Raw])
    given = {name for name, value in fields.items() if bytes(value) != b"null"}
    unknown = next((n for n in sorted(given) if _SUSPICIOUS.search(n) and n not in _KNOWN | _HARMLESS), None)
    if unknown is not None:
        raise UserError(
            f"{path}: annotation {number} has the field {unknown!r}, which may change what its segmentation means; "
            f"known are {MODAL[0]}, {MODAL[1]}, {MODAL[2]}, {AMODAL[0]}, {RATE[0]}; rename or remove it"
        )
    return record if given & _KNOWN or given & set(_FLAGS) else None


def _explain(path: Path, error: msgspec.DecodeError, size: int) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"{path}: expected a COCO instances file (images, annotations, categories): {error}"
    if "truncated" in str(error):
        return f"{path}: the JSON is cut short at byte {size}; fetch the file again"
    return f"{path}: expected JSON: {error}; fetch the file again"
