"""One pass over an Objects365 JSON: typed records straight to numpy rows, the odd ones one by one.

The quick way decodes numbers as floats and writes the structs as msgpack again: floats take nine bytes there, so
every record has the same width and a whole block becomes one numpy array without a loop in Python.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ahp_toolkit.core import hashing, values
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.text import one_line
from ahp_toolkit.core.values import BadValue
from ahp_toolkit.sources.base import PERSON, label_of, may_be_human
from ahp_toolkit.sources.reading.chunks import batches
from ahp_toolkit.sources.reading.grouping import Grouper

#: Why a row is bad, by the number that stands in its field ``bad``.
BAD = ("", "bad_record", "bad_box", "bad_flag")
NO_LABEL = 0  # index 0 of the names: a category that the file does not list
MAX_NAME = 1024
_MAX_NAMES = 60_000
_EXACT = 2.0**53  # below it a float holds every integer
IMAGE = np.dtype([("key", "i8"), ("width", "i4"), ("height", "i4"), ("licence", "i4"), ("end", "i8")])
ANNOTATION = np.dtype(
    [("key", "i8"), ("id", "i8"), ("category", "i8"), ("crowd", "i1"), ("fake", "i1"), ("reflected", "i1"),
     ("bad", "i1"), ("label", "u4"), ("box", "f8", 4)]
)  # fmt: skip


class _XYWH(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    x: float
    y: float
    w: float
    h: float


class _Annotation(msgspec.Struct, gc=False):
    id: float
    image_id: float
    category_id: float
    bbox: _XYWH
    iscrowd: float = -1.0
    isfake: float = -1.0
    isreflected: float = -1.0


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int = 0
    height: int = 0
    license: int = 0


_TYPES: dict[str, type] = {"images": _Image, "annotations": _Annotation, "categories": dict, "licenses": dict}
_PACK = msgspec.msgpack.Encoder()


def _packed_dtype() -> np.dtype[np.void]:
    """Where the floats stand in one packed record: a map of short strings to numbers, a tag and eight bytes each."""
    names, offsets, at = [], [], 1
    for name in _Annotation.__struct_fields__:
        at += 1 + len(name) + 1
        names.append(name)
        offsets.append(at)
        at += 4 * 9 if name == "bbox" else 8
    at_box = offsets[names.index("bbox")]
    offsets[names.index("bbox")] = at_box + 1
    names += ["y", "w", "h"]
    offsets += [at_box + 1 + 9 * n for n in (1, 2, 3)]
    return np.dtype({"names": names, "formats": [">f8"] * len(names), "offsets": offsets, "itemsize": at})


_PACKED = _packed_dtype()


@dataclass
class Sink:
    """Where one JSON goes."""

    images: Grouper
    annotations: Grouper
    categories: dict[int, str] = field(default_factory=dict)
    licences: dict[int, str] = field(default_factory=dict)


class Categories:
    """Class numbers to indices of lower-case names; index 0 is the unknown class."""

    def __init__(self, names: dict[int, str], person_names: Collection[str]) -> None:
        self.numbers = np.array(sorted(names), np.int64)
        plain = [label_of(names[n], person_names) for n in sorted(names)]
        self.names = ("", *plain)
        self.human = np.array([False, *(name == PERSON for name in plain)])

    def index(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Indices into ``names``."""
        if not len(self.numbers):
            return np.zeros(len(numbers), np.uint32)
        at = np.searchsorted(self.numbers, numbers).clip(0, len(self.numbers) - 1)
        return np.where(self.numbers[at] == numbers, at + 1, NO_LABEL).astype(np.uint32)


