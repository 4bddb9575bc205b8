"""Hostile variants of valid inputs: plain bytes, JSON values, tables of text, XML, PNG, JPEG. All from one `Random`.

A mutation is a function of the random numbers alone, so an input is known by (target, seed, number). ``huge`` allows
the rare inputs that claim or hold much (deep nesting, giant declared sizes, long lists).
"""

from __future__ import annotations

import copy
import functools
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from PIL import Image

HUGE_SHARE = 1 / 4000
#: Put into JSON as strings and turned into bare tokens after writing: what json.dumps would never write.
_RAW = re.compile(r'"@@(.*?)@@"')
TOKENS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e308", "-1e308", "5e-324", "-0", "-0.0", "2147483647",
    "2147483648", "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "18446744073709551615", "18446744073709551616", "1" + "0" * 30, "9" * 400, "9" * 5000,
    "0x10", "01", "+1", "1_000",
    '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\ud800/x.jpg"', '"\\udc80\\ud800"', "nul", "", "//x", "'a'",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.5, 1e9, -1e9, 1e305, -1e305, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 65535,
    65536, "", "0", "1", "nan", "person", "Person", "x", "é", "名", "a\nb", "a\tb", "a\x00b", "../../etc/passwd",
    "/etc/passwd", "a/../../x.jpg", "C:\\x", "..", ".", "~", "x" * 300, "x/" * 200, "x" * 5000, [], {}, [[]], [{}],
    {"": None}, [0, 0], [0, 0, 0, 0], [1, 2, 3], [-5, -5, 3, 3], [1e9, 1e9, 1e9, 1e9], [0, 0, 1e-9, 1e-9],
    [[0, 0, 5, 5]], [[0, 0, 9, 0, 9, 9]], [[1e300, -1e300, 1e300, 1e300, -1e300, -1e300]], [[0] * 7],
    {"size": [0, 0], "counts": []}, {"size": [4, 4], "counts": "04"}, {"size": [4, 4], "counts": [16]},
    {"size": [2**31, 2**31], "counts": [2**62]}, {"size": [4, 4], "counts": [-1, 17]}, {"size": [4], "counts": None},
    {"counts": 10**12, "height": 4, "width": 4}, {"size": [4, 4], "counts": [2**63 - 1, 2**63 - 1, 18]},
)  # fmt: skip
BAD_BYTES = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\xed\xa0\x80", b"\xc3", b"\r", b"\n", b'"', b"'", b"\\", b"{", b"[", b"]",
    b"}", b",", b":", b"<", b">", b"&", b"\x7f", b"\x80\x00\x00\x00", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
)  # fmt: skip


def numbered(target: str, seed: int, number: int) -> Random:
    """The random numbers of one input."""
    return Random(f"{target}/{seed}/{number}")


