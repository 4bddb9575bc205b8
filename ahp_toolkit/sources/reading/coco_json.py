"""COCO instances JSON: the typed, lazy index of one file.

Only what an index needs is decoded; boxes and outlines stay raw JSON until a worker loads the photo. A file that holds
records of the wrong type, or the NaN that Python writes and JSON forbids, is read a second time record by record, so
that only the bad records are lost.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from ahp_toolkit.core.errors import UserError

_NULL = Raw(b"null")
T = TypeVar("T")


class Image(Struct, gc=False):
    """An image record."""

    id: int
    file_name: str = ""
    width: int | None = None
    height: int | None = None
    license: int | str | None = None
    flickr_url: str | None = None


class Annotation(Struct, gc=False):
    """An annotation record; ``bbox`` and ``segmentation`` as raw JSON."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int | bool = 0
    bbox: Raw = _NULL
    segmentation: Raw = _NULL


class Category(Struct, gc=False):
    """A category record."""

    id: int
    name: str


class Licence(Struct, gc=False):
    """A licence record."""

    id: int | str
    name: str = ""


class _File(Struct):
    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]
    licenses: list[Licence] = []


class _RawFile(Struct):
    images: list[Raw]
    annotations: list[Raw]
    categories: list[Raw]
    licenses: list[Raw] = []


class _Ids(Struct):
    """What can be saved of a malformed record, to name it by."""

    id: Any = "?"
    image_id: Any = "?"


@dataclass(frozen=True)
class Malformed:
    """A record that is not what it should be: which list it stood in, its ids as far as known, and why."""

    kind: str
    ids: tuple[Any, Any]
    detail: str


@dataclass
class Index:
    """One file's records. ``malformed`` ones are not among ``images`` and ``annotations``."""

    images: list[Image]
    annotations: list[Annotation]
    labels: dict[int, str]
    licences: dict[int | str, str]
    malformed: list[Malformed] = field(default_factory=list)


def read_index(path: Path) -> Index:
    """Decode one instances file. The raw parts are views into it: copy what is kept.

    Raises:
        UserError: when it is missing, cut short, no JSON, or no COCO file.
    """
    data = _map(path)
    try:
        file, malformed = _decode(data, path)
    except msgspec.DecodeError as e:
        raise UserError(_explain(path, e, len(data))) from e
    except RecursionError as e:
        raise UserError(f"{path}: expected a COCO instances file, the JSON is nested too deep for one") from e
    labels = {c.id: c.name.strip().lower() for c in file.categories}
    return Index(file.images, file.annotations, labels, {c.id: c.name for c in file.licenses}, malformed)


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as f:
            # mapped, not read: the system may take its pages back while the index is built
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); expected a COCO instances JSON") from e


def _decode(data: mmap.mmap | bytes, path: Path) -> tuple[_File, list[Malformed]]:
    try:
        return msgspec.json.decode(data, type=_File), []
    except msgspec.ValidationError:
        return _record_by_record(data)
    except msgspec.DecodeError as e:
        if not _at_nan(data, e):
            raise
        return _record_by_record(_NAN.sub(b"null", data))
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: expected JSON in UTF-8, a string is not ({e.reason})") from e


#: Python's json module writes these for floats that are no numbers; JSON has no such words.
_NAN = re.compile(rb"(?<=[\[,:\s])-?(?:NaN|Infinity)(?=\s*[,\]}])")


def _at_nan(data: mmap.mmap | bytes, error: msgspec.DecodeError) -> bool:
    place = _position(error)
    return place is not None and data[place : place + 3] in (b"NaN", b"Inf")


def _position(error: Exception) -> int | None:
    found = re.search(r"\(byte (\d+)\)", str(error))
    return int(found[1]) if found else None


def _record_by_record(data: mmap.mmap | bytes) -> tuple[_File, list[Malformed]]:
    raw = msgspec.json.decode(data, type=_RawFile)
    bad: list[Malformed] = []
    images = _each(raw.images, Image, "image", bad)
    annotations = _each(raw.annotations, Annotation, "annotation", bad)
    categories = _each(raw.categories, Category, "category", bad)
    return _File(images, annotations, categories, _each(raw.licenses, Licence, "licence", bad)), bad


def _each(records: list[Raw], kind: type[T], name: str, bad: list[Malformed]) -> list[T]:
    decode = msgspec.json.Decoder(kind, strict=False).decode
    good: list[T] = []
    for raw in records:
        try:
            good.append(decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            bad.append(Malformed(name, _ids(raw), str(e)))
    return good


def _ids(raw: Raw) -> tuple[Any, Any]:
    try:
        ids = msgspec.json.decode(raw, type=_Ids)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "?", "?"
    return ids.id, ids.image_id


def _explain(path: Path, error: msgspec.DecodeError, size: int) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"{path}: expected a COCO instances file (images, annotations, categories): {error}"
    if "truncated" in str(error):
        return f"{path}: the JSON is cut short at byte {size}; fetch the file again"
    return f"{path}: expected JSON: {error}; fetch the file again"


def repeated(annotations: list[Annotation]) -> set[int]:
    """Positions of the annotations whose id stood before."""
    if len(set(map(attrgetter("id"), annotations))) == len(annotations):
        return set()
    seen: set[int] = set()
    again = set()
    for n, a in enumerate(annotations):
        if a.id in seen:
            again.add(n)
        seen.add(a.id)
    return again