def pass_over(path: Path, sink: Sink, person_names: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Fill the sink; gives (id, reason, detail) of records that belong to no image.

    Raises:
        UserError: when the file is cut short, no JSON, or has no annotations, images or categories.
    """
    seen = set()
    for batch in batches(path, _TYPES):
        seen.add(batch.key)
        if not batch.typed and not batch.loose:
            continue
        if batch.key == "annotations":
            if batch.typed is not None and (rows := _rows(batch.typed)) is not None:
                sink.annotations.add(rows)
            else:
                yield from _loose_annotations(sink, batch.loose or [msgspec.to_builtins(a) for a in batch.typed or []])
        elif batch.key == "images":
            yield from _images(sink, batch.typed, batch.loose)
        else:
            into = sink.categories if batch.key == "categories" else sink.licences
            _names(into, batch.typed or batch.loose, path)
    missing = [key for key in ("images", "annotations", "categories") if key not in seen]
    if missing:
        raise UserError(f"{path}: no Objects365 annotation file, its list {missing[0]!r} is missing")
    names = Categories(sink.categories, person_names).names
    if PERSON not in names:
        human = [repr(n) for n in names if may_be_human(n)]
        hint = f"{' and '.join(human[:3])} may be: add --person-name" if human else "name one by --person-name"
        raise UserError(f"{path}: no category is named {PERSON!r} among {len(sink.categories)}; {hint}")


def _rows(records: list[_Annotation]) -> NDArray[np.void] | None:
    """Typed annotations to rows; None where a number is no exact integer."""
    packed = _PACK.encode(records)
    count = len(records)
    flat = np.frombuffer(packed, _PACKED, count, len(packed) - count * _PACKED.itemsize)
    rows = np.zeros(count, ANNOTATION)
    for to, of in (("key", "image_id"), ("id", "id"), ("category", "category_id")):
        value = flat[of].astype(np.float64)
        if not np.abs(value).max(initial=0) < _EXACT:
            return None
        rows[to] = value
        if not np.array_equal(rows[to], value):
            return None
    for to, of in (("crowd", "iscrowd"), ("fake", "isfake"), ("reflected", "isreflected")):
        value = flat[of].astype(np.float64)
        known = (value == 0) | (value == 1)
        rows[to] = np.where(known, value, -1)
        rows["bad"][~known & (value != -1)] = BAD.index("bad_flag")
    for n, of in enumerate(("bbox", "y", "w", "h")):
        rows["box"][:, n] = flat[of]
    return rows


def _whole(value: Any) -> int:
    """An id as a number: a text that is none as a number of its own.

    Raises:
        BadValue: for what is no id.
    """
    found = values.identifier(value)
    return found if isinstance(found, int) else hashing.seed_of(found)


def _loose_annotations(sink: Sink, records: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    rows = []
    for record in records:
        try:
            key = _whole(record["image_id"])
        except (TypeError, KeyError, BadValue) as e:
            yield _name_of(record), "bad_record", f"annotation without a usable image_id: {type(e).__name__}: {e}"
            continue
        rows.append((key, *_loose_annotation(record)))
    if rows:
        sink.annotations.add(np.array(rows, ANNOTATION))


def _loose_annotation(record: dict[str, Any]) -> tuple[Any, ...]:
    """(id, category, three flags, bad, label, box) of a plain record."""
    number, category, bad = -1, -1, 0
    box: tuple[float, ...]
    try:
        category = _whole(record["category_id"])
        number = _whole(record["id"])
    except (KeyError, BadValue):
        bad = BAD.index("bad_record")
    try:
        box = tuple(values.numbers(record.get("bbox"), 4, "bbox") or ())
    except BadValue:
        box = ()
    bad = bad or (BAD.index("bad_box") if not box else 0)
    flags = []
    for name in ("iscrowd", "isfake", "isreflected"):
        try:
            flags.append(values.flag(record.get(name)))
        except BadValue:
            bad = bad or BAD.index("bad_flag")
            flags.append(None)
    return (number, category, *(-1 if f is None else int(f) for f in flags), bad, 0, box or (0.0,) * 4)


def _name_of(record: Any) -> str:
    return str(record.get("id", "?"))[:60] if isinstance(record, dict) else "?"


def _images(sink: Sink, typed: list[_Image] | None, loose: list[Any]) -> Iterator[tuple[str, str, str]]:
    rows = []
    texts = [i.file_name.encode() for i in typed or []]  # msgspec lets no lone surrogate through
    if typed is not None and _tame(typed, texts):
        facts = [(i.id, i.width, i.height, i.license, 0) for i in typed]
        sink.images.add(np.array(facts, IMAGE), texts)
        return
    texts = []
    for record in typed if typed is not None else loose:
        try:
            row, text = _image(record)
        except (TypeError, KeyError, ValueError) as e:
            yield _name_of(record), "bad_record", f"image record: {type(e).__name__}: {e}"
            continue
        rows.append(row)
        texts.append(text)
    if rows:
        sink.images.add(np.array(rows, IMAGE), texts)


def _tame(typed: list[_Image], texts: list[bytes]) -> bool:
    """Whether every image record can go to a row as it is."""
    largest = max(max(abs(i.width), abs(i.height), abs(i.license)) for i in typed)
    lengths = list(map(len, texts))
    return largest < 2**31 and min(lengths) > 0 and max(lengths) <= MAX_NAME and max(abs(i.id) for i in typed) < 2**63


def _image(record: Any) -> tuple[tuple[int, ...], bytes]:
    """(id, width, height, licence, 0) and the file name of an image record, typed or plain."""
    if not isinstance(record, _Image):
        if not isinstance(record, dict) or not isinstance(record["file_name"], str):
            raise ValueError("expected an object with a file_name")
        width, height = values.size(record.get("width"), record.get("height")) or (0, 0)
        licence = record.get("license")
        number = _whole(licence) if type(licence) in (int, float, str) and licence != "" else 0
        record = _Image(_whole(record["id"]), record["file_name"], width, height, number % 2**31)
    text = record.file_name.encode("utf-8")
    if not text or len(text) > MAX_NAME:
        raise ValueError(f"a file name of {len(text)} bytes")
    sizes = (record.width, record.height, record.license)
    if max(map(abs, sizes)) >= 2**31 or abs(record.id) >= 2**63:
        raise ValueError(f"a size or number out of range: {sizes}")
    return (record.id, *sizes, 0), text


def _names(into: dict[int, str], records: Iterable[Any], path: Path) -> None:
    """``id`` and ``name`` of categories or licences; what has none is no use to anybody and passed over.

    Raises:
        UserError: when there are more than any file can have.
    """
    for record in records:
        name = record.get("name") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
            continue
        try:
            into.setdefault(_whole(record["id"]), one_line(name))
        except (KeyError, BadValue):
            continue
    if len(into) > _MAX_NAMES:
        raise UserError(f"{path}: more than {_MAX_NAMES} categories or licences; this is no Objects365 annotation file")
