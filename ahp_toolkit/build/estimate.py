"""How many photos and persons a source holds, without reading it all: from lists, else from samples of large files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ahp_toolkit.sources import SOURCES
from ahp_toolkit.storage import locations, remote

#: Smaller files than all chunks together are read whole: 16 MiB here, 4 MiB in a store, whose chunks are smaller.
CHUNK, CHUNK_THERE, CHUNKS = 2**18, 2**16, 64


class Estimate(NamedTuple):
    """Photos and persons of a source, and whether they are counted or estimated from samples."""

    photos: float
    persons: float
    counted: bool


def sampled(path: Path, count: Callable[[bytes], tuple[int, int]]) -> Estimate:
    """What ``count`` finds (photos, persons) in a file: in all of it, or in evenly spread chunks and scaled up."""
    size = path.stat().st_size
    chunk = CHUNK_THERE if isinstance(path, locations.Remote) else CHUNK
    if size <= chunk * CHUNKS:
        return Estimate(*count(_piece(path, 0, size)), True)
    photos = persons = 0
    for k in range(CHUNKS):
        start = round(k * (size - chunk) / (CHUNKS - 1))
        found = count(_piece(path, start, start + chunk))
        photos, persons = photos + found[0], persons + found[1]
    scale = size / (chunk * CHUNKS)
    return Estimate(photos * scale, persons * scale, False)


def _piece(path: Path, start: int, end: int) -> bytes:
    """Some bytes of a file; of one in a store these alone are asked for."""
    if isinstance(path, locations.Remote):
        return remote.read(str(path), start, end)
    with path.open("rb") as f:
        f.seek(start)
        return f.read(end - start)


_FILE, _PERSON = re.compile(rb'"file_name"'), re.compile(rb'"category_id":\s*1(?!\d)')
_HUMAN_ROW = re.compile(rb"^(\w+),[^,\n]*,/m/(?:01g317|04yx4|03bt1vf|01bl7v|05r655),", re.MULTILINE)
_XML_PERSON = re.compile(rb"<name>person</name>")


def _json(data: bytes) -> tuple[int, int]:
    return len(_FILE.findall(data)), len(_PERSON.findall(data))


def _boxes(data: bytes) -> tuple[int, int]:
    rows = _HUMAN_ROW.findall(data)
    return len(set(rows)), len(rows)


def _sum(found: list[Estimate]) -> Estimate:
    return Estimate(
        sum(e.photos for e in found), sum(e.persons for e in found), all(e.counted for e in found) and bool(found)
    )


def _coco_like(root: Path, inputs: list[Path]) -> Estimate:
    return _sum([sampled(p, _json) for p in inputs if p.suffix == ".json"])


def _openimages(root: Path, inputs: list[Path]) -> Estimate:
    return _sum([sampled(p, _boxes) for p in inputs if "bbox" in p.name])


def _voc(root: Path, inputs: list[Path]) -> Estimate:
    """VOC's photos by their number; persons a photo from up to 200 of its XML files."""
    photos = SOURCES.get("voc_sbd").total(root)
    xml = sorted(p for p in inputs if p.suffix == ".xml")
    some = xml[:: max(1, len(xml) // 200)]
    each = sum(len(_XML_PERSON.findall(_piece(p, 0, p.stat().st_size))) for p in some) / len(some) if some else 1.0
    return Estimate(photos, each * photos, len(some) == len(xml) == photos)


_WAYS: dict[str, Callable[[Path, list[Path]], Estimate]] = {
    "coco": _coco_like,
    "objects365": _coco_like,
    "openimages": _openimages,
    "voc_sbd": _voc,
}


def estimate(format_: str, root: Path) -> Estimate | None:
    """Photos and persons of a source; None where nothing cheap tells.

    Raises:
        UserError: when the root does not hold the source.
    """
    source = SOURCES.get(format_)
    inputs = source.inputs(root)
    try:
        if format_ in _WAYS:
            return _WAYS[format_](root, inputs)
        total = source.total(root)  # one person a photo: lip, ahp
    except (OSError, AttributeError):  # not a local file, or a source that cannot tell
        return None
    return Estimate(total, total, True)