def flip(data: bytes, rng: Random) -> bytes:
    """A few byte-level changes: flips, cuts, repeats, insertions, truncation."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not out:
            return bytes(out)
        at = rng.randrange(len(out))
        kind = rng.randrange(9)
        if kind <= 2:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            out[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 4:
            out[at:at] = rng.choice(BAD_BYTES)
        elif kind == 5:
            del out[at : at + rng.choice((1, 2, 7, 64, len(out)))]
        elif kind == 6:
            out[at:at] = out[at : at + rng.choice((1, 4, 16, 200))]
        elif kind == 7:
            width = rng.choice((2, 4, 8))
            out[at : at + width] = rng.choice((0, 1, 2**15, 2**16 - 1)).to_bytes(width, rng.choice(("big", "little")))
        else:
            other = rng.randrange(len(out))
            size = rng.choice((4, 16, 100))
            out[at : at + size], out[other : other + size] = out[other : other + size], out[at : at + size]
    return bytes(out)


# --- JSON ---------------------------------------------------------------------------------------------------------


class Twice(dict):  # type: ignore[type-arg]
    """An object that is written with one of its keys a second time."""

    again: tuple[str, Any] = ("", None)

    def items(self) -> Any:
        return [*super().items(), self.again]


def value(rng: Random, huge: bool = False) -> Any:
    """Some hostile JSON value."""
    pick = rng.random()
    if huge and pick < HUGE_SHARE:
        return giant(rng)
    if pick < 0.4:
        return f"@@{rng.choice(TOKENS)}@@"
    if pick < 0.97:
        return copy.deepcopy(rng.choice(VALUES))  # later edits change containers in place
    depth = rng.choice((3, 30, 300))
    return nested(depth, rng.random() < 0.5)


def nested(depth: int, lists: bool) -> str:
    """Lists in lists, or objects in objects."""
    return "@@" + ("[" * depth + "]" * depth if lists else '{"a":' * depth + "1" + "}" * depth) + "@@"


def giant(rng: Random) -> Any:
    """A value of up to some megabytes."""
    kind = rng.randrange(6)
    if kind == 0:
        return nested(rng.choice((900, 970, 990, 1000, 1100, 5000, 100_000)), True)
    if kind == 1:
        return nested(rng.choice((450, 900, 980, 1010, 50_000)), False)
    if kind == 2:
        return "x" * rng.choice((70_000, 200_000, 3_000_000))
    if kind == 3:
        return [rng.randrange(1000)] * rng.choice((10_000, 300_000))
    if kind == 4:
        side = rng.choice((60, 60_000))
        return [[float((i * 7919) % side) for i in range(rng.choice((2000, 60_000)))]]
    return [{}] * rng.choice((5000, 200_000))


def edit(document: Any, rng: Random, huge: bool = False) -> Any:
    """``document`` with one place changed; containers are changed in place."""
    if not isinstance(document, (dict, list)) or not document or rng.random() < 0.01:
        return value(rng, huge)
    node = document
    while True:
        keys: Any = list(node) if isinstance(node, dict) else range(len(node))
        key = rng.choice(keys)
        below = node[key]
        if isinstance(below, (dict, list)) and below and rng.random() < 0.85:
            node = below
            continue
        _change(node, key, rng, huge)
        return document


def _change(node: Any, key: Any, rng: Random, huge: bool) -> None:
    kind = rng.randrange(10)
    if kind <= 5:
        node[key] = value(rng, huge)
    elif kind == 6:
        del node[key]
    elif kind == 7 and isinstance(node, list):
        node[key:key] = [node[key]] * rng.choice((1, 1, 2, 40))
    elif kind == 7:
        node[rng.choice((key.upper(), key + " ", "", "id", "extra"))] = value(rng, huge)
    elif kind == 8 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = rng.choice((-node[key], node[key] + 1, node[key] * 1e9, float(node[key]), str(node[key])))
    elif isinstance(node, list):
        node[key], node[0] = node[0], node[key]
    else:
        node[key] = [node[key]] if rng.random() < 0.5 else {"x": node[key]}


def _twice(document: Any, rng: Random) -> Any:
    """``document`` with one of its objects writing a key twice."""
    if isinstance(document, dict) and document and (rng.random() < 0.3 or not any(map(_holds, document.values()))):
        out = Twice(document)
        out.again = (rng.choice(list(document)), value(rng))
        return out
    if isinstance(document, dict):
        key = rng.choice([k for k, v in document.items() if _holds(v)] or [""])
        return {k: _twice(v, rng) if k == key else v for k, v in document.items()}
    if isinstance(document, list) and document:
        at = rng.randrange(len(document))
        return [_twice(v, rng) if n == at else v for n, v in enumerate(document)]
    return document


def _holds(v: Any) -> bool:
    return isinstance(v, (dict, list)) and bool(v)


def dump(document: Any, indent: int | None = None) -> bytes:
    """JSON bytes, with raw tokens in place."""
    text = json.dumps(document, indent=indent)
    return _RAW.sub(lambda m: json.loads(f'"{m[1]}"'), text).encode("utf-8", "surrogatepass")


def json_bytes(text: bytes, rng: Random, huge: bool = False) -> bytes:
    """A hostile variant of a JSON document."""
    if rng.random() < 0.3:
        return flip(text, rng)
    document = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = edit(document, rng, huge)
    if rng.random() < 0.05:
        document = _twice(document, rng)
    out = dump(document, rng.choice((None, None, None, 1)))
    if rng.random() < 0.02:
        out = out.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1")), "replace")
    return flip(out, rng) if rng.random() < 0.1 else out


# --- text -----------------------------------------------------------------------------------------------------------

CELLS = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e999", "1e308", "-1e308", "1e305", "0", "1", "-1", "-2", "2", "0.5", "1.0",
    "abc", "true", "0x1", "9" * 30, "9" * 500, '"', '""', '"a', 'a"b', "a,b", '"a\nb"', "\x00", "é", "null", "NULL",
    "../../etc/passwd", "/m/01g317", "/m/0bl9f", "zzzz", "x" * 300, "0123456789abcdef", "0123456789ABCDEF", "+1", "1_0",
    "0123456789abcdeg", "\u2028", "N/A", "\uff11", "\ud800",
)  # fmt: skip


def rows(text: bytes, rng: Random, huge: bool = False) -> bytes:
    """A hostile variant of a CSV or of a list of lines."""
    if rng.random() < 0.25:
        return flip(text, rng)
    lines = [line.split(",") for line in text.decode("utf-8", "replace").split("\n")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        cells = lines[at] = list(lines[at])
        cell = rng.randrange(len(cells)) if cells else 0
        kind = rng.randrange(9)
        if kind <= 3 and cells:
            cells[cell] = rng.choice(CELLS)
        elif kind == 4 and cells:
            del cells[cell]
        elif kind == 5:
            cells.insert(cell, rng.choice(CELLS) if rng.random() < 0.5 or not cells else cells[cell])
        elif kind == 6:
            lines.insert(at, list(lines[rng.randrange(len(lines))]))
        elif kind == 7:
            del lines[at]
            lines = lines or [[]]
        else:
            for line in lines:
                if cell < len(line):
                    line[cell] = rng.choice(CELLS) if rng.random() < 0.5 else line[-1]
    out = "\n".join(",".join(line) for line in lines)
    if huge and rng.random() < HUGE_SHARE:
        out += rng.choice((",", "a\n", '"\n', "a,b\n", "\n")) * rng.choice((1000, 2_000_000))
    return out.encode("utf-8", "surrogatepass")


_TAG = re.compile(rb"<[^<>]*>|[^<>]+")


def xml(text: bytes, rng: Random, huge: bool = False) -> bytes:
    """A hostile variant of an XML document."""
    if rng.random() < 0.3:
        return flip(text, rng)
    parts = _TAG.findall(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind <= 2:
            texts = [n for n, p in enumerate(parts) if not p.startswith(b"<")] or [at]
            parts[rng.choice(texts)] = rng.choice(CELLS).replace("&", "").encode("utf-8", "replace")
        elif kind == 3:
            parts[at:at] = parts[at : at + rng.choice((1, 5, 30))]
        elif kind == 4:
            del parts[at : at + rng.choice((1, 2, 9))]
        else:
            parts[at:at] = [
                rng.choice((b"<x/>", b"<object/>", b"<![CDATA[x]]>", b"<!-- -->", b"&lt;", b"&e;", b"<?x?>"))
            ]
        parts = parts or [b""]
    out = b"".join(parts)
    if rng.random() < 0.02:
        other = [b"<?xml version='1.0' encoding='%s'?>" % e + out for e in (b"utf-7", b"zzz", b"utf-16", b"cp037")]
        out = rng.choice((entities(rng.choice((2, 4))), *other, out.decode("utf-8", "replace").encode("utf-16")))
    if huge and rng.random() < HUGE_SHARE:
        person = b"<object><name>person</name></object>" * 20_000
        many = b"<annotation>" + b"<object/>" * 500_000 + b"</annotation>"
        out = rng.choice((entities(9), b"<annotation>" + b"<a>" * 1_000_000, many, out.replace(b"<object>", person, 1)))
    return out


def entities(levels: int) -> bytes:
    """Entities that grow tenfold a level."""
    made = ["<!ENTITY e0 'lol'>", *(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, levels))]
    return (
        f"<!DOCTYPE annotation [{''.join(made)}]><annotation><filename>&e{levels - 1};</filename></annotation>".encode()
    )


# --- pictures -------------------------------------------------------------------------------------------------------


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    at, out = 8, []
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        out.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return out


def _png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    made = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def png(data: bytes, rng: Random, huge: bool = False) -> bytes:
    """A hostile variant of a PNG: chunks changed with their checksums right, sizes that lie, or plain bytes."""
    if huge and rng.random() < HUGE_SHARE:
        return rng.choice(giant_pictures())
    if rng.random() < 0.3:
        return flip(data, rng)
    if rng.random() < 0.15:
        return picture(rng)
    chunks = _chunks(data)
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    if kind == b"IHDR" and len(body) == 13:
        sides = (0, 1, 7, 40, 255, 65535, 2**24, 2**31 - 1, 2**32 - 1)
        w, h = (rng.choice((rng.choice(sides), *struct.unpack(">II", body[:8]))) for _ in range(2))
        depth, colour = rng.choice((1, 2, 4, 8, 16, body[8])), rng.choice((0, 2, 3, 4, 6, body[9]))
        body = struct.pack(">II", w, h) + bytes([depth, colour, 0, 0, rng.choice((0, 1, body[12]))])
    elif kind == b"IDAT" and rng.random() < 0.7:
        try:
            body = zlib.compress(flip(zlib.decompress(body), rng), 1)
        except zlib.error:
            body = flip(body, rng)
    else:
        body = flip(body, rng)
    chunks[at] = (kind, body)
    if rng.random() < 0.2:
        extra = (
            rng.choice((b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"acTL", b"PLTE", b"tRNS", b"IDAT", b"IHDR", b"gAMA")),
            body,
        )
        chunks.insert(rng.randrange(len(chunks) + 1), extra)
    return _png_of(chunks)


#: A TIFF header with one entry: orientation 6.
_EXIF = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00" + bytes(4)


def jpeg(data: bytes, rng: Random, huge: bool = False) -> bytes:
    """A hostile variant of a JPEG: sizes that lie, markers moved, or plain bytes."""
    if huge and rng.random() < HUGE_SHARE:
        return rng.choice(giant_pictures())
    if rng.random() < 0.15:
        return picture(rng)
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if at > 0 and rng.random() < 0.25:
        sides = (0, 1, 8, 4000, 65535)
        size = struct.pack(">HH", rng.choice(sides), rng.choice(sides))
        return data[: at + 5] + size + data[at + 9 :]
    if rng.random() < 0.2:
        body = rng.choice((b"Exif\x00\x00", b"")) + flip(_EXIF, rng)
        marker = rng.choice((b"\xe1", b"\xe2", b"\xfe", b"\xdb", b"\xc4"))
        return data[:2] + b"\xff" + marker + struct.pack(">H", len(body) + 2) + body + data[2:]
    return flip(data, rng)


_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "I;16", "CMYK", "F", "I", "YCbCr")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "EPS", "PDF")


@functools.cache
def pictures() -> tuple[bytes, ...]:
    """Small pictures of every mode and format that go together."""
    found = []
    for n, mode in enumerate(_MODES):
        grey = np.random.default_rng(n).integers(0, 255, (40, 80), np.uint8)
        im = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
        for fmt in _FORMATS:
            out = io.BytesIO()
            try:
                im.save(out, fmt)
            except (OSError, KeyError, ValueError):
                continue
            found.append(out.getvalue())
    return tuple(found)


def picture(rng: Random) -> bytes:
    """A picture of another kind than its name says, whole or damaged."""
    data = rng.choice(pictures())
    return flip(data, rng) if rng.random() < 0.6 else data


@functools.cache
def giant_pictures() -> tuple[bytes, ...]:
    """Small files of many pixels: flat ones, and stripes that make as many runs as there are pixels."""
    made = []
    for mode, side in (("L", 14_000), ("P", 14_000), ("1", 14_000), ("L", 6000)):
        made.append(_image(Image.new(mode, (side, side), 1)))
    made.append(_image(Image.fromarray(np.tile(np.arange(12_000, dtype=np.uint8) & 1, (12_000, 1)))))
    made.append(_image(Image.new("RGB", (12_000, 12_000), (9, 9, 9))))
    return tuple(made)


def _image(im: Image.Image) -> bytes:
    out = io.BytesIO()
    im.save(out, "PNG", compress_level=1)
    return out.getvalue()


def of_kind(suffix: str) -> Callable[[bytes, Random, bool], bytes]:
    """The mutation for files of a suffix."""
    known: dict[str, Callable[[bytes, Random, bool], bytes]] = {
        ".json": json_bytes, ".csv": rows, ".txt": rows, ".xml": xml, ".png": png, ".jpg": jpeg, ".jsonl": rows
    }  # fmt: skip
    return known.get(suffix, lambda data, rng, huge: flip(data, rng))
